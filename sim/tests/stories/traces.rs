//! One trace leads from a caller to the API server, whichever of our programs adds its spans to it.

use anyhow::Context;
use host::{TraceConfig, TraceParent};
use http::{HeaderMap, StatusCode};
use sim::promise::{FRONT_DOOR, Promise::Nothing};
use sim::story::{Story, Within, secs};
use sim::world::World;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Why a version 1 agent promises nothing here: there are worlds with one.
const AS_IT_CAME: &str = "it passes on what its server says";

#[test]
fn the_api_server_gets_the_trace_that_the_caller_began_whoever_adds_to_it() {
    for (hub_traces, agent_traces) in [(false, false), (true, false), (false, true), (true, true)] {
        let world = world(hub_traces, agent_traces);
        world.version_1(Nothing(AS_IT_CAME), Nothing(FRONT_DOOR)).tell(async |s: Story| {
            let arrived = arrives(&s, &[("traceparent", PARENT), ("tracestate", "vendor=1")]).await?;
            let told = text(&arrived, "traceparent").context("no trace arrived")?;
            anyhow::ensure!(told.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{told}");
            anyhow::ensure!(told.ends_with("-01"), "{told}");
            anyhow::ensure!((told == PARENT) != (hub_traces || agent_traces), "the parent is who asked last: {told}");
            anyhow::ensure!(text(&arrived, "tracestate").as_deref() == Some("vendor=1"), "{arrived:?}");

            let not_sampled = PARENT.replace("-01", "-00");
            let arrived = arrives(&s, &[("traceparent", &not_sampled)]).await?;
            let told = text(&arrived, "traceparent").context("no trace arrived")?;
            anyhow::ensure!(told.ends_with("-00"), "the caller's word counts: {told}");

            let arrived = arrives(&s, &[("traceparent", "nonsense"), ("tracestate", "vendor=1")]).await?;
            let told = text(&arrived, "traceparent").context("no header arrived")?;
            let is_ours = TraceParent::parse(&told).is_some();
            anyhow::ensure!(is_ours == (hub_traces || agent_traces), "{told}");
            anyhow::ensure!(text(&arrived, "tracestate").is_some() != is_ours, "a state without its trace: {arrived:?}");

            let arrived = arrives(&s, &[]).await?;
            anyhow::ensure!(text(&arrived, "traceparent").is_some() == (hub_traces || agent_traces), "{arrived:?}");
            Ok(())
        });
    }
}

#[test]
fn a_collector_that_is_not_there_costs_no_request_anything() {
    let time_of = |hub_traces: bool, agent_traces: bool| {
        let took = std::sync::Mutex::new(Vec::new());
        world(hub_traces, agent_traces).version_1(Nothing(AS_IT_CAME), Nothing(FRONT_DOOR)).tell(async |s: Story| {
            for _ in 0..50 {
                let reply = s.kubectl().get("edge-1", "/version").within(secs(5)).await?.expect(StatusCode::OK)?;
                took.lock().expect("nobody panicked").push(reply.took);
            }
            s.pass(secs(120)).await;
            let metrics = s.kubectl().request(http::Method::GET, "/metrics").within(secs(5)).await?.text();
            let dropped =
                metrics.lines().find_map(|line| line.strip_prefix("trace_spans_dropped_total ")).context("no metric")?;
            anyhow::ensure!((dropped != "0") == hub_traces, "{dropped}");
            // Nothing is left to deliver, so that nobody waits for it.
            let began = tokio::time::Instant::now();
            s.drain("hub/server");
            s.until("the hub has ended", || s.machine("hub/server").tasks().is_empty()).within(secs(5)).await?;
            anyhow::ensure!(began.elapsed() < secs(5));
            s.restart("hub/server");
            s.until_reachable("edge-1").within(secs(20)).await
        });
        took.into_inner().expect("nobody panicked")
    };
    // Spans take their ids from the dice that requests take theirs from, and nothing else changes.
    assert_eq!(time_of(true, true), time_of(false, false));
}

/// Those who trace do so for a collector that nobody runs.
fn world(hub_traces: bool, agent_traces: bool) -> World {
    let traces = |on: bool| {
        let collector = on.then(|| "http://hub:4318".parse().expect("a URL"));
        TraceConfig { collector, ..TraceConfig::default() }
    };
    World::new()
        .hub(|hub| hub.with(|config| config.traces = traces(hub_traces)))
        .cluster("edge-1", |c| c.with(|config| config.traces = traces(agent_traces)))
}

/// What the API server sees of a request with these headers.
async fn arrives(s: &Story, headers: &[(&'static str, &str)]) -> anyhow::Result<HeaderMap> {
    let call = s.kubectl().get("edge-1", "/version");
    let call = headers.iter().fold(call, |call, (name, value)| call.header(name, value));
    call.within(secs(5)).await?.expect(StatusCode::OK)?;
    Ok(s.api("edge-1").requests().pop().context("nothing arrived")?.headers)
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
