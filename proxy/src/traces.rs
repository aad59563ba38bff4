//! The span of a request, as both ends make one: named by its method, in the trace that its caller began, and what is passed on of it.
//!
//! Attributes are those of the OpenTelemetry semantic conventions for HTTP where they have a word for it.

use host::{Host, HttpUrl, Span, SpanKind, TRACEPARENT, TraceConfig, TraceParent, Tracer};
use http::{HeaderMap, HeaderValue, Method, Request};

use crate::flags::{self, Flag, Section, Values};
use crate::program::StartError;
use crate::request::RequestInfo;

/// What proxies write when who asked left before an answer (nginx).
const CALLER_LEFT: u16 = 499;

/// What belongs to a `traceparent`, and to no other.
const TRACESTATE: &str = "tracestate";

/// The flags of both programs.
pub const FLAGS: Section = Section {
    title: "Traces (OpenTelemetry, in the trace that the caller's traceparent names)",
    flags: &[
        Flag::value(
            "otlp-endpoint",
            "URL",
            "Collector that takes them, by OTLP as protobuf over HTTP: http://collector:4318; /v1/traces is appended. Without it there are none",
        )
        .env("OTEL_EXPORTER_OTLP_ENDPOINT"),
        Flag::value("otlp-ca-cert", "FILE", "CA that signed the collector's certificate; else the machine's own roots"),
        Flag::value("trace-sample", "RATIO", "How many of the traces that begin here, 0 to 1; in a caller's trace its own word counts")
            .default("1"),
    ],
};

/// The tracer of a program, which is off unless a collector is named.
///
/// # Errors
/// What is wrong with the file of the collector's CA.
pub fn tracer(host: &Host, config: &TraceConfig, service: &'static str, version: &'static str) -> Result<Tracer, StartError> {
    let path = config.ca_cert.clone().unwrap_or_default();
    let tracer = Tracer::new(host, config, service, version);
    tracer.map_err(|source| StartError::Material { flag: "otlp-ca-cert", path, source: Box::new(source) })
}

/// Reads [`FLAGS`].
pub fn read(values: &mut Values, host: &Host) -> TraceConfig {
    let mut config = TraceConfig::default();
    let url = |text: &str| text.parse::<HttpUrl>();
    values.read("otlp-endpoint", flags::optional(url), &mut config.collector);
    values.read("otlp-ca-cert", flags::optional(flags::readable(host)), &mut config.ca_cert);
    values.read("trace-sample", ratio, &mut config.sample);
    if values.is_given("otlp-ca-cert") && !config.collector.as_ref().is_some_and(|collector| collector.tls) {
        values.fail("otlp-ca-cert", "needs an https --otlp-endpoint: nobody shows a certificate otherwise");
    }
    config
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| format!("{text:?} is not a number from 0 to 1"))
}

/// Begins the span of a request that came in `opened`, a `traceparent` beside the request that is better believed, or empty.
pub fn begin<B>(tracer: &Tracer, kind: SpanKind, request: &Request<B>, opened: &str) -> Span {
    let method = standard(request.method());
    let parent = || TraceParent::parse(opened).or_else(|| TraceParent::of(request.headers()));
    let span = tracer.span(kind, method.unwrap_or("HTTP"), parent);
    span.tell("http.request.method", method.unwrap_or("_OTHER"));
    if method.is_none() {
        span.tell("http.request.method_original", request.method().as_str());
    }
    // Without the query, which may hold the command line of an exec.
    span.tell("url.path", request.uri().path());
    span
}

/// Tells what the request asks of Kubernetes.
pub fn tell(span: &Span, info: &RequestInfo) {
    if span.trace_id().is_some() {
        span.tell("postern.verb", &info.verb);
        span.tell("postern.resource", &info.resource_text());
    }
}

/// Tells how it was answered, and how many bytes the answer had. From `error_from` on, a code is a failure: who serves has failed
/// with 500, who asks with 400 (OpenTelemetry semantic conventions, "HTTP spans").
pub fn answered(span: &Span, code: u16, bytes: u64, error_from: u16) {
    if span.trace_id().is_some() {
        span.count("http.response.status_code", code.into());
        span.count("http.response.body.size", i64::try_from(bytes).unwrap_or(i64::MAX));
        if code >= error_from && code != CALLER_LEFT {
            span.fail(&code.to_string(), "");
        }
    }
}

/// Names `traceparent` as the parent of what is done for the request from here on; without one the request's own stays as it is.
pub fn pass_on(traceparent: Option<String>, headers: &mut HeaderMap) {
    let Some(value) = traceparent.and_then(|text| HeaderValue::from_str(&text).ok()) else { return };
    if TraceParent::of(headers).is_none() {
        // It belongs to no trace (W3C Trace Context section 4.3).
        headers.remove(TRACESTATE);
    }
    headers.insert(TRACEPARENT, value);
}

/// A method of the standard set, as a word of a bounded set: anybody can invent a method.
pub fn standard(method: &Method) -> Option<&'static str> {
    const STANDARD: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];
    STANDARD.into_iter().find(|known| *known == method.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn passed_on(own: &[(&'static str, &'static str)], traceparent: Option<&str>) -> Vec<(String, String)> {
        let mut headers: HeaderMap = HeaderMap::new();
        for (name, value) in own {
            headers.append(*name, HeaderValue::from_static(value));
        }
        pass_on(traceparent.map(str::to_owned), &mut headers);
        let text = |value: &HeaderValue| value.to_str().expect("text").to_owned();
        headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    #[test]
    fn a_state_follows_its_trace_and_no_other() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let good = [(TRACEPARENT, "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"), (TRACESTATE, "a=1")];
        assert_eq!(passed_on(&good, Some(PARENT)), [pair(TRACEPARENT, PARENT), pair(TRACESTATE, "a=1")]);
        let bad = [(TRACEPARENT, "nonsense"), (TRACESTATE, "a=1")];
        assert_eq!(passed_on(&bad, Some(PARENT)), [pair(TRACEPARENT, PARENT)]);
        assert_eq!(passed_on(&bad, None), [pair(TRACEPARENT, "nonsense"), pair(TRACESTATE, "a=1")], "not ours to mend");
    }

    #[test]
    fn an_invented_method_is_no_standard_one() {
        assert_eq!(standard(&Method::PATCH), Some("PATCH"));
        assert_eq!(standard(&Method::from_bytes(b"BREW").expect("a token")), None);
    }

    #[test]
    fn a_ratio_is_between_nothing_and_all() {
        assert_eq!((ratio("0"), ratio("0.25"), ratio("1")), (Ok(0.0), Ok(0.25), Ok(1.0)));
        for bad in ["", "-0.1", "1.1", "NaN", "half"] {
            assert!(ratio(bad).is_err(), "{bad}");
        }
    }
}
