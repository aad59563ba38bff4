//! The cluster's own people have the last word: by a file, and by orders to the agent's program.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Answer, Output, Pair, Scene, Suite, get, wait_for};

/// For what takes a program a moment: to notice, to reconnect.
const SOON: Duration = Duration::from_secs(20);

/// Runs all of it.
pub(crate) fn run(suite: &mut Suite, scene: &mut Scene) {
    suite.step("a policy counts when its file changes, and one with mistakes does not", || policy(scene.pair()?));
    suite.step("a freeze by order outlives the agent", || freeze(scene.pair()?));
    suite.step("one directory takes the orders of one agent", || second_agent(scene.pair()?));
}

fn policy(pair: &mut Pair) -> Result<()> {
    let internal = pair.internal();
    let pods = || get(internal, &Pair::tunnel_path("/api/v1/pods"));
    wait_for("an answer", SOON, || Ok((pods()?.status == 200).then_some(())))?;
    pair.edge.replace(&[("guard.yaml", b"deny:\n- resources: [pods]\n")])?;
    let refused = wait_for("a refusal", SOON, || Ok(Some(pods()?).filter(|answer| answer.status == 403)))?;
    ensure!(refused.text().contains("deny[0]"), "{}", refused.text());
    pair.edge.replace(&[("guard.yaml", b"frozne: true\n")])?;
    ensure!(pods()?.status == 403 && ask(pair, "/version")?.status == 200, "a policy with mistakes counts");
    pair.edge.replace(&[("guard.yaml", b"{}")])?;
    wait_for("an answer again", SOON, || Ok((pods()?.status == 200).then_some(())))
}

fn freeze(pair: &mut Pair) -> Result<()> {
    says(&pair.order("agent-1", "status")?, "not frozen")?;
    says(&pair.order("agent-1", "freeze")?, "frozen by order")?;
    is_frozen(&ask(pair, "/version")?)?;
    // Dropping a process kills it.
    drop(pair.take_agent("agent-1")?);
    let nobody = pair.order("agent-1", "unfreeze")?;
    ensure!(nobody.code == Some(69), "an order that nobody takes ends with {:?}", nobody.code);
    pair.start_agent("agent-1")?;
    is_frozen(&ask(pair, "/version")?)?;
    says(&pair.order("agent-1", "unfreeze")?, "not frozen")?;
    let answer = ask(pair, "/version")?;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    Ok(())
}

fn second_agent(pair: &mut Pair) -> Result<()> {
    let second = pair.start_agent("agent-1").map(drop);
    let why = format!("{:#}", second.err().context("two agents share a directory")?);
    ensure!(why.contains("another process listens there"), "{why}");
    says(&pair.order("agent-1", "status")?, "not frozen")
}

fn ask(pair: &Pair, path: &str) -> Result<Answer> {
    get(pair.internal(), &Pair::tunnel_path(path))
}

fn is_frozen(answer: &Answer) -> Result<()> {
    ensure!(answer.status == 503 && answer.text().contains("\"reason\":\"Frozen\""), "{}: {}", answer.status, answer.text());
    Ok(())
}

fn says(output: &Output, what: &str) -> Result<()> {
    ensure!(output.code == Some(0), "{:?}: {}", output.code, output.stderr);
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure!(said == what, "says {said:?}, not {what:?}");
    Ok(())
}
