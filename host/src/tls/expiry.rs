//! When certificates expire: a metric for each file, and a warning while there is time.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::gauge::ConstGauge;
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

use crate::Host;
use crate::certificate::Validity;
use crate::watched::{Ledger, Watched};

/// How often the time of day is compared: also for certificates that are good for an hour.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// How long a warning is not repeated.
const REPEAT_INTERVAL: Duration = Duration::from_secs(12 * 3600);

/// Name, labels and meaning of the metric, for references.
pub const METRICS: [(&str, &str, &str); 1] =
    [("certificate_expires_timestamp_seconds", "file", "When the certificates of a file expire, in seconds since 1970")];

/// A file of certificates, and for how long they do their work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dated {
    path: String,
    validity: Validity,
}

impl Dated {
    /// A chain is good for as long as all of it is.
    pub(super) fn of_chain(path: &str, chain: &[CertificateDer<'_>]) -> Option<Self> {
        let validity = chain.iter().filter_map(|certificate| Validity::of(certificate)).min_by_key(|it| it.not_after)?;
        Some(Self { path: path.to_owned(), validity })
    }

    /// Authorities side by side, of which the last to expire counts: while one follows another both are there.
    pub(super) fn of_authorities(path: &str, authorities: &[CertificateDer<'_>]) -> Option<Self> {
        let validity = authorities.iter().filter_map(|certificate| Validity::of(certificate)).max_by_key(|it| it.not_after)?;
        Some(Self { path: path.to_owned(), validity })
    }
}

/// What has certificates in it.
pub(super) trait Expiring: Send + Sync + 'static {
    fn dated(&self) -> &[Dated];
}

/// Warns of what expires, for as long as the material is there.
pub(super) fn watch<T: Expiring>(host: &Host, name: &'static str, material: &Arc<Watched<T>>) {
    host.spawn("certificate expiry", follow(host.clone(), name, Arc::downgrade(material)));
}

async fn follow<T: Expiring>(host: Host, name: &'static str, material: Weak<Watched<T>>) {
    let mut warned: Option<(Vec<Dated>, Instant)> = None;
    loop {
        let Some(changed) = material.upgrade().map(|material| {
            let changed = material.changed();
            let (now, material) = (host.wall_clock(), material.get());
            host.ledger().certificates_are(name, material.dated().iter().map(|dated| (dated.path.clone(), dated.validity)));
            let ending: Vec<_> = material.dated().iter().filter(|dated| dated.validity.is_ending(now)).cloned().collect();
            let is_told = warned.as_ref().is_some_and(|(told, at)| *told == ending && at.elapsed() < REPEAT_INTERVAL);
            if !is_told {
                ending.iter().for_each(|dated| warn(name, dated, now));
                warned = Some((ending, Instant::now()));
            }
            changed
        }) else {
            return;
        };
        // An error is that nothing has changed.
        let _ = tokio::time::timeout(LOOK_INTERVAL, changed).await;
    }
}

fn warn(what: &'static str, dated: &Dated, now: SystemTime) {
    let Dated { path, validity } = dated;
    let left = validity.left(now);
    if left.is_zero() {
        tracing::warn!(what, file = path, "the certificate has expired: peers refuse it, renew it");
    } else {
        let hours = left.as_secs() / 3600;
        tracing::warn!(what, file = path, hours, "less than a third of the certificate's lifetime is left: renew it");
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FileLabel {
    file: String,
}

/// Told at each scrape.
#[derive(Debug)]
pub(crate) struct ExpiryMetrics(pub(crate) Arc<Ledger>);

impl Collector for ExpiryMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let [(name, _, help)] = METRICS;
        let gauge = <ConstGauge<i64> as TypedMetric>::TYPE;
        let mut family = encoder.encode_descriptor(name, help, None, gauge)?;
        for (file, validity) in self.0.certificates() {
            let seconds = validity.not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let gauge = ConstGauge::new(i64::try_from(seconds).unwrap_or(i64::MAX));
            gauge.encode(family.encode_family(&FileLabel { file })?)?;
        }
        Ok(())
    }
}
