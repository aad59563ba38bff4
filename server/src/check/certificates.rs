//! Certificates that a server would show or believe: their time, and the order of chains.

use std::time::Duration;

use host::Host;
use host::certificate::Described;
use host::tls::inspect;
use jiff::Timestamp;

use super::Report;
use crate::config::ServerConfig;

/// How long before its end a certificate is worth a word: a month, as calendars have it.
const ENDS_SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// Looks at each file once, whoever uses it.
pub(super) fn check(config: &ServerConfig, host: &Host, report: &mut Report<'_>) {
    let listeners = [&config.tls, &config.internal_tls_files].into_iter().flatten();
    let of_listeners = listeners.map(|files| (Some(&files.cert), files.client_ca.as_ref()));
    let argocd = config.argocd.iter().map(|argocd| &argocd.files);
    let of_argocd = argocd.map(|files| (files.identity.as_ref().map(|(cert, _)| cert), files.ca.as_ref()));
    let mut seen = Vec::new();
    for (cert, ca) in of_listeners.chain(of_argocd) {
        if let Some(path) = cert.filter(|path| !seen.contains(path)) {
            seen.push(path);
            // What cannot be read was told already, by who would have used it.
            inspect(host, path).iter().for_each(|chain| of_chain(path, chain, host, report));
        }
        let Some(path) = ca else { continue };
        if !seen.contains(&path) {
            seen.push(path);
            inspect(host, path).iter().for_each(|authorities| of_authorities(path, authorities, host, report));
        }
    }
}

fn of_chain(path: &str, chain: &[Described], host: &Host, report: &mut Report<'_>) {
    let Some(leaf) = chain.first() else { return };
    let is_in_order = chain.windows(2).all(|pair| pair[0].issuer == pair[1].subject);
    if !is_in_order {
        let order = chain.iter().map(|one| format!("{:?}", one.subject)).collect::<Vec<_>>().join(", ");
        report.warn(&format!(
            "{path} has its certificates in the order {order}: each must be followed by its issuer, the server's own first"
        ));
    }
    let first_to_end = chain.iter().min_by_key(|one| one.validity.not_after).unwrap_or(leaf);
    let names = if leaf.names.is_empty() { "no name".to_owned() } else { leaf.names.join(", ") };
    of_time(path, first_to_end, &format!("{:?} for {names}", leaf.subject), host, report);
}

/// Of which the last to expire counts: while one follows another both are there.
fn of_authorities(path: &str, authorities: &[Described], host: &Host, report: &mut Report<'_>) {
    if let Some(last) = authorities.iter().max_by_key(|one| one.validity.not_after) {
        of_time(path, last, &format!("the CA {:?}", last.subject), host, report);
    }
}

fn of_time(path: &str, certificate: &Described, whose: &str, host: &Host, report: &mut Report<'_>) {
    let (now, validity) = (host.wall_clock(), certificate.validity);
    let day = |time| Timestamp::try_from(time).map(|time| time.strftime("%Y-%m-%d").to_string()).unwrap_or_default();
    let (begin, end) = (day(validity.not_before), day(validity.not_after));
    if now < validity.not_before {
        report.fail(&format!("{path} is good only from {begin} on: {whose}"));
    } else if validity.left(now).is_zero() {
        report.fail(&format!("{path} ended on {end}: {whose}; peers refuse it"));
    } else if validity.left(now) < ENDS_SOON {
        report.warn(&format!("{path} ends on {end}: {whose}"));
    } else {
        report.ok(&format!("{path} is {whose}, good until {end}"));
    }
}
