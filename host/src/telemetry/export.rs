//! Ended spans on their way to the collector: a bounded queue, and a task that delivers what is in it.
//!
//! Whoever ends a span waits for nothing: with a collector that is dead, slow or refuses, spans are dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::collector::Collector;
use crate::{Backoff, Host};

/// Spans that wait for their delivery: a second of a busy hub, at about a KiB each. Beyond it they are dropped.
const QUEUE_MAX: usize = 4096;

/// Spans of one delivery, as OpenTelemetry's own processors have it.
const BATCH_MAX: usize = 512;

/// How long a span waits for others to be delivered with.
const BATCH_WAIT: Duration = Duration::from_secs(1);

/// The first ceiling of the pause after a delivery that failed, and the last: a collector that restarts is back within
/// seconds, and one that is gone costs two dials a minute.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How long a process that ends waits for its last spans to be delivered.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// Name, labels and meaning of each metric, for references.
pub const METRICS: [(&str, &str, &str); 2] = [
    ("trace_spans_exported", "", "Spans that the collector has taken; none without otlp-endpoint"),
    ("trace_spans_dropped", "", "Spans that are lost: the collector was away, too slow, or refused them"),
];

/// What became of spans.
#[derive(Debug, Clone, Default)]
pub(super) struct QueueMetrics {
    exported: Counter,
    dropped: Counter,
}

impl QueueMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let [(exported, _, exported_help), (dropped, _, dropped_help)] = METRICS;
        registry.register(exported, exported_help, self.exported.clone());
        registry.register(dropped, dropped_help, self.dropped.clone());
    }
}

enum Item {
    Span(Box<SpanData>),
    /// Told once all before it is delivered, or lost.
    Flush(oneshot::Sender<()>),
}

/// The way in. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    items: mpsc::Sender<Item>,
    metrics: QueueMetrics,
    is_failing: Arc<AtomicBool>,
}

impl Queue {
    /// Starts the task that delivers; it ends when nothing can come any more.
    pub(super) fn start(host: &Host, collector: Collector, resource: &Resource) -> Self {
        let (items, queue) = mpsc::channel(QUEUE_MAX);
        let (metrics, is_failing) = (QueueMetrics::default(), Arc::<AtomicBool>::default());
        let delivery = Delivery {
            host: host.clone(),
            collector,
            resource: resource.into(),
            metrics: metrics.clone(),
            is_failing: is_failing.clone(),
            backoff: Backoff::new(PAUSE_FIRST, PAUSE_MAX),
        };
        host.spawn("traces", delivery.run(queue));
        Self { items, metrics, is_failing }
    }

    pub(super) fn metrics(&self) -> &QueueMetrics {
        &self.metrics
    }

    /// Waits until what has ended is delivered, or until that cannot be hoped for.
    pub(super) async fn flush(&self) {
        if self.is_failing.load(Ordering::Relaxed) {
            return;
        }
        let flushed = async {
            let (done, wait) = oneshot::channel();
            if self.items.send(Item::Flush(done)).await.is_ok() {
                let _ = wait.await;
            }
        };
        if timeout(FLUSH_MAX, flushed).await.is_err() {
            tracing::info!("the last spans could not be delivered in time");
        }
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        if self.items.try_send(Item::Span(Box::new(span))).is_err() {
            self.metrics.dropped.inc();
        }
    }

    /// Not this way, which would block: see [`Queue::flush`].
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The way out.
struct Delivery {
    host: Host,
    collector: Collector,
    resource: ResourceAttributesWithSchema,
    metrics: QueueMetrics,
    is_failing: Arc<AtomicBool>,
    backoff: Backoff,
}

impl Delivery {
    async fn run(mut self, mut queue: mpsc::Receiver<Item>) {
        while let Some(first) = queue.recv().await {
            let (batch, flush) = gather(first, &mut queue).await;
            let pause = match batch.is_empty() {
                true => None,
                false => self.deliver(batch).await,
            };
            if let Some(done) = flush {
                let _ = done.send(());
            }
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Delivers a batch; says how long to let the collector be if that failed.
    async fn deliver(&mut self, batch: Vec<SpanData>) -> Option<Duration> {
        let n_spans = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let request = ExportTraceServiceRequest { resource_spans };
        match self.collector.deliver(request.encode_to_vec()).await {
            Ok(n_refused) => {
                let n_refused = n_refused.min(n_spans);
                self.metrics.exported.inc_by(n_spans - n_refused);
                self.metrics.dropped.inc_by(n_refused);
                self.backoff.reset();
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(collector = %self.collector.url(), "traces are delivered again");
                }
                None
            }
            Err(error) => {
                self.metrics.dropped.inc_by(n_spans);
                // Said once, for as long as it goes on.
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(collector = %self.collector.url(), %error, "traces cannot be delivered and are dropped");
                }
                Some(self.backoff.next(self.host.chance()))
            }
        }
    }
}

/// A batch that begins with `first`, and who waits for its delivery.
async fn gather(first: Item, queue: &mut mpsc::Receiver<Item>) -> (Vec<SpanData>, Option<oneshot::Sender<()>>) {
    let give_up_at = Instant::now() + BATCH_WAIT;
    let (mut batch, mut next) = (Vec::new(), Some(first));
    loop {
        match next {
            Some(Item::Span(span)) => batch.push(*span),
            Some(Item::Flush(done)) => return (batch, Some(done)),
            None => return (batch, None),
        }
        if batch.len() == BATCH_MAX {
            return (batch, None);
        }
        next = timeout_at(give_up_at, queue.recv()).await.unwrap_or_default();
    }
}
