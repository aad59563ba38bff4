//! A server with many agents, plain on all sides, each in front of an API server that says what it is told to.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Process, free_addr, get, product, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Two hundred debug builds on two cores begin one behind the other.
const READY_MAX: Duration = Duration::from_secs(120);

/// What stands behind an agent.
pub(super) enum ApiServer {
    /// Nobody listens.
    Refuses,
    /// It takes connections and answers nothing.
    Hangs,
    /// It answers everything in these words.
    Answers(u16, String),
}

impl ApiServer {
    /// One that is well, and of this version.
    pub(super) fn tells(version: &str) -> Self {
        Self::Answers(200, json!({ "major": "1", "minor": "33", "gitVersion": version }).to_string())
    }

    /// One that refuses everything with this message.
    pub(super) fn says(code: u16, message: &str) -> Self {
        let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code });
        Self::Answers(code, status.to_string())
    }

    /// Begins to listen, for as long as the test lasts.
    fn start(&self) -> Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let addr = listener.local_addr()?;
        let words = match self {
            Self::Refuses => return Ok(addr),
            Self::Hangs => None,
            Self::Answers(code, body) => {
                let head =
                    format!("HTTP/1.1 {code} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
                Some(format!("{head}{body}"))
            }
        };
        thread::spawn(move || {
            for io in listener.incoming().map_while(Result::ok) {
                let words = words.clone();
                thread::spawn(move || drop(serve(io, words.as_deref())));
            }
        });
        Ok(addr)
    }
}

/// Answers each head without a body.
fn serve(mut io: TcpStream, words: Option<&str>) -> std::io::Result<()> {
    let (mut heard, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let n = io.read(&mut piece)?;
        if n == 0 {
            return Ok(());
        }
        heard.extend_from_slice(&piece[..n]);
        if heard.ends_with(b"\r\n\r\n") {
            heard.clear();
            words.map_or(Ok(()), |words| io.write_all(words.as_bytes()))?;
        }
    }
}

/// A server and its agents.
pub(super) struct Fleet {
    internal: SocketAddr,
    agents: Vec<(String, Process)>,
    _server: Process,
    _dir: TempDir,
}

impl Fleet {
    /// Starts them; a cluster without an API server has no agent either.
    pub(super) fn start(clusters: &[(String, Option<ApiServer>)]) -> Result<Self> {
        let temp = tempfile::Builder::new().prefix("postern-e2e-").tempdir()?;
        let dir = temp.path();
        let (public, internal) = (free_addr()?, free_addr()?);
        let listed: Vec<_> = clusters.iter().map(|(id, _)| json!({ "id": id, "token": token(id) })).collect();
        fs::write(dir.join("clusters.json"), Value::Array(listed).to_string())?;
        fs::write(dir.join("api.token"), "of-the-agent")?;
        let mut command = Command::new(product("postern-server")?);
        command.args(["--addr", &public.to_string(), "--internal-addr", &internal.to_string(), "--clusters"]);
        command.arg(dir.join("clusters.json"));
        let mut server = Process::start(dir, "server", command)?;
        let is_up = |_: &str| get(internal, "/healthz").ok().filter(|answer| answer.status == 200).map(drop);
        server.wait_until("health", READY_MAX, is_up)?;
        // Those that are well share one, as far as anybody can see.
        let mut agents = Vec::new();
        let mut shared: Vec<(String, SocketAddr)> = Vec::new();
        for (id, api) in clusters {
            let Some(api) = api else { continue };
            let known = match api {
                ApiServer::Answers(200, body) => Some(body.clone()),
                ApiServer::Answers(..) | ApiServer::Refuses | ApiServer::Hangs => None,
            };
            let target = match shared.iter().find(|(body, _)| known.as_ref() == Some(body)) {
                Some((_, target)) => *target,
                None => api.start()?,
            };
            shared.extend(known.map(|body| (body, target)));
            agents.push((id.clone(), agent(dir, id, public, target)?));
        }
        Ok(Self { internal, agents, _server: server, _dir: temp })
    }

    /// The address of the page with this question.
    pub(super) fn page(&self, query: &str) -> String {
        format!("http://{}/clusters?{query}", self.internal)
    }

    /// What programs are told.
    pub(super) fn clusters(&self, query: &str) -> Result<Value> {
        let answer = get(self.internal, &format!("/clusters?format=json&{query}"))?;
        ensure!(answer.status == 200, "{}", answer.text());
        Ok(serde_json::from_slice::<Value>(&answer.body)?["clusters"].take())
    }

    /// Waits until so many clusters stand so.
    pub(super) fn wait_for_states(&self, wanted: &[(&str, usize)]) -> Result<()> {
        wait_for(&format!("{wanted:?}"), READY_MAX, || {
            let all = self.clusters("")?;
            let n = |state: &str| all.as_array().into_iter().flatten().filter(|cluster| cluster["state"] == state).count();
            Ok(wanted.iter().all(|(state, count)| n(state) == *count).then_some(()))
        })
    }

    /// Ends the agent of a cluster.
    pub(super) fn stop(&mut self, id: &str) -> Result<()> {
        let at = self.agents.iter().position(|(agent, _)| agent == id).with_context(|| format!("no agent of {id}"))?;
        drop(self.agents.remove(at));
        Ok(())
    }
}

fn agent(dir: &Path, id: &str, public: SocketAddr, target: SocketAddr) -> Result<Process> {
    let mut command = Command::new(product("postern-agent")?);
    command.args(["--server", &format!("ws://{public}/connect"), "--allow-insecure-server", "--token", &token(id)]);
    command.args(["--target", &target.to_string(), "--plain-target", "--sa-token-path"]).arg(dir.join("api.token"));
    command.args(["--health-addr=", "--worker-threads=1"]);
    Process::start(dir, id, command)
}

fn token(id: &str) -> String {
    format!("end-to-end-token-of-{id}")
}
