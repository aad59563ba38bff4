//! The report as people read it: ratios first, absolute numbers second, what it cost third.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::report::{Better, Cost, POSTERN, Report, Row, Spread, Verdict, median};

/// Requests per second from which on a process's time divided by them is the cost of one, rather than that of being there.
const REQUESTS_MIN: f64 = 10.0;

/// The report in Markdown.
pub(crate) fn report(report: &Report) -> String {
    let mut out = String::new();
    head(&mut out, report);
    ratios(&mut out, report);
    absolute(&mut out, report);
    costs(&mut out, report);
    if !report.troubles.is_empty() {
        line(&mut out, "\n### What went wrong\n");
        report.troubles.iter().for_each(|trouble| line(&mut out, &format!("- {}", trouble.replace('\n', " / "))));
    }
    out
}

fn head(out: &mut String, report: &Report) {
    let machine = &report.machine;
    if report.debug_build {
        line(out, "**A debug build: these numbers mean nothing.**\n");
    }
    if report.nginx.is_none() {
        line(out, "**nginx is not installed: without its column this table is no result.**\n");
    }
    let gibibytes = machine.memory_bytes as f64 / f64::from(1 << 30);
    line(out, &format!("- Date: {}, commit: {}", report.date, report.commit));
    line(out, &format!("- Machine: {} cores of {}, {gibibytes:.0} GiB, Linux {}", machine.cores, machine.cpu, machine.kernel));
    line(out, &format!("- nginx: {}", report.nginx.as_deref().unwrap_or("not installed")));
    let shape = if report.quick { " (shorter runs; the full ones are steadier)" } else { "" };
    line(out, &format!("- To repeat: `{}`{shape}", report.command));
}

/// Postern's value over that of each other column, run by run.
fn ratios(out: &mut String, report: &Report) {
    let others: Vec<&String> = report.columns.iter().filter(|column| *column != POSTERN).collect();
    line(out, "\n### Ratios\n");
    line(out, "Median (min – max) over the runs, each ratio within one run. ↑: higher is better, ↓: lower is better.\n");
    let titles: String = others.iter().map(|other| format!(" {POSTERN} / {other} |")).collect();
    line(out, &format!("| | measure | |{titles} bar | |"));
    line(out, &format!("|---|---|---|{}---|---|", "---|".repeat(others.len())));
    for row in &report.rows {
        let cells: String = others.iter().map(|other| format!(" {} |", cell(row.ratio(other)))).collect();
        let bar = row.bar.as_ref().map_or("", |bar| bar.text.as_str());
        line(out, &format!("| {} | {} | {} |{cells} {bar} | {} |", row.scenario, row.measure, arrow(row), verdict(row.verdict)));
    }
}

fn absolute(out: &mut String, report: &Report) {
    line(out, "\n### Absolute numbers\n");
    let titles: String = report.columns.iter().map(|column| format!(" {column} |")).collect();
    line(out, &format!("| | measure | unit |{titles}"));
    line(out, &format!("|---|---|---|{}", "---|".repeat(report.columns.len())));
    for row in &report.rows {
        let cells: String = report.columns.iter().map(|column| format!(" {} |", cell(row.spread(column)))).collect();
        line(out, &format!("| {} | {} | {} |{cells}", row.scenario, row.measure, format!("{} {}", row.unit, arrow(row)).trim()));
    }
}

/// The medians over the runs, by load, column and process, in the order in which they came.
fn costs(out: &mut String, report: &Report) {
    line(out, "\n### CPU time and memory\n");
    line(
        out,
        "Medians over the runs, of whole loads with their warming; where two loads run at once each has the cost of both. Peak RSS counts shared pages in each process of a group.\n",
    );
    line(
        out,
        "| | load | column | process | CPU s | cores busy | CPU µs / request | peak RSS MiB |\n|---|---|---|---|---|---|---|---|",
    );
    let mut groups: Vec<([&str; 4], Vec<&Cost>)> = Vec::new();
    let mut places: BTreeMap<[&str; 4], usize> = BTreeMap::new();
    for cost in &report.costs {
        let key = [&cost.scenario, &cost.label, &cost.column, &cost.process].map(String::as_str);
        let place = *places.entry(key).or_insert(groups.len());
        if place == groups.len() {
            groups.push((key, Vec::new()));
        }
        groups[place].1.push(cost);
    }
    for ([scenario, label, column, process], costs) in groups {
        let of = |value: fn(&Cost) -> f64| median(costs.iter().map(|cost| value(cost))).map_or("–".to_owned(), number);
        let cells = [
            of(|cost| cost.cpu_seconds),
            of(|cost| cost.cpu_seconds / cost.seconds),
            of(|cost| {
                let per_request = cost.cpu_seconds / cost.seconds * 1e6 / cost.rate;
                if cost.rate < REQUESTS_MIN { f64::NAN } else { per_request }
            }),
            of(|cost| cost.peak_rss_bytes as f64 / f64::from(1 << 20)),
        ];
        line(out, &format!("| {scenario} | {label} | {column} | {process} | {} |", cells.join(" | ")));
    }
}

fn line(out: &mut String, text: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{text}");
}

fn arrow(row: &Row) -> &'static str {
    match row.better {
        Better::Higher => "↑",
        Better::Lower => "↓",
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Met => "met",
        Verdict::Missed => "**missed**",
        Verdict::Reported => "reported",
        Verdict::NoResult => "**no result**",
    }
}

fn cell(spread: Option<Spread>) -> String {
    let Some(Spread { min, median, max }) = spread else { return "–".to_owned() };
    if min == max { number(median) } else { format!("{} ({} – {})", number(median), number(min), number(max)) }
}

/// Three digits that count, and never more than needed.
fn number(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "–".to_owned(),
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.01 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::run::machine::Machine;
    use crate::run::report::Bar;

    pub(crate) fn example() -> Report {
        let runs = |values: [f64; 2]| values.into_iter().enumerate().collect::<BTreeMap<_, _>>();
        let values = [(POSTERN, [900.0, 1200.0]), ("nginx", [1000.0, 1000.0])];
        let values = values.map(|(column, values)| (column.to_owned(), runs(values))).into();
        let row = Row::new("B1", "32 callers", "req/s", Better::Higher, values, Some(Bar::ratio_at_least("nginx", 1.0)));
        Report {
            date: "2025-01-01T00:00:00Z".to_owned(),
            machine: Machine { cpu: "Z80".to_owned(), cores: 2, memory_bytes: 8 << 30, kernel: "6.1".to_owned() },
            commit: "abc".to_owned(),
            nginx: None,
            debug_build: false,
            quick: true,
            command: "cargo xtask bench".to_owned(),
            columns: [POSTERN, "nginx", "direct"].map(str::to_owned).into(),
            rows: vec![row],
            costs: Vec::new(),
            troubles: Vec::new(),
        }
    }

    #[test]
    fn a_row_tells_its_ratios_its_bar_and_its_verdict() {
        let text = report(&example());
        assert!(text.contains("| B1 | 32 callers | ↑ | 1.05 (0.90 – 1.20) | – | ≥ 1 × nginx | met |"), "{text}");
        assert!(text.contains("| B1 | 32 callers | req/s ↑ | 1050 (900 – 1200) | 1000 | – |"), "{text}");
    }

    #[test]
    fn a_table_without_nginx_says_that_it_is_no_result() {
        assert!(report(&example()).starts_with("**nginx is not installed"));
    }

    #[test]
    fn a_report_is_read_again_from_its_json() {
        let json = serde_json::to_string(&example()).unwrap();
        let read: Report = serde_json::from_str(&json).unwrap();
        assert_eq!(report(&read), report(&example()));
    }
}
