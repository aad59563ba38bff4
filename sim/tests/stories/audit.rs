//! What was done can be proved at either end, and by either end of the other; what cannot be recorded is not done.

use anyhow::Context;
use http::{Method, StatusCode};
use proxy::audit::{AuditConfig, Unwritable};
use serde_json::Value;
use sim::promise::Promise::Nothing;
use sim::story::{Story, Within, millis, secs};
use sim::world::World;
use tempfile::TempDir;

const PODS: &str = "/api/v1/namespaces/default/pods";
const LOG: &str = "/var/log/postern/audit.log";
const KEY: &str = "/etc/postern/audit.key";
const ENDS: [&str; 2] = ["hub/server", "edge-1/agent"];

/// Why peers of version 1 promise nothing.
const NO_LOG: &str = "it keeps no audit log";

/// What a record waits for others, and a moment.
const WRITTEN: std::time::Duration = millis(20);

/// Until both ends have checkpoints of what was done, and then of each other's.
const PROVED: std::time::Duration = secs(130);

#[test]
fn both_ends_have_one_record_of_each_request_under_one_id() {
    world(|_| {}).tell(async |s: Story| {
        let kubectl = s.kubectl();
        kubectl.get("edge-1", &format!("{PODS}?limit=7")).await?.expect(StatusCode::OK)?;
        kubectl.get("edge-1", "/version?secret=hush").await?.expect(StatusCode::OK)?;
        kubectl.post("edge-1", PODS, pod("hushed")).await?.expect(StatusCode::CREATED)?;
        kubectl.get("nowhere", "/version").await?;
        let impersonating = kubectl.get("edge-1", PODS).header("impersonate-user", "root");
        impersonating.await?.expect(StatusCode::FORBIDDEN)?;
        s.pass(WRITTEN).await;

        let [hub, agent] = ENDS.map(|end| requests(&s, end));
        let told: Vec<_> = hub.iter().map(said).collect();
        anyhow::ensure!(
            told == [
                "request list pods 200 whole",
                "request get /version 200 whole",
                "request create pods 201 whole",
                "request get /tunnel/nowhere/version 502 UnknownCluster",
                "request list pods 403 Impersonation",
            ],
            "{told:#?}"
        );
        anyhow::ensure!(agent.iter().map(said).collect::<Vec<_>>() == told[..3], "{agent:#?}");
        for (hub, agent) in hub.iter().zip(&agent) {
            anyhow::ensure!(hub["request_id"] == agent["request_id"] && hub["bytes"] == agent["bytes"], "{hub} {agent}");
        }
        for end in ENDS {
            let text = files(&s, end).concat();
            anyhow::ensure!(!text.contains("hush\"") && !text.contains("limit=7"), "a query or a body is in the log of {end}");
        }
        anyhow::ensure!(hub[0]["caller"] == "anonymous" && hub[0]["cluster"] == "edge-1", "{}", hub[0]);
        Ok(())
    });
}

#[test]
fn watches_and_execs_have_records_of_their_beginning_and_their_end() {
    world(|_| {}).tell(async |s: Story| {
        let mut watch = s.argocd().watch("edge-1", PODS, "").within(secs(1)).await?;
        watch.line().within(secs(1)).await?;
        let mut exec = s.kubectl().exec("edge-1", "web-0", &["cat"]).within(secs(1)).await?;
        exec.write(b"hello").await?;
        exec.read().within(secs(1)).await?;
        s.pass(secs(5)).await;
        for end in ENDS {
            let told: Vec<_> = requests(&s, end).iter().map(said).collect();
            anyhow::ensure!(told == ["open watch pods 200 ", "open get pods/exec 101 "], "{end}: {told:#?}");
        }
        drop((watch, exec));
        s.pass(secs(1)).await;
        for end in ENDS {
            let records = requests(&s, end);
            let ids = |kind: &str| {
                let mut ids: Vec<_> = records
                    .iter()
                    .filter(|record| record["kind"] == kind)
                    .map(|record| record["request_id"].to_string())
                    .collect();
                ids.sort_unstable();
                ids
            };
            anyhow::ensure!(ids("open").len() == 2 && ids("open") == ids("close"), "{end}: {records:#?}");
            let exec = records.iter().find(|record| record["kind"] == "close" && record["status"] == 101).context("no exec")?;
            let (there, back) = (&exec["bytes_from_caller"], &exec["bytes"]);
            anyhow::ensure!(there.as_u64() >= Some(5) && back.as_u64() >= Some(5), "{exec}");
            anyhow::ensure!(exec["duration_ms"].as_u64() >= Some(5000), "{exec}");
        }
        Ok(())
    });
}

#[test]
fn each_end_proves_the_other_and_sees_what_was_cut_off() {
    world(|_| {}).tell(async |s: Story| {
        for _ in 0..5 {
            s.kubectl().get("edge-1", PODS).await?.expect(StatusCode::OK)?;
        }
        s.pass(PROVED).await;
        let desk = Desk::with(&s)?;
        for [end, other] in [ENDS, [ENDS[1], ENDS[0]]] {
            let told = desk.verified(end, &["--key", &desk.key(end), "--against", &desk.log(other)])?;
            anyhow::ensure!(told.contains("is known from elsewhere"), "{told}");
            // What was written last is gone, as if it had never been.
            let whole = String::from_utf8(host::Host::real().read_file(&desk.log(end))?)?;
            let lines: Vec<_> = whole.lines().collect();
            std::fs::write(desk.log(end), lines[..4].join("\n") + "\n")?;
            desk.verified(end, &["--key", &desk.key(end)])?;
            let (told, n_findings) = desk.told(end, &["--key", &desk.key(end), "--against", &desk.log(other)])?;
            anyhow::ensure!(n_findings == 1 && told.contains(": truncated: chain "), "{told}");
            // A request was another, as its record has it; and a checkpoint was a minute earlier.
            let another = whole.replacen("\"status\":200", "\"status\":404", 1);
            std::fs::write(desk.log(end), another)?;
            let (told, n_findings) = desk.told(end, &["--key", &desk.key(end)])?;
            anyhow::ensure!(n_findings == 1 && told.contains(": edited: record "), "{told}");
            let earlier = whole.lines().find(|line| line.contains("\"kind\":\"checkpoint\"")).context("no checkpoint")?;
            std::fs::write(desk.log(end), whole.replacen(earlier, &earlier.replacen("T00:01:", "T00:00:", 1), 1))?;
            let (told, _) = desk.told(end, &["--key", &desk.key(end)])?;
            anyhow::ensure!(told.contains(": forged: the signature of checkpoint "), "{told}");
            std::fs::write(desk.log(end), whole)?;
        }
        Ok(())
    });
}

#[test]
fn a_loss_of_power_takes_back_nothing_that_the_other_end_was_told() {
    world(|_| {}).tell(async |s: Story| {
        for [end, other] in [ENDS, [ENDS[1], ENDS[0]]] {
            s.kubectl().get("edge-1", PODS).await?.expect(StatusCode::OK)?;
            s.pass(PROVED).await;
            // These are told by nobody yet.
            for _ in 0..5 {
                s.kubectl().get("edge-1", PODS).await?.expect(StatusCode::OK)?;
            }
            s.pass(WRITTEN).await;
            s.vanish(end);
            s.pass(secs(60)).await;
            s.restart(end);
            s.until_reachable("edge-1").within(secs(60)).await?;
            s.pass(PROVED).await;
            let desk = Desk::with(&s)?;
            desk.verified(end, &["--key", &desk.key(end), "--against", &desk.log(other)])?;
        }
        Ok(())
    });
}

#[test]
fn a_rich_day_is_verified_whatever_befell_either_end() {
    let small = |audit: &mut AuditConfig| {
        audit.file_bytes_max = 64 << 10;
        audit.n_files = 0;
    };
    world(small).tell(async |s: Story| {
        for misfortune in 0..6 {
            let load = s.argocd().steady("edge-1", sim::story::rps(5));
            let watch = s.argocd().watch("edge-1", PODS, "").within(secs(20)).await?;
            s.pass(secs(20)).await;
            match misfortune {
                0 => s.crash("edge-1/agent"),
                1 => s.crash("hub/server"),
                2 => s.vanish("edge-1/agent"),
                3 => s.vanish("hub/server"),
                4 => s.drain("hub/server"),
                _ => s.drain("edge-1/agent"),
            }
            s.pass(secs(40)).await;
            load.stop().await;
            drop(watch);
            s.restart(if [1, 3, 4].contains(&misfortune) { "hub/server" } else { "edge-1/agent" });
            s.until_reachable("edge-1").within(secs(60)).await?;
        }
        s.pass(PROVED).await;
        let desk = Desk::with(&s)?;
        for [end, other] in [ENDS, [ENDS[1], ENDS[0]]] {
            let told = desk.verified(end, &["--key", &desk.key(end), "--against", &desk.log(other)])?;
            anyhow::ensure!(told.contains("chains 3, "), "{told}");
        }
        anyhow::ensure!(s.machine("hub/server").disk().list("/var/log/postern").len() > 4, "nothing was rotated");
        Ok(())
    });
}

#[test]
fn a_record_that_was_torn_is_no_alarm_and_named_by_the_next_chain() {
    world(|_| {}).tell(async |s: Story| {
        s.kubectl().get("edge-1", PODS).await?.expect(StatusCode::OK)?;
        s.pass(WRITTEN).await;
        s.crash("edge-1/agent");
        let whole = s.machine("edge-1/agent").disk().read(LOG).context("no log")?;
        s.machine("edge-1/agent").disk().write(LOG, &[&whole[..], b"{\"seq\":3,\"prev"].concat());
        s.restart("edge-1/agent");
        s.until_reachable("edge-1").within(secs(10)).await?;
        s.pass(WRITTEN).await;
        let first: Value =
            serde_json::from_str(files(&s, "edge-1/agent").last().and_then(|text| text.lines().next()).context("empty")?)?;
        anyhow::ensure!(first["recovered"]["torn_bytes"] == 14, "{first}");
        let desk = Desk::with(&s)?;
        let told = desk.verified("edge-1/agent", &["--key", &desk.key("edge-1/agent")])?;
        anyhow::ensure!(told.contains("begins behind a crash"), "{told}");
        Ok(())
    });
}

#[test]
fn while_nothing_can_be_recorded_reading_goes_on_and_nothing_else_and_no_record_is_lost() {
    world(|_| {}).tell(async |s: Story| {
        for (end, word) in [(ENDS[0], "Unaudited"), (ENDS[1], "Unaudited")] {
            s.expect_error("the audit log cannot be written");
            let kubectl = s.kubectl();
            s.until_reachable("edge-1").within(secs(5)).await?;
            s.pass(WRITTEN).await;
            let n_before = requests(&s, end).len();
            let full = s.fill_disk(end);
            kubectl.get("edge-1", PODS).await?.expect(StatusCode::OK)?;
            s.pass(WRITTEN).await;
            let n_pods = s.api("edge-1").n_requests_open();
            let refused = kubectl.post("edge-1", PODS, pod("late")).await?;
            let refused = refused.expect(StatusCode::SERVICE_UNAVAILABLE)?;
            anyhow::ensure!(refused.text().contains(word) && refused.headers.contains_key("retry-after"), "{}", refused.text());
            anyhow::ensure!(s.api("edge-1").n_requests_open() == n_pods);
            let exec = kubectl.exec("edge-1", "web-0", &["cat"]).within(secs(1)).await;
            anyhow::ensure!(exec.is_err(), "a way into a pod was opened");
            kubectl.get("edge-1", PODS).await?.expect(StatusCode::OK)?;
            let watch = s.argocd().watch("edge-1", PODS, "").within(secs(1)).await?;
            s.pass(secs(10)).await;
            anyhow::ensure!(requests(&s, end).len() == n_before, "there is no room");
            drop(full);
            s.pass(secs(2)).await;
            let told: Vec<_> = requests(&s, end)[n_before..].iter().map(said).collect();
            anyhow::ensure!(told.len() == 5, "{told:#?}");
            anyhow::ensure!(told[1].starts_with("request create pods 503 "), "{told:#?}");
            let name = if end == ENDS[0] { "later" } else { "latest" };
            let created = kubectl.post("edge-1", PODS, pod(name)).await?;
            created.expect(StatusCode::CREATED)?;
            drop(watch);
        }
        s.pass(PROVED).await;
        let desk = Desk::with(&s)?;
        for end in ENDS {
            let told = desk.verified(end, &["--key", &desk.key(end)])?;
            anyhow::ensure!(!told.contains("were lost"), "{told}");
        }
        Ok(())
    });
}

#[test]
fn a_log_that_is_moved_away_goes_on_in_a_new_file_and_both_are_verified() {
    world(|_| {}).tell(async |s: Story| {
        for end in ENDS {
            s.kubectl().get("edge-1", PODS).await?.expect(StatusCode::OK)?;
            s.pass(WRITTEN).await;
            // The name that a rotation would give it: so `verify` finds it.
            s.machine(end).disk().rename(LOG, &format!("{LOG}.00000000000000000001"))?;
            s.kubectl().post("edge-1", PODS, pod(&format!("of-{}", end.len()))).await?.expect(StatusCode::CREATED)?;
            s.pass(WRITTEN).await;
            let begins = files(&s, end).last().is_some_and(|text| text.contains("\"kind\":\"file\""));
            anyhow::ensure!(begins, "{:#?}", files(&s, end));
        }
        s.pass(PROVED).await;
        let desk = Desk::with(&s)?;
        for [end, other] in [ENDS, [ENDS[1], ENDS[0]]] {
            desk.verified(end, &["--key", &desk.key(end), "--against", &desk.log(other)])?;
        }
        Ok(())
    });
}

#[test]
fn who_is_set_to_go_on_goes_on_and_says_so() {
    world(|audit| audit.unwritable = Unwritable::GoOn).tell(async |s: Story| {
        s.expect_error("the audit log cannot be written");
        let full = s.fill_disk("hub/server");
        s.kubectl().get("edge-1", PODS).await?.expect(StatusCode::OK)?;
        s.pass(WRITTEN).await;
        s.kubectl().post("edge-1", PODS, pod("late")).await?.expect(StatusCode::CREATED)?;
        let metrics = s.kubectl().request(Method::GET, "/metrics").await?.text();
        anyhow::ensure!(metrics.contains("\naudit_failing 1\n") && metrics.contains("\naudit_lost_total 0\n"), "{metrics}");
        drop(full);
        s.pass(secs(2)).await;
        let metrics = s.kubectl().request(Method::GET, "/metrics").await?.text();
        anyhow::ensure!(metrics.contains("\naudit_failing 0\n"), "{metrics}");
        anyhow::ensure!(requests(&s, "hub/server").len() == 2);
        Ok(())
    });
}

#[test]
fn a_key_is_rotated_without_a_restart_and_both_are_needed_to_verify() {
    world(|_| {}).tell(async |s: Story| {
        let desk = Desk::with(&s)?;
        let old = desk.key("hub/server");
        s.kubectl().get("edge-1", PODS).await?.expect(StatusCode::OK)?;
        s.pass(PROVED).await;
        s.write_file("hub/server", KEY, "another key of some length");
        s.pass(secs(2)).await;
        s.kubectl().get("edge-1", PODS).await?.expect(StatusCode::OK)?;
        s.pass(PROVED).await;
        let later = Desk::with(&s)?;
        let new = later.key("hub/server");
        later.verified("hub/server", &["--key", &old, "--key", &new])?;
        for one in [&old, &new] {
            let (told, n_findings) = later.told("hub/server", &["--key", one])?;
            anyhow::ensure!(n_findings > 0 && told.contains(": unknown key: "), "{told}");
        }
        Ok(())
    });
}

fn world(change: impl Fn(&mut AuditConfig)) -> World {
    let audit = || {
        let mut audit = AuditConfig { key: Some(KEY.to_owned()), ..AuditConfig::new(LOG) };
        change(&mut audit);
        Some(audit)
    };
    let world = World::new()
        .hub(|hub| hub.with(|config| config.audit = audit()))
        .cluster("edge-1", |c| c.with(|config| config.audit = audit()))
        .version_1(Nothing(NO_LOG), Nothing(NO_LOG));
    ENDS.iter().fold(world, |world, end| world.file(end, KEY, &format!("a key of some length for {end}")))
}

fn pod(name: &str) -> String {
    format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{"containers":[{{"name":"main","image":"none"}}]}}}}"#)
}

/// All files of a log, oldest first.
fn files(s: &Story, end: &str) -> Vec<String> {
    let disk = s.machine(end).disk();
    let mut names = disk.list("/var/log/postern");
    // The one without a number is the last.
    names.rotate_left(1);
    names
        .iter()
        .filter_map(|name| disk.read(&format!("/var/log/postern/{name}")))
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .collect()
}

/// The records of requests.
fn requests(s: &Story, end: &str) -> Vec<Value> {
    let text = files(s, end).concat();
    let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    records.filter(|record| ["request", "open", "close"].map(Value::from).contains(&record["kind"])).collect()
}

/// A record in a few words.
fn said(record: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let resource = &record["resource"];
    let what = match (resource["subresource"].as_str(), resource["resource"].as_str()) {
        (Some(sub), Some(resource)) => format!("{resource}/{sub}"),
        (None, Some(resource)) => resource.to_owned(),
        (_, None) => text(&record["path"]),
    };
    let end = record["refused"]["label"].as_str().map_or_else(|| text(&record["end"]), str::to_owned);
    format!("{} {} {what} {} {end}", text(&record["kind"]), text(&record["verb"]), record["status"])
}

/// The files of both ends as an auditor has them.
struct Desk(TempDir);

impl Desk {
    fn with(s: &Story) -> anyhow::Result<Self> {
        let desk = Self(tempfile::tempdir()?);
        for end in ENDS {
            let (disk, folder) = (s.machine(end).disk(), desk.folder(end));
            std::fs::create_dir_all(&folder)?;
            for name in disk.list("/var/log/postern") {
                std::fs::write(format!("{folder}/{name}"), disk.read(&format!("/var/log/postern/{name}")).unwrap_or_default())?;
            }
            std::fs::write(desk.key(end), disk.read(KEY).context("no key")?)?;
        }
        Ok(desk)
    }

    fn folder(&self, end: &str) -> String {
        format!("{}/{}", self.0.path().display(), end.replace('/', "-"))
    }

    fn log(&self, end: &str) -> String {
        format!("{}/audit.log", self.folder(end))
    }

    fn key(&self, end: &str) -> String {
        format!("{}/key", self.folder(end))
    }

    /// What `audit verify` says, and how many findings it has.
    fn told(&self, end: &str, flags: &[&str]) -> anyhow::Result<(String, usize)> {
        let log = self.log(end);
        let args = ["verify"].iter().chain(flags).chain([&log.as_str()]).map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
        Ok(proxy::audit::told("postern-test", args, &host::Host::real())?)
    }

    fn verified(&self, end: &str, flags: &[&str]) -> anyhow::Result<String> {
        let (told, n_findings) = self.told(end, flags)?;
        anyhow::ensure!(n_findings == 0, "{end}: {told}");
        Ok(told)
    }
}
