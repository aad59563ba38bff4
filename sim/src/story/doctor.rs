//! The agent's doctor, as an operator starts it beside an agent that may run.

use std::time::Duration;

use agent::doctor::{self, Plan, Summary};

use super::Story;

/// What a doctor said.
pub struct Examined {
    /// All of it.
    pub text: String,
    /// How many steps ended how.
    pub summary: Summary,
}

impl Examined {
    /// The verdict on a step: its word, and its lines.
    pub fn step(&self, name: &str) -> (&str, String) {
        let mut lines = self.text.lines().skip_while(|line| line.get(6..).is_none_or(|rest| !rest.starts_with(name)));
        let first = lines.next().unwrap_or_default();
        let word = first.split_whitespace().next().unwrap_or_default();
        let rest: Vec<_> = std::iter::once(first).chain(lines.take_while(|line| line.starts_with(' '))).map(str::trim).collect();
        (word, rest.join("\n"))
    }

    /// The fix of a step, which is one sentence.
    pub fn fix(&self, name: &str) -> String {
        let (_, lines) = self.step(name);
        lines.lines().find_map(|line| line.strip_prefix("> ")).unwrap_or_default().to_owned()
    }
}

impl Story {
    /// Runs the doctor on the machine of a cluster's agent, with that agent's configuration.
    ///
    /// # Errors
    /// Never but in time: bound it with [`Within::within`](super::Within::within).
    pub async fn doctor(&self, cluster: &str, idle_up_to: Option<Duration>) -> anyhow::Result<Examined> {
        self.note(&format!("doctor {cluster}"));
        let host = self.stage().caller(&format!("{cluster}/agent"));
        let config = Ok((self.stage().cluster(cluster).config.clone(), Vec::new()));
        let mut out = Vec::new();
        let summary = doctor::examine(Plan { config, idle_up_to }, &host, &mut out).await;
        let text = String::from_utf8_lossy(&out).into_owned();
        // In the transcript it is looked through for credentials, as logs are.
        text.lines().for_each(|line| self.note(line));
        Ok(Examined { text, summary })
    }
}
