//! What N clusters and M watches need, as a formula and a table for README.md, with constants from B5 and B6.

use std::fmt::Write;

use anyhow::{Context, Result};

use super::report::{POSTERN, Report};
use super::scenarios::{b5, b6};

/// Between these README.md has the section.
const BEGIN: &str = "<!-- capacity -->";
const END: &str = "<!-- /capacity -->";

/// The rows of the table: clusters, each with as many watches as B5 has.
const CLUSTERS: [usize; 3] = [10, 100, 500];

const KIBIBYTES: f64 = 1024.0;

/// What is needed for one more of something.
#[derive(Debug, Clone, Copy)]
struct Constants {
    server_base_mib: f64,
    cluster_kib: f64,
    watch_kib: f64,
    watch_http1_kib: f64,
    agent_base_mib: f64,
    agent_watch_kib: f64,
    /// Cores.
    server_idle: f64,
    agent_idle: f64,
    /// Core seconds.
    server_event: f64,
    agent_event: f64,
}

impl Constants {
    fn of(report: &Report) -> Result<Self> {
        let find = |scenario: &str, measure: &str| {
            let row = report.rows.iter().find(|row| row.scenario == scenario && row.measure == measure);
            let spread = row.and_then(|row| row.spread(POSTERN)).map(|spread| spread.median);
            spread.with_context(|| format!("capacity needs {scenario}'s {measure:?}; let B5 and B6 play in the same run"))
        };
        let [b5, b6] = ["B5", "B6"].map(|scenario| move |measure: &str| find(scenario, measure));
        let clusters = b5::CLUSTERS as f64;
        let agent_base_mib = b5(b5::AGENT_ALONE)?;
        Ok(Self {
            server_base_mib: b5(b5::SERVER_ALONE)?,
            cluster_kib: b6(&b6::per_tunnel("server"))?,
            watch_kib: b6(&b6::per_watch("hub", true))?,
            watch_http1_kib: b6(&b6::per_watch("hub", false))?,
            agent_base_mib,
            agent_watch_kib: (b5(b5::AGENT_WITH_WATCHES)? - agent_base_mib) * KIBIBYTES / b5::WATCHES as f64,
            server_idle: b5(&b5::idle_cpu("hub"))? / 100.0 / clusters,
            agent_idle: b5(&b5::idle_cpu("clusters"))? / 100.0 / clusters,
            server_event: b5(&b5::event_cpu("hub"))? / 1e6,
            agent_event: b5(&b5::event_cpu("clusters"))? / 1e6,
        })
    }

    fn server_mib(&self, clusters: usize, watches: usize) -> f64 {
        self.server_base_mib + (clusters as f64 * self.cluster_kib + watches as f64 * self.watch_kib) / KIBIBYTES
    }

    fn agent_mib(&self, watches: usize) -> f64 {
        self.agent_base_mib + watches as f64 * self.agent_watch_kib / KIBIBYTES
    }
}

/// The section, from a run in which B5 and B6 have played.
pub(crate) fn section(report: &Report) -> Result<String> {
    let constants = Constants::of(report)?;
    let Constants { server_base_mib, cluster_kib, watch_kib, watch_http1_kib, agent_base_mib, agent_watch_kib, .. } = constants;
    let Constants { server_idle, agent_idle, server_event, agent_event, .. } = constants;
    let ms = |core_seconds: f64| core_seconds * 1e3;
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "```\n\
         server memory = {server_base_mib:.0} MiB + clusters × {cluster_kib:.0} KiB + watches × {watch_kib:.1} KiB\n\
         server CPU    = clusters × {:.2} ms/s + events × {:.2} ms\n\
         agent memory  = {agent_base_mib:.0} MiB + watches × {agent_watch_kib:.1} KiB\n\
         agent CPU     = {:.2} ms/s + events × {:.2} ms\n\
         ```\n",
        ms(server_idle),
        ms(server_event),
        ms(agent_idle),
        ms(agent_event),
    );
    let (watches, rate) = (b5::WATCHES, b5::RATE);
    let _ = writeln!(
        out,
        "| clusters × watches | server: memory | CPU, idle | CPU, {rate} events/s per cluster | each agent: memory | CPU, idle | CPU, {rate} events/s |\n\
         |---|---|---|---|---|---|---|"
    );
    for clusters in CLUSTERS {
        let n = clusters as f64;
        let server = [n * server_idle, n * (server_idle + rate * server_event)].map(cores);
        let agent = [agent_idle, agent_idle + rate * agent_event].map(cores);
        let (server_mib, agent_mib) = (constants.server_mib(clusters, clusters * watches), constants.agent_mib(watches));
        let _ = writeln!(
            out,
            "| {clusters} × {watches} | {server_mib:.0} MiB | {} | {} | {agent_mib:.0} MiB | {} | {} |",
            server[0], server[1], agent[0], agent[1],
        );
    }
    let machine = &report.machine;
    let _ = write!(
        out,
        "\nMeasured on {} cores of {} ({}, commit {}; `{}` repeats it). A core is 1000 m, as Kubernetes counts. Callers speak HTTP/2; a\n\
         watch over HTTP/1.1, which has a connection of its own, takes {watch_http1_kib:.1} KiB at the server. An event is an object of\n\
         1 KiB. What is on its way comes on top: up to `--process-budget` where readers are slow.",
        machine.cores, machine.cpu, report.date, report.commit, report.command,
    );
    Ok(out)
}

/// As Kubernetes writes them.
fn cores(cores: f64) -> String {
    let millicores = cores * 1000.0;
    if millicores < 1.0 { "< 1 m".to_owned() } else { format!("{millicores:.0} m") }
}

/// README.md with another section in place of the one that it has.
pub(crate) fn rewrite(readme: &str, section: &str) -> Result<String> {
    let missing = || format!("README.md has no place for the capacity: {BEGIN} and, below it, {END}");
    let (before, rest) = readme.split_once(BEGIN).with_context(missing)?;
    let (_, after) = rest.split_once(END).with_context(missing)?;
    Ok(format!("{before}{BEGIN}\n{section}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::run::markdown::tests::example;
    use crate::run::report::{Better, Row};

    /// A run in which all that is needed was measured.
    fn measured() -> Report {
        let row = |scenario: &str, measure: &str, value: f64| {
            let values = BTreeMap::from([(POSTERN.to_owned(), BTreeMap::from([(0, value)]))]);
            Row::new(scenario, measure, "", Better::Lower, values, None)
        };
        let b5 = [
            row("B5", b5::SERVER_ALONE, 10.0),
            row("B5", b5::AGENT_ALONE, 8.0),
            row("B5", b5::AGENT_WITH_WATCHES, 11.0),
            row("B5", &b5::idle_cpu("hub"), 1.0),
            row("B5", &b5::idle_cpu("clusters"), 1.0),
            row("B5", &b5::event_cpu("hub"), 50.0),
            row("B5", &b5::event_cpu("clusters"), 100.0),
        ];
        let b6 = [
            row("B6", &b6::per_tunnel("server"), 40.0),
            row("B6", &b6::per_watch("hub", true), 8.0),
            row("B6", &b6::per_watch("hub", false), 30.0),
        ];
        Report { rows: b5.into_iter().chain(b6).collect(), ..example() }
    }

    #[test]
    fn the_section_adds_up_what_clusters_and_watches_take() {
        let section = section(&measured()).unwrap();
        assert!(section.contains("server memory = 10 MiB + clusters × 40 KiB + watches × 8.0 KiB"), "{section}");
        assert!(section.contains("| 100 × 150 | 131 MiB | 10 m | 60 m | 11 MiB | < 1 m | 1 m |"), "{section}");
    }

    #[test]
    fn a_run_without_the_scenarios_says_which_are_needed() {
        let error = section(&example()).unwrap_err().to_string();
        assert!(error.contains("B5 and B6"), "{error}");
    }

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let readme = format!("# P\n{BEGIN}\nold\n{END}\nrest\n");
        assert_eq!(rewrite(&readme, "new").unwrap(), format!("# P\n{BEGIN}\nnew\n{END}\nrest\n"));
        assert!(rewrite("# P\n", "new").is_err());
    }
}
