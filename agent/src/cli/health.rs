//! `postern-agent health`: its command line.

use proxy::flags::{self, ConfigError, Env, Flag, Page, Section, Values};
use proxy::health::{Question, READY};
use proxy::program::Command;

use super::HEALTH_ADDR;
use crate::config::HEALTH_LISTENER;

/// Its flags.
pub(super) const FLAGS: &[Section] = &[
    Section { title: "Whom to ask", flags: &[READY, HEALTH_ADDR] },
    Section { title: "General", flags: &[Flag::switch("help", "Print this text and exit")] },
];

/// Its help.
pub(super) const PAGE: Page = Page {
    name: "postern-agent health",
    about: "Asks the agent on this machine whether it lives (/healthz) or is connected (/readyz): a probe where there is no shell.",
    usage: "[--ready] [FLAGS]",
    after: "Exit codes: 0 it does, 1 it does not, 64 configuration.
",
};

/// Reads its command line (without its word).
///
/// # Errors
/// Every mistake found, each with its key.
pub fn parse(args: impl Iterator<Item = String>, env: Env<'_>) -> Result<Command<Question>, Vec<ConfigError>> {
    let mut values = Values::parse(FLAGS, args, env);
    if values.get("help", flags::switch) == Some(true) {
        return Ok(Command::Print(PAGE.help(FLAGS)));
    }
    let path = if values.get("ready", flags::switch) == Some(true) { "/readyz" } else { "/healthz" };
    let mut addr = HEALTH_LISTENER;
    values.read("health-addr", flags::address, &mut addr);
    values.finish(Command::Run { config: Box::new(Question::to_listener(addr, path)), warnings: Vec::new() })
}
