//! What every process tells its operators: metrics of the process itself and the text that Prometheus scrapes.

use std::fmt::Write as _;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::Host;
use crate::tls::ExpiryMetrics;
use crate::watched::LedgerMetrics;

/// The content type of [`metrics_text`] (OpenMetrics 1.0, section "Overall Structure").
pub const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Linux counts CPU time in these (`getconf CLK_TCK`), 100 a second on every architecture that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// The page size that `/proc/self/statm` counts in, on every machine that Postern is built for.
const PAGE_BYTES: u64 = 4096;

/// A registry with `build_info` and the `process_*` metrics of this process.
pub fn registry(host: &Host, version: &'static str) -> Registry {
    let mut registry = Registry::default();
    registry.register("build", "What runs here", Info::new([("version", version)]));
    registry.register_collector(Box::new(Process(host.clone())));
    registry.register_collector(Box::new(LedgerMetrics(host.ledger().clone())));
    registry.register_collector(Box::new(ExpiryMetrics(host.ledger().clone())));
    registry
}

/// All metrics as text.
pub fn metrics_text(registry: &Registry) -> String {
    let mut text = String::new();
    if prometheus_client::encoding::text::encode(&mut text, registry).is_err() {
        // Writing to a String does not fail.
        let _ = write!(text, "# EOF");
    }
    text
}

/// Reads `/proc/self` at each scrape (proc(5)); other systems have no process metrics.
struct Process(Host);

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Process")
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let read = |path| self.0.read_file(path).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        if let Some(seconds) = read("/proc/self/stat").as_deref().and_then(cpu_seconds) {
            let counter = ConstCounter::new(seconds);
            let metric =
                encoder.encode_descriptor("process_cpu", "CPU time spent", Some(&Unit::Seconds), counter.metric_type())?;
            counter.encode(metric)?;
        }
        let pages = |n: usize| read("/proc/self/statm").and_then(|text| text.split(' ').nth(n)?.parse::<u64>().ok());
        let n_tasks = u64::try_from(self.0.tasks().n_live()).ok();
        let gauges = [
            ("process_resident_memory", "Resident memory", Some(Unit::Bytes), pages(1).map(|n| n * PAGE_BYTES)),
            ("process_virtual_memory", "Virtual memory", Some(Unit::Bytes), pages(0).map(|n| n * PAGE_BYTES)),
            ("process_tasks", "Tasks alive", None, n_tasks),
        ];
        for (name, help, unit, value) in gauges {
            if let Some(value) = value {
                let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
                gauge.encode(encoder.encode_descriptor(name, help, unit.as_ref(), gauge.metric_type())?)?;
            }
        }
        Ok(())
    }
}

/// User and system time of a `/proc/self/stat` line: fields 14 and 15, counted behind the name, which may hold blanks.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks: Vec<f64> = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    Some(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_a_name_with_blanks() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 1 0 100 1000 10";
        assert_eq!(cpu_seconds(stat), Some(2.0));
    }

    #[test]
    fn a_scrape_tells_the_version_and_the_memory() {
        let text = metrics_text(&registry(&Host::real(), "9.9.9"));
        assert!(text.contains("build_info{version=\"9.9.9\"} 1"), "{text}");
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
        assert!(text.contains("process_cpu_seconds_total "), "{text}");
    }
}
