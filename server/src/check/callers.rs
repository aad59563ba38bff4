//! Clusters and callers beside each other: rules that match nothing, clusters that nobody reaches, secrets that lie open.

use std::collections::BTreeSet;

use host::Host;

use super::Report;
use crate::callers;
use crate::config::{ServerConfig, clusters};

/// Tokens in plain text that are told one by one: enough to see what kind of file it is.
const PLAIN_TOLD_MAX: usize = 3;

pub(super) fn check(config: &ServerConfig, host: &Host, report: &mut Report<'_>) {
    for cluster in &config.clusters {
        let distinct: BTreeSet<_> = cluster.tokens.iter().map(|token| token.hex()).collect();
        if distinct.len() < cluster.tokens.len() {
            report.warn(&format!("cluster {} has the same token twice", cluster.id));
        }
    }
    let clusters = config.clusters_file.as_ref().and_then(|path| clusters::load(host, "--clusters", path).ok());
    plain_tokens(&clusters.map(|clusters| clusters.plain_tokens).unwrap_or_default(), report);
    // Its mistakes were told already.
    let Some(policy) = config.callers_file.as_ref().and_then(|path| callers::read(host, path).ok()) else { return };
    let place = config.callers_file.as_deref().unwrap_or_default();
    report.ok(&format!("--callers {place}: callers: {}", policy.callers().len()));
    for caller in policy.callers() {
        let at = format!("--callers {place}: caller {}", caller.name);
        if caller.rules.is_empty() {
            report.warn(&format!("{at} may reach nothing: it has no allow"));
        }
        for pattern in caller.rules.iter().flat_map(|rule| &rule.clusters) {
            if !config.clusters.iter().any(|cluster| pattern.matches(cluster.id.as_str())) {
                report.warn(&format!("{at}: {pattern} matches no cluster"));
            }
        }
        for cluster in &config.clusters {
            if cluster.tokens.iter().any(|token| caller.tokens.contains(token)) {
                report.warn(&format!("{at} has the token of the agents of {}: who holds one can be both", cluster.id));
            }
        }
        if caller.n_plain_tokens > 0 {
            report.warn(&format!("{at} has tokens in plain text; sha256: and a digest stand for one (postern-server token)"));
        }
    }
    for cluster in &config.clusters {
        if !policy.callers().iter().any(|caller| caller.may_reach(cluster.id.as_str())) {
            report.warn(&format!("cluster {}: no caller may reach it", cluster.id));
        }
    }
}

fn plain_tokens(places: &[String], report: &mut Report<'_>) {
    for place in places.iter().take(PLAIN_TOLD_MAX) {
        report.warn(&format!("{place} stands in plain text; sha256: and its digest stand for it (postern-server token)"));
    }
    if let n_more @ 1.. = places.len().saturating_sub(PLAIN_TOLD_MAX) {
        report.warn(&format!("{n_more} more tokens stand in plain text"));
    }
}
