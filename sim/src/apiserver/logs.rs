//! Container logs: ten lines that are there, then one a second for as long as somebody follows. A pod can say more:
//! with the annotation `sim.example.com/lines-per-second`, and longer lines with `sim.example.com/line-bytes`.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::Value;

use super::ApiServer;
use super::body::{self, Body};
use super::query::Query;
use super::status::Status;

/// Lines that a container has written before anybody looked.
const LINES_AT_START: u64 = 10;

/// How often a followed container writes another line, unless its pod says otherwise.
const LINE_EVERY: Duration = Duration::from_secs(1);

struct Log {
    server: ApiServer,
    pod: Value,
    container: String,
    timestamps: bool,
    next: u64,
    follow: bool,
    line_every: Duration,
    /// Put into each line to make it as long as the pod wants.
    filler: String,
}

/// Answers `GET …/pods/NAME/log`.
pub(crate) fn answer(server: &ApiServer, pod: &Value, query: &Query) -> Result<Response<Body>, Status> {
    for unknown in ["sinceSeconds", "sinceTime", "limitBytes"] {
        if query.get(unknown).is_some() {
            return Err(Status::not_simulated(unknown));
        }
    }
    let container = container_of(pod, query)?;
    if query.flag("previous") {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        return Err(Status::bad_request(format!("previous terminated container {container:?} in pod {name:?} not found")));
    }
    let n_lines = query.number("tailLines")?.unwrap_or(LINES_AT_START).min(LINES_AT_START);
    let annotation = |name: &str| -> Option<u32> {
        pod["metadata"]["annotations"].get(format!("sim.example.com/{name}"))?.as_str()?.parse().ok()
    };
    let log = Log {
        server: server.clone(),
        pod: pod.clone(),
        container,
        timestamps: query.flag("timestamps"),
        next: LINES_AT_START - n_lines,
        follow: query.flag("follow"),
        line_every: annotation("lines-per-second").map_or(LINE_EVERY, |n| Duration::from_secs(1) / n.max(1)),
        filler: ".".repeat(annotation("line-bytes").unwrap_or_default() as usize),
    };
    let lines = futures_util::stream::unfold(log, |mut log| async move {
        let line = log.next().await?;
        Some((Ok(Frame::data(line)), log))
    });
    let mut response = body::text(StatusCode::OK, "");
    *response.body_mut() = StreamBody::new(lines).boxed_unsync();
    Ok(response)
}

/// The container that a caller means: the one named, or the only one.
pub(crate) fn container_of(pod: &Value, query: &Query) -> Result<String, Status> {
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let containers = pod["spec"]["containers"].as_array().map_or(&[][..], Vec::as_slice);
    let names: Vec<_> = containers.iter().filter_map(|container| container["name"].as_str()).collect();
    match (query.get("container"), names.as_slice()) {
        (Some(wanted), names) if names.contains(&wanted) => Ok(wanted.to_owned()),
        (Some(wanted), _) => Err(Status::bad_request(format!("container {wanted} is not valid for pod {pod_name}"))),
        (None, [only]) => Ok((*only).to_owned()),
        (None, names) => {
            let names = names.join(" ");
            Err(Status::bad_request(format!("a container name must be specified for pod {pod_name}, choose one of: [{names}]")))
        }
    }
}

impl Log {
    /// The next line; none at the end, or when the pod is gone.
    async fn next(&mut self) -> Option<Bytes> {
        if self.next >= LINES_AT_START {
            if !self.follow {
                return None;
            }
            tokio::time::sleep(self.line_every).await;
            let metadata = &self.pod["metadata"];
            let text = |field: &str| metadata[field].as_str().unwrap_or_default();
            let alive = self.server.get("pods", text("namespace"), text("name"));
            alive.filter(|pod| pod["metadata"]["uid"] == metadata["uid"])?;
        }
        let line = format!("{} {}line {}\n", self.container, self.filler, self.next);
        self.next += 1;
        Some(if self.timestamps { format!("{} {line}", self.server.now()).into() } else { line.into() })
    }
}
