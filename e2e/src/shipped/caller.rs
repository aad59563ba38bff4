//! Argo CD's part: the caller of `sim` as a pod of the hub, with what it says of its requests.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{SERVER, Shipped};
use crate::pair::CLUSTER_ID;
use crate::wait_for;

/// Its pod in the hub.
const POD: &str = "argocd-caller";

/// The pod in the edge that its load asks for; it counts aloud, and its `/hostname` by HTTP on 8080 is its name.
pub const ASKED: &str = "web-0";

/// Pods start in seconds; a busy machine lists sixty kinds for a while.
const WARM_MAX: Duration = Duration::from_secs(100);

/// Twice the longest that client-go persists, ten times a second or two.
const ANSWERED_MAX: Duration = Duration::from_secs(60);

/// Requests that are open at once while all is well: they take a hundredth of a second and come ten times a second.
const OPEN_MAX: u64 = 2;

/// Requests a second: enough that a gap of a second is seen, few enough for two cores that run two clusters.
const LOAD: &str = "10";

/// What became of its requests so far.
#[derive(Debug, Clone)]
pub struct Counts(Value);

impl Counts {
    /// Requests of its load that have ended.
    pub fn n_ended(&self) -> u64 {
        self.number("requests").saturating_sub(self.number("open"))
    }

    /// Requests of its load that were begun.
    pub fn n_requests(&self) -> u64 {
        self.number("requests")
    }

    /// Requests of its load that failed for good.
    pub fn n_failures(&self) -> u64 {
        self.number("failures")
    }

    /// Watches that were answered.
    pub fn n_watches(&self) -> u64 {
        self.number("watches")
    }

    /// Why the latest failed.
    pub fn last_failure(&self) -> &str {
        self.0["last_failure"].as_str().unwrap_or_default()
    }

    fn number(&self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap_or_default()
    }

    fn is_warm(&self) -> bool {
        let kinds = self.number("kinds");
        kinds > 0 && self.number("lists") >= kinds && self.number("watches") >= kinds && self.n_ended() > 0
    }
}

impl Shipped {
    /// Starts the caller, and what it asks for; waits until it has listed and watches all kinds.
    pub fn start_caller(&self) -> Result<()> {
        let pod_image = std::env::var("E2E_POD_IMAGE").unwrap_or_else(|_| "busybox:1.37".to_owned());
        // It counts aloud, and tells its own name by HTTP.
        let script = "httpd -p 8080 -h /etc; i=0; while true; do echo \"line $i\"; i=$((i+1)); sleep 1; done";
        self.edge.apply(&pod(ASKED, &json!({"image": pod_image, "command": ["sh", "-c", script]})))?;
        let hub = format!("{SERVER}-internal.{}.svc:8080", self.hub.admin.namespace());
        let namespace = self.edge.admin.namespace();
        let args =
            json!(["caller", "--hub", hub, "--cluster", CLUSTER_ID, "--namespace", namespace, "--requests-per-second", LOAD,]);
        self.edge.admin.ok(&["wait", "--for=condition=Ready", &format!("pod/{ASKED}"), "--timeout=100s"])?;
        self.hub.apply(&pod(POD, &json!({"image": self.images().sim, "args": args})))?;
        let warm = || Ok(self.counts().ok().filter(Counts::is_warm));
        wait_for("the caller to watch all kinds", WARM_MAX, warm).map(drop)
    }

    /// Ends the caller and what it asks for.
    pub fn stop_caller(&self) -> Result<()> {
        self.hub.admin.ok(&["delete", "pod", POD, "--ignore-not-found"])?;
        self.edge.admin.ok(&["delete", "pod", ASKED, "--grace-period=1", "--ignore-not-found"]).map(drop)
    }

    /// What the caller said last.
    pub fn counts(&self) -> Result<Counts> {
        let said = self.hub.admin.ok(&["logs", POD, "--tail=1"])?;
        let counts: Value = serde_json::from_str(&said).with_context(|| format!("the caller said {said:?}"))?;
        ensure!(counts["requests"].is_u64(), "the caller said {said}");
        ensure!(counts["findings"] == 0, "the caller saw what cannot be: {}", counts["last_finding"]);
        Ok(Counts(counts))
    }

    /// Does `work` under the caller's load, and waits for the answers to all that was asked before its end: what became of
    /// them. The load is asked for at least `n_requests` meanwhile.
    pub fn under_load(&self, n_requests: u64, work: impl FnOnce() -> Result<()>) -> Result<Trouble> {
        let before = self.counts()?;
        work()?;
        let end = self.counts()?.n_requests().max(before.n_requests() + n_requests);
        // Those that were asked later end sooner than one that hangs: few may be open, or it would be taken for ended.
        let answered = || Ok(Some(self.counts()?).filter(|counts| counts.n_ended() >= end && counts.number("open") <= OPEN_MAX));
        let after = wait_for("answers to the load", ANSWERED_MAX, answered)?;
        let trouble = Trouble {
            n_requests: after.n_requests() - before.n_requests(),
            n_failures: after.n_failures() - before.n_failures(),
            last: after.last_failure().to_owned(),
        };
        eprintln!(
            "load: {} requests, {} failed, the slowest so far took {} ms",
            trouble.n_requests, trouble.n_failures, after.0["slowest_ms"]
        );
        Ok(trouble)
    }
}

/// What became of a load.
pub struct Trouble {
    n_requests: u64,
    n_failures: u64,
    last: String,
}

impl Trouble {
    /// Fails when more than `n_max` requests failed.
    pub fn expect_at_most(&self, n_max: u64) -> Result<()> {
        ensure!(self.n_failures <= n_max, "{} of {} requests failed: {}", self.n_failures, self.n_requests, self.last);
        Ok(())
    }
}

/// A pod of one container that every policy of pod security accepts, and that ends at once when it is told to.
fn pod(name: &str, container: &Value) -> Value {
    let mut container = container.clone();
    container["name"] = "it".into();
    container["imagePullPolicy"] = "IfNotPresent".into();
    container["securityContext"] = json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"},
    });
    let spec = json!({"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec})
}
