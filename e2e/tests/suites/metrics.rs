//! Metrics as a real Prometheus scrapes them, and the rules and panels that stand on them.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use e2e::corpus::FarEnd;
use e2e::{Plain, Prometheus, Suite, get, promtool};

/// Requests that want to make series, of several connections.
const N_HOSTILE: usize = 10_000;
const N_CONNECTIONS: usize = 4;

/// Ordinary requests, which are counted.
const N_REQUESTS: usize = 7;

/// Runs all of it.
pub(crate) fn run(suite: &mut Suite) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let target = runtime.block_on(answers_as_asked().listen())?;
    let plain = Plain::start(target, &[], &[])?;
    let alerts = charts("alerts.yaml");
    let prometheus = Prometheus::start(plain.dir(), &[("hub", plain.internal), ("edge-1", plain.health)], &alerts)?;
    suite.step("Prometheus scrapes both programs and finds what was done", || values(&plain, &prometheus));
    suite.step("10,000 hostile paths, methods and codes make no series", || cardinality(&plain, &prometheus));
    suite.step("promtool finds nothing to mend in names and texts", || {
        lint(&get(plain.internal, "/metrics")?.text())?;
        lint(&get(plain.health, "/metrics")?.text())
    });
    suite.step("each alert is sound, fires when it should, and is silent when all is well", || rules(&prometheus));
    suite.step("Prometheus understands each query of the dashboard", || dashboard(&prometheus));
    eprintln!("{}", prometheus.log_tail());
    Ok(())
}

/// Answers `/code/N/…` with that code, and all else as an API server might.
fn answers_as_asked() -> FarEnd {
    FarEnd::new(|request| {
        let code: u16 = request.target.strip_prefix("/code/")?.split('/').next()?.parse().ok()?;
        Some(format!("HTTP/1.1 {code} as asked\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").into_bytes())
    })
}

fn values(plain: &Plain, prometheus: &Prometheus) -> Result<()> {
    for job in ["hub", "edge-1"] {
        prometheus.until(&format!("up{{job=\"{job}\"}}"), |up| up == 1.0)?;
    }
    for _ in 0..N_REQUESTS {
        ensure!(get(plain.internal, "/tunnel/edge-1/version")?.status == 200);
    }
    let n = |value: f64| value == N_REQUESTS as f64;
    prometheus.until("proxy_requests_total{cluster=\"edge-1\",method=\"GET\",code=\"200\"}", n)?;
    prometheus.until("proxy_request_duration_seconds_count{cluster=\"edge-1\"}", n)?;
    prometheus.until("agent_upstream_requests_total", n)?;
    let known = [
        ("tunnel_sessions{cluster=\"edge-1\"}", 1.0),
        ("agents_connected", 1.0),
        ("agent_connected", 1.0),
        ("sum(tunnel_streams{cluster=\"edge-1\"})", 0.0),
        ("count(agent_streams)", 4.0),
        ("sum(sessions_ended_total)", 0.0),
        ("sum(agent_dials_failed_total)", 0.0),
        ("tunnel_budget_bytes", 1_073_741_824.0),
        ("build_info{job=\"hub\"}", 1.0),
    ];
    for (query, wanted) in known {
        prometheus.until(query, |value| value == wanted)?;
    }
    for query in ["tunnel_round_trip_seconds{cluster=\"edge-1\"}", "agent_round_trip_seconds"] {
        prometheus.until(query, |seconds| seconds > 0.0 && seconds < 5.0)?;
    }
    // What one end has sent the other has received.
    let sent = prometheus.until("agent_tunnel_bytes_total{direction=\"sent\"}", |bytes| bytes > 0.0)?;
    prometheus.until("tunnel_bytes_total{cluster=\"edge-1\",direction=\"received\"}", |bytes| bytes == sent).map(drop)
}

fn cardinality(plain: &Plain, prometheus: &Prometheus) -> Result<()> {
    // What there may be, once: one of each kind, and all codes.
    let codes = (400..1000).map(|code| format!("GET /tunnel/edge-1/code/{code}/"));
    ask_all(plain.internal, (0..4).map(hostile).chain(codes))?;
    prometheus.until("proxy_requests_total{cluster=\"edge-1\",method=\"GET\",code=\"other\"}", |n| n > 300.0)?;
    prometheus.until("sum(proxy_requests_total{cluster=\"\"})", |n| n == 2.0)?;
    let before = series(prometheus)?;
    let answered = "sum(proxy_requests_total)";
    let n_before = prometheus.until(answered, |_| true)?;
    std::thread::scope(|scope| {
        let asked = (0..N_CONNECTIONS).map(|connection| {
            let hostile = (0..N_HOSTILE / N_CONNECTIONS).map(move |n| hostile(n * N_CONNECTIONS + connection));
            scope.spawn(move || ask_all(plain.internal, hostile))
        });
        let asked: Vec<_> = asked.collect();
        asked.into_iter().try_for_each(|asking| asking.join().unwrap_or_else(|_| anyhow::bail!("it panicked")))
    })?;
    prometheus.until(answered, |n| n >= n_before + N_HOSTILE as f64)?;
    let after = series(prometheus)?;
    eprintln!("series of hub and agent: {}, after {N_HOSTILE} hostile requests: {}", before.len(), after.len());
    ensure!(before == after, "new: {:#?}", after.difference(&before).collect::<Vec<_>>());
    Ok(())
}

/// All series of both programs; the alerts are Prometheus's own.
fn series(prometheus: &Prometheus) -> Result<BTreeSet<String>> {
    let all = prometheus.query("{__name__!~\"ALERTS.*\",job=~\"hub|edge-1\"}")?;
    Ok(all.into_iter().map(|(labels, _)| format!("{labels:?}")).collect())
}

/// A request line of somebody who wants to be remembered.
fn hostile(n: usize) -> String {
    match n % 4 {
        0 => format!("BREW{n} /tunnel/edge-1/api/v1/namespaces/n{n}/pods/p{n}?q={n}"),
        1 => format!("GET /tunnel/edge-1/code/{}/{n}", 400 + n % 600),
        2 => format!("GET /tunnel/cluster-{n}/version"),
        _ => format!("M{n} /tunnel/%2e{n}/x"),
    }
}

/// Asks one thing after the other, on one connection for as long as it is kept.
fn ask_all(addr: SocketAddr, asked: impl Iterator<Item = String>) -> Result<()> {
    let mut kept: Option<BufReader<TcpStream>> = None;
    for line in asked {
        let mut reader = match kept.take() {
            Some(reader) => reader,
            None => BufReader::new(TcpStream::connect(addr)?),
        };
        // In one piece, or each would wait for the acknowledgement of the one before.
        reader.get_mut().write_all(format!("{line} HTTP/1.1\r\nhost: hub\r\n\r\n").as_bytes())?;
        let (mut length, mut is_kept) = (0, true);
        loop {
            let mut field = String::new();
            ensure!(reader.read_line(&mut field)? > 0, "no answer to {line}");
            match field.trim_end().to_ascii_lowercase() {
                field if field.is_empty() => break,
                field if field == "connection: close" => is_kept = false,
                field => {
                    if let Some(text) = field.strip_prefix("content-length: ") {
                        length = text.parse()?;
                    }
                }
            }
        }
        reader.read_exact(&mut vec![0; length])?;
        kept = is_kept.then_some(reader);
    }
    Ok(())
}

/// Has promtool judge a scrape. It reads the older text format alone, which names counters and infos as their samples.
fn lint(scraped: &str) -> Result<()> {
    let kind = |name: &str, of: &str| scraped.contains(&format!("# TYPE {name} {of}\n"));
    let older = |line: &str| {
        let (what, rest) = line.strip_prefix("# ")?.split_once(' ')?;
        let (name, rest) = rest.split_once(' ')?;
        let suffix = if kind(name, "counter") {
            "_total"
        } else if kind(name, "info") {
            "_info"
        } else {
            ""
        };
        let rest = if rest == "info" { "gauge" } else { rest };
        (what == "HELP" || what == "TYPE").then(|| format!("# {what} {name}{suffix} {rest}\n"))
    };
    let lines = scraped.lines().filter_map(|line| if line.starts_with('#') { older(line) } else { Some(format!("{line}\n")) });
    let text: String = lines.collect();
    let judged = promtool(&["check", "metrics"], text.as_bytes())?;
    ensure!(judged.code == Some(0), "{}{}", judged.text(), judged.stderr);
    Ok(())
}

fn rules(prometheus: &Prometheus) -> Result<()> {
    let (alerts, test) = (charts("alerts.yaml"), charts("alerts_test.yaml"));
    for args in [["check", "rules", &*alerts.to_string_lossy()], ["test", "rules", &*test.to_string_lossy()]] {
        let judged = promtool(&args, b"")?;
        ensure!(judged.code == Some(0), "{args:?}: {}{}", judged.text(), judged.stderr);
    }
    let text = std::fs::read_to_string(&test)?;
    let loaded = prometheus.rules()?;
    ensure!(loaded.len() >= 10, "{loaded:?}");
    for (name, _) in &loaded {
        ensure!(text.contains(&format!("alertname=\"{name}\"")), "nothing shows that {name} fires");
    }
    // Rules are evaluated once a second, from the first on.
    e2e::wait_for("each rule to be evaluated", std::time::Duration::from_secs(10), || {
        let rules = prometheus.rules()?;
        let sick: Vec<_> = rules.iter().filter(|(_, health)| health == "err").collect();
        ensure!(sick.is_empty(), "{sick:?}");
        Ok(rules.iter().all(|(_, health)| health == "ok").then_some(()))
    })?;
    let firing = prometheus.query("ALERTS{alertstate=\"firing\"}")?;
    ensure!(firing.is_empty(), "{firing:?}");
    Ok(())
}

fn dashboard(prometheus: &Prometheus) -> Result<()> {
    let dashboard: serde_json::Value = serde_json::from_slice(&std::fs::read(charts("dashboard.json"))?)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut silent = BTreeSet::new();
    let mut n_queries = 0;
    for target in targets {
        let query = target["expr"].as_str().context("no query")?.replace("$cluster", ".*").replace("$__rate_interval", "30s");
        let found = prometheus.query(&query).with_context(|| query.clone())?;
        n_queries += 1;
        if found.is_empty() {
            silent.insert(query);
        }
    }
    eprintln!("{n_queries} queries, of which {} have nothing to show here: {silent:#?}", silent.len());
    ensure!(n_queries > 30, "{n_queries} queries");
    // Files, certificates, agents that are away, refusals by the guard: there are none in this scene.
    ensure!(silent.len() < n_queries / 2, "{} of {n_queries} show nothing", silent.len());
    Ok(())
}

fn charts(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/server/files").join(name)
}
