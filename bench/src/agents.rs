//! `postern-bench agents`: many agents in one process, each the library's own, configured as the program is by default.

use agent::AgentConfig;
use agent::config::{ClientIdentity, TargetTls};
use anyhow::{Result, anyhow};
use host::{Drain, DrainSwitch, Host, LogLevel};
use proxy::flags;
use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::task::{Agents, token};

/// Threads that ask the resolver: agents that dial at once would start hundreds, whose stacks would count as memory of agents.
const BLOCKING_THREADS_MAX: usize = 4;

pub(crate) fn run_verb(task: Agents) -> Result<()> {
    // A line for each request of a thousand agents would be what is measured.
    host::init_logging(LogLevel::Error);
    let configs = (task.first..task.first + task.count).map(|n| config(&task, n)).collect::<Result<Vec<_>>>()?;
    // One thread, as an agent has on a small machine; more would each keep memory of their own.
    let runtime =
        tokio::runtime::Builder::new_current_thread().max_blocking_threads(BLOCKING_THREADS_MAX).enable_all().build()?;
    let result = runtime.block_on(async {
        let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        // Held to the end: a switch that is dropped starts the drain.
        let (_switch, drain) = DrainSwitch::new();
        let mut running = start(configs, &drain);
        println!("{{}}");
        tokio::select! {
            biased;
            _ = terminated.recv() => Ok(()),
            _ = interrupted.recv() => Ok(()),
            ended = running.join_next() => match ended {
                Some(Ok(Err(error))) => Err(anyhow!(error).context("an agent did not start; the task names its files")),
                Some(ended) => Err(anyhow!("an agent ended by itself: {ended:?}")),
                None => Err(anyhow!("the task names no agents; its `count` is 0")),
            },
        }
    });
    // Sessions are cut, as by a kill: nobody measures a drain, and thousands would take their time.
    runtime.shutdown_background();
    result
}

/// One host for each, since a host counts its tasks: agents share nothing but the process.
fn start(configs: Vec<AgentConfig>, drain: &Drain) -> JoinSet<Result<(), agent::StartError>> {
    let mut running = JoinSet::new();
    for config in configs {
        running.spawn(agent::run(config, Host::real(), drain.clone()));
    }
    running
}

/// The agent of the n-th cluster.
fn config(task: &Agents, n: usize) -> Result<AgentConfig> {
    let wrong = |key: &'static str| move |error: String| anyhow!("the task's `{key}`: {error}");
    let server = task.server.parse().map_err(wrong("server"))?;
    let mut config = AgentConfig::new(server, SecretString::from(token(n)));
    config.server_ca_cert = Some(task.server_ca.clone());
    config.client_identity = Some(ClientIdentity { cert: task.client_cert.clone(), key: task.client_key.clone() });
    config.target = flags::host_port(&task.target).map_err(wrong("target"))?;
    config.target_tls = TargetTls::Verified { ca_cert: task.target_ca.clone() };
    config.sa_token_path.clone_from(&task.sa_token);
    config.health_addr = None;
    config.process.log_level = LogLevel::Error;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_agent_presents_the_token_of_its_cluster_and_listens_nowhere() {
        use agent::config::TunnelToken;
        use secrecy::ExposeSecret;
        let task = task("wss://localhost:1/connect");
        let config = config(&task, 7).expect("a configuration");
        let TunnelToken::Fixed(token) = &config.token else { panic!("a token for life") };
        assert_eq!((token.expose_secret(), config.health_addr), ("bench-token-7", None));
        assert_eq!(config.target.to_string(), "127.0.0.1:16443");
    }

    #[test]
    fn a_task_with_a_wrong_url_says_which_key_is_wrong() {
        let error = config(&task("https://localhost"), 0).expect_err("no WebSocket URL");
        assert!(error.to_string().starts_with("the task's `server`: "), "{error}");
    }

    fn task(server: &str) -> Agents {
        let file = || "f.pem".to_owned();
        Agents {
            server: server.to_owned(),
            server_ca: file(),
            client_cert: file(),
            client_key: file(),
            target: "127.0.0.1:16443".to_owned(),
            target_ca: file(),
            sa_token: file(),
            first: 0,
            count: 1,
        }
    }
}
