//! Traces: a span for each request, in the trace that its caller began (W3C Trace Context), exported as OTLP.
//!
//! Off unless a collector is named; then a span is nothing and costs nothing. A tracer is a value, so that many processes fit
//! into one simulation: its ids are the host's chance, its times the host's wall clock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::trace::{Span as _, SpanContext, SpanId, Status, TraceContextExt, TraceId, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{IdGenerator, Sampler, SdkTracer, SdkTracerProvider};
use prometheus_client::registry::Registry;

use super::collector::Collector;
use super::export::{Queue, QueueMetrics};
use super::parent::TraceParent;
use crate::tls::{ClientFiles, ClientTls, TlsError};
use crate::{Host, HttpUrl};

/// Bytes of one attribute: a path may have 32 KiB, and whoever asks chooses it.
const ATTRIBUTE_BYTES_MAX: usize = 512;

/// Where traces go, and how many.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceConfig {
    /// Who receives them; `None` = there are none.
    pub collector: Option<HttpUrl>,
    /// CA of the collector's certificate, in PEM; `None` = the machine's own roots.
    pub ca_cert: Option<String>,
    /// How much of what begins here is traced, 0 to 1. What a caller has begun is traced if the caller says so.
    pub sample: f64,
}

impl Default for TraceConfig {
    fn default() -> Self {
        // All: who names a collector wants to see something, and the collector can choose better than we can.
        Self { collector: None, ca_cert: None, sample: 1.0 }
    }
}

/// Which side of a request a span tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// A request that came.
    Server,
    /// A request that was sent.
    Client,
}

/// Begins spans. Cheap to clone; the default is one that is off.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<On>>);

struct On {
    host: Host,
    sdk: SdkTracer,
    queue: Queue,
}

impl Tracer {
    /// Exports for `service` to the collector of `config`, if there is one.
    ///
    /// # Errors
    /// What is wrong with the file of its CA.
    pub fn new(host: &Host, config: &TraceConfig, service: &'static str, version: &'static str) -> Result<Self, TlsError> {
        let Some(url) = config.collector.clone() else { return Ok(Self::default()) };
        let files = ClientFiles { ca: config.ca_cert.clone(), ..ClientFiles::default() };
        let tls = url.tls.then(|| ClientTls::new(host, "otlp-tls", files)).transpose()?;
        let of_process = [
            ("service.name", service.to_owned()),
            ("service.version", version.to_owned()),
            // Tells replicas and restarts apart (OpenTelemetry semantic conventions, "service").
            ("service.instance.id", format!("{:016x}", host.chance())),
        ];
        let of_process = of_process.map(|(key, value)| KeyValue::new(key, value));
        let resource = Resource::builder_empty().with_attributes(of_process).build();
        let queue = Queue::start(host, Collector::new(host.clone(), url, tls), &resource);
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample)));
        let provider = SdkTracerProvider::builder()
            .with_span_processor(queue.clone())
            .with_id_generator(Chance(host.clone()))
            .with_sampler(sampler)
            .with_resource(resource)
            .build();
        Ok(Self(Some(Arc::new(On { host: host.clone(), sdk: provider.tracer(service), queue }))))
    }

    /// Begins a span, which ends with its last clone. Nobody is asked for its parent while traces are off.
    pub fn span(&self, kind: SpanKind, name: &'static str, parent: impl FnOnce() -> Option<TraceParent>) -> Span {
        let Some(on) = &self.0 else { return Span::default() };
        let remote = |parent: TraceParent| Context::new().with_remote_span_context(parent.context().clone());
        let parent = parent().map(remote).unwrap_or_default();
        let kind = match kind {
            SpanKind::Server => opentelemetry::trace::SpanKind::Server,
            SpanKind::Client => opentelemetry::trace::SpanKind::Client,
        };
        let builder = on.sdk.span_builder(name).with_kind(kind).with_start_time(on.host.wall_clock());
        let sdk = on.sdk.build_with_context(builder, &parent);
        let context = sdk.span_context().clone();
        Span(Some(Arc::new(Active { context, sdk: Mutex::new(sdk), has_failed: AtomicBool::new(false), host: on.host.clone() })))
    }

    /// Delivers what has ended, within a few seconds; at once gives up a collector that takes nothing.
    pub async fn flush(&self) {
        if let Some(on) = &self.0 {
            on.queue.flush().await;
        }
    }

    /// Adds what became of the spans to a process's metrics.
    pub fn register(&self, registry: &mut Registry) {
        match &self.0 {
            Some(on) => on.queue.metrics().register(registry),
            // The same names whether traces are on or off.
            None => QueueMetrics::default().register(registry),
        }
    }
}

/// A span that has begun. Clones are the same span; it ends when the last one is dropped.
#[derive(Clone, Default)]
pub struct Span(Option<Arc<Active>>);

struct Active {
    context: SpanContext,
    sdk: Mutex<opentelemetry_sdk::trace::Span>,
    has_failed: AtomicBool,
    host: Host,
}

impl Span {
    /// The `traceparent` of what is done on behalf of this span, also of one that is not sampled; none where traces are off.
    pub fn traceparent(&self) -> Option<String> {
        let context = &self.0.as_ref()?.context;
        let flags = context.trace_flags().to_u8();
        Some(format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id()))
    }

    /// The id under which a trace is found at the collector; none for what is not sampled.
    pub fn trace_id(&self) -> Option<String> {
        let context = &self.0.as_ref()?.context;
        context.is_sampled().then(|| context.trace_id().to_string())
    }

    /// Tells something of it, cut to a few hundred bytes.
    pub fn tell(&self, key: &'static str, text: &str) {
        self.record(|span| span.set_attribute(KeyValue::new(key, cut(text).to_owned())));
    }

    /// Tells a number.
    pub fn count(&self, key: &'static str, number: i64) {
        self.record(|span| span.set_attribute(KeyValue::new(key, Value::I64(number))));
    }

    /// It has failed: in a word for programs, and in words for people. The first to say so knows best.
    pub fn fail(&self, kind: &str, why: &str) {
        let Some(active) = &self.0 else { return };
        if !active.has_failed.swap(true, Ordering::Relaxed) {
            self.tell("error.type", kind);
            self.record(|span| span.set_status(Status::error(cut(why).to_owned())));
        }
    }

    fn record(&self, record: impl FnOnce(&mut opentelemetry_sdk::trace::Span)) {
        if let Some(active) = self.0.as_ref().filter(|active| active.context.is_sampled()) {
            record(&mut active.sdk.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let ended_at = self.host.wall_clock();
        self.sdk.get_mut().unwrap_or_else(PoisonError::into_inner).end_with_timestamp(ended_at);
    }
}

/// Ids of the host's chance. All zeros would be no id (W3C Trace Context section 3.2.2.3).
struct Chance(Host);

impl std::fmt::Debug for Chance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Chance")
    }
}

impl IdGenerator for Chance {
    fn new_trace_id(&self) -> TraceId {
        TraceId::from(u128::from(self.0.chance()) << 64 | u128::from(self.0.chance().max(1)))
    }

    fn new_span_id(&self) -> SpanId {
        SpanId::from(self.0.chance().max(1))
    }
}

/// As much of a text as an attribute may have.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(ATTRIBUTE_BYTES_MAX)).unwrap_or(text)
}

#[cfg(test)]
mod tests;
