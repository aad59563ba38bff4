//! Traces as a collector receives them: one trace from a caller to the API server, whichever of the programs adds to it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::corpus::{Arrived, FarEnd};
use e2e::{Collector, Delivered, Plain, Suite, wait_for};
use tokio::runtime::Runtime;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// The span of the caller.
const CALLER: &str = "b7ad6b7169203331";

/// Spans are delivered within a second or so; this machine may be busy.
const DELIVERED_MAX: Duration = Duration::from_secs(20);

/// Runs all of it.
pub(crate) fn run(suite: &mut Suite) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    for (name, of_hub, of_agent) in [
        ("both ends add their spans to the caller's trace", true, true),
        ("the hub alone adds its span", true, false),
        ("the agent alone adds its span", false, true),
    ] {
        suite.step(name, || one_trace(&runtime, of_hub, of_agent));
    }
    suite.step("what ended last is delivered before a program ends", || last_words(&runtime));
    Ok(())
}

fn one_trace(runtime: &Runtime, of_hub: bool, of_agent: bool) -> Result<()> {
    let Scene { plain, collector, far_end } = Scene::start(runtime, of_hub, of_agent)?;
    ensure!(ask(plain.internal, "GET", "/tunnel/edge-1/version?secret=1")? == 200);
    let passed_on = far_end.parent()?;
    let spans = collected(&collector, usize::from(of_hub) + usize::from(of_agent))?;
    let of = |service: &str| spans.iter().find(|span| span.service == service);
    let (hub, agent) = (of("postern-server"), of("postern-agent"));
    ensure!(hub.is_some() == of_hub && agent.is_some() == of_agent, "{spans:#?}");
    // From the caller inwards, each is the child of the one before.
    let mut parent = CALLER.to_owned();
    for span in [hub, agent].into_iter().flatten() {
        ensure!(span.trace == TRACE && span.parent == parent, "{span:#?} is not of {parent}");
        ensure!(span.name == "GET" && !span.is_error, "{span:#?}");
        let told = |key: &str| span.attributes.get(key).map(String::as_str);
        ensure!(told("http.request.method") == Some("GET") && told("http.response.status_code") == Some("200"), "{span:#?}");
        ensure!(told("url.path") == Some("/version"), "a query may be a command line: {span:#?}");
        ensure!(!format!("{span:?}").contains("secret"), "{span:#?}");
        parent.clone_from(&span.id);
    }
    ensure!(passed_on == format!("00-{TRACE}-{parent}-01"), "{passed_on} is not of {parent}");
    if let Some(hub) = hub {
        ensure!(hub.attributes.get("postern.cluster").is_some_and(|cluster| cluster == "edge-1"), "{hub:#?}");
        let id = |span: &Delivered| span.attributes.get("postern.request_id").cloned();
        ensure!(agent.is_none_or(|agent| id(agent) == id(hub) && id(hub).is_some()), "{spans:#?}");
        ensure!(ask(plain.internal, "BREW", "/tunnel/nowhere/version")? == 502);
        let refused = collected(&collector, spans.len() + 1)?.pop().context("no span")?;
        ensure!(refused.is_error && refused.name == "HTTP" && refused.parent == CALLER, "{refused:#?}");
        for (key, wanted) in [
            ("error.type", "UnknownCluster"),
            ("http.request.method", "_OTHER"),
            ("http.request.method_original", "BREW"),
            ("http.response.status_code", "502"),
        ] {
            ensure!(refused.attributes.get(key).is_some_and(|told| told == wanted), "{key}: {refused:#?}");
        }
    }
    Ok(())
}

fn last_words(runtime: &Runtime) -> Result<()> {
    let Scene { mut plain, collector, .. } = Scene::start(runtime, true, true)?;
    for _ in 0..3 {
        ensure!(ask(plain.internal, "GET", "/tunnel/edge-1/version")? == 200);
    }
    for process in &mut plain.processes {
        process.terminate()?;
        process.wait_for_exit(DELIVERED_MAX)?;
    }
    // Nobody is left to deliver more.
    ensure!(collector.spans().len() == 6, "{:#?}", collector.spans());
    Ok(())
}

struct Scene {
    plain: Plain,
    collector: Collector,
    far_end: FarEnd,
}

impl Scene {
    fn start(runtime: &Runtime, of_hub: bool, of_agent: bool) -> Result<Self> {
        let (collector, far_end) = (Collector::start()?, FarEnd::default());
        let target = runtime.block_on(far_end.listen())?;
        let url = collector.url();
        let flags = |on: bool| if on { vec!["--otlp-endpoint", &url] } else { Vec::new() };
        let plain = Plain::start(target, &flags(of_hub), &flags(of_agent))?;
        Ok(Self { plain, collector, far_end })
    }
}

/// What the far end was told last of whose request it is.
trait Parent {
    fn parent(&self) -> Result<String>;
}

impl Parent for FarEnd {
    fn parent(&self) -> Result<String> {
        let arrived = self.take().pop().context("nothing arrived")?;
        let Arrived::Whole(request) = arrived else { anyhow::bail!("{arrived:?}") };
        let of_name = |wanted: &str| {
            let mut found = request.fields.iter().filter(|(name, _)| name == wanted);
            let (first, second) = (found.next(), found.next());
            first.filter(|_| second.is_none()).map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        };
        ensure!(of_name("tracestate").as_deref() == Some("vendor=1"), "{request:?}");
        of_name("traceparent").context("no traceparent, or more than one")
    }
}

fn collected(collector: &Collector, n: usize) -> Result<Vec<Delivered>> {
    let waited = wait_for("spans", DELIVERED_MAX, || Ok((collector.spans().len() >= n).then_some(())));
    let spans = collector.spans();
    waited.with_context(|| format!("{spans:#?}"))?;
    ensure!(spans.len() == n, "{spans:#?}");
    Ok(spans)
}

/// Asks as a caller that traces; gives the status.
fn ask(addr: SocketAddr, method: &str, path: &str) -> Result<u16> {
    let mut stream = TcpStream::connect(addr)?;
    let traced = format!("traceparent: 00-{TRACE}-{CALLER}-01\r\ntracestate: vendor=1");
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n{traced}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).with_context(|| answer.clone())
}
