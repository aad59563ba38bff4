//! `postern-agent doctor`: finds out what stands in the agent's way, step by step, each with a verdict and a fix.
//!
//! It reads the agent's own configuration, dials as the agent does and disturbs no agent that runs: what it tries the tunnel
//! with are trials, which the hub keeps apart from sessions. It prints no credential.

mod cluster;
mod command;
mod idle;
mod path;
mod report;
mod rights;
mod session;
mod tls;

use std::future::Future;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use host::Host;
use proxy::flags::{ConfigError, Mistakes};
use proxy::program::StartError;
use tunnel::Budget;

use crate::config::AgentConfig;
use crate::connect::{Dialer, Token, Way};
use crate::upstream::Upstream;
use crate::{server_tls, target_tls};
pub(crate) use command::chapter;
pub use command::{is_asked_for, main, parse};
pub use report::Summary;
use report::{Report, Step, Verdict};

/// How long any step may take that does not wait on purpose: a dial with all its parts, twice, or a megabyte each way over a
/// slow satellite link.
const STEP_MAX: Duration = Duration::from_secs(120);

/// What to examine.
#[derive(Debug)]
pub struct Plan {
    /// The agent's configuration with what is odd about it, or its mistakes.
    pub config: Result<(AgentConfig, Vec<String>), Vec<ConfigError>>,
    /// Also try how long the way keeps a connection on which nothing is said, up to this.
    pub idle_up_to: Option<Duration>,
}

/// Examines all and tells it to `out` as it goes.
pub async fn examine(plan: Plan, host: &Host, out: &mut (dyn Write + Send)) -> Summary {
    let mut report = Report::new(out);
    match Patient::new(plan.config, host, &mut report) {
        Some(patient) => patient.examine(plan.idle_up_to, &mut report).await,
        None => {
            for step in [Step::Dns, Step::Tcp, Step::Tls, Step::Token, Step::WebSocket, Step::ApiServer] {
                report.tell(step, &Verdict::needs(Step::Configuration));
            }
        }
    }
    let summary = report.summary;
    report.line(&format!("\n{summary}"));
    summary
}

/// Who is examined: an agent with this configuration, here.
struct Patient {
    config: Arc<AgentConfig>,
    host: Host,
    dialer: Dialer,
    upstream: Upstream,
}

impl Patient {
    /// Reads what an agent reads at its start, and tells of it.
    fn new(config: Result<(AgentConfig, Vec<String>), Vec<ConfigError>>, host: &Host, report: &mut Report<'_>) -> Option<Self> {
        const FIX: &str = "Correct it as it says; postern-agent --help lists all flags.";
        let (config, warnings) = match config {
            Ok(config) => config,
            Err(mistakes) => {
                report.tell(Step::Configuration, &Verdict::failed(Mistakes(&mistakes).to_string(), FIX));
                return None;
            }
        };
        let (server, target) = (config.server.to_string(), config.target.to_string());
        match Self::of(config, host) {
            Ok(patient) => {
                let seen = format!("the hub is {server}, the API server {target}");
                let verdict = match warnings.is_empty() {
                    true => Verdict::Fine(seen),
                    false => Verdict::warning(seen, warnings.join("\n")),
                };
                report.tell(Step::Configuration, &verdict);
                Some(patient)
            }
            Err(error) => {
                let causes = std::iter::successors(std::error::Error::source(&error), |&cause| cause.source());
                let seen = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
                report.tell(Step::Configuration, &Verdict::failed(seen, FIX));
                None
            }
        }
    }

    fn of(config: AgentConfig, host: &Host) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let target = target_tls(&config, host)?;
        let upstream = Upstream::new(host.clone(), config.target.clone(), target, config.sa_token_path.clone());
        let token = Token::new(host, &config.token)
            .map_err(|problem| StartError::Config(vec![ConfigError::new("--token-file", problem)]))?;
        let hub = (Way::new(host, &config.way)?, server_tls(&config, host)?, token);
        let dialer = Dialer::new(host.clone(), config.clone(), hub, Arc::new(Budget::new(config.process_budget)));
        Ok(Self { config, host: host.clone(), dialer, upstream })
    }

    async fn examine(self, idle_up_to: Option<Duration>, report: &mut Report<'_>) {
        let is_reached = self.path(report).await;
        let is_believed = match is_reached {
            true => {
                let tls = bounded(self.tls()).await;
                report.tell(Step::Tls, &tls);
                report.tell(Step::Clock, &bounded(self.clock()).await);
                !matches!(tls, Verdict::Failed { .. })
            }
            false => {
                report.tell(Step::Tls, &Verdict::needs(Step::Tcp));
                report.tell(Step::Clock, &Verdict::needs(Step::Tcp));
                false
            }
        };
        let can_idle = match is_believed {
            true => self.session(report).await,
            false => {
                for step in [Step::Token, Step::WebSocket, Step::Speed] {
                    report.tell(step, &Verdict::needs(if is_reached { Step::Tls } else { Step::Tcp }));
                }
                false
            }
        };
        self.cluster(report).await;
        if let Some(up_to) = idle_up_to {
            match can_idle {
                true => self.idle(up_to, report).await,
                false => report.tell(Step::Idle, &Verdict::needs(Step::WebSocket)),
            }
        }
    }
}

/// A step, within its time.
async fn bounded(step: impl Future<Output = Verdict>) -> Verdict {
    tokio::time::timeout(STEP_MAX, step).await.unwrap_or_else(|_| {
        let seen = format!("did not end within {} s", STEP_MAX.as_secs());
        Verdict::failed(seen, "The way is so slow or lossy that nothing can be said, so have the network itself looked at first.")
    })
}
