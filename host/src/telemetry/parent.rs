//! The `traceparent` of a request (W3C Trace Context section 3.2): whose trace it belongs to.
//!
//! Read more strictly than the SDK does, which takes ids that are too short: what is no `traceparent` for the API server must be
//! none for us.

use http::HeaderMap;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// The header that names a request's trace.
pub const TRACEPARENT: &str = "traceparent";

/// Where each part of `00-TRACE-PARENT-FLAGS` begins.
const PARTS: [usize; 4] = [0, 3, 36, 53];

/// How long version 00 is; later ones may have more behind a dash.
const LENGTH: usize = 55;

/// A span elsewhere, on whose behalf something is done.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceParent(SpanContext);

impl TraceParent {
    /// Reads the text of a header; none if it is not well-formed, or its ids are zero.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (head, rest) = bytes.split_at_checked(LENGTH)?;
        let is_well_formed = head.iter().enumerate().all(|(at, byte)| match PARTS[1..].contains(&(at + 1)) {
            true => *byte == b'-',
            false => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        });
        let [version, trace, parent, flags] = PARTS.map(|at| text.get(at..).unwrap_or_default());
        let is_known = match version.get(..2)? {
            "00" => rest.is_empty(),
            "ff" => false,
            _ => rest.is_empty() || rest.starts_with(b"-"),
        };
        if !is_well_formed || !is_known {
            return None;
        }
        let trace = TraceId::from_hex(trace.get(..32)?).ok()?;
        let parent = SpanId::from_hex(parent.get(..16)?).ok()?;
        let flags = TraceFlags::new(u8::from_str_radix(flags.get(..2)?, 16).ok()?) & TraceFlags::SAMPLED;
        // Its `tracestate` goes on as it came, and is not exported.
        let context = SpanContext::new(trace, parent, flags, true, TraceState::NONE);
        context.is_valid().then_some(Self(context))
    }

    /// Reads it from a request; two of them are none.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let (first, second) = (values.next()?, values.next());
        second.is_none().then(|| first.to_str().ok().and_then(Self::parse)).flatten()
    }

    pub(super) fn context(&self) -> &SpanContext {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_as_the_recommendation_has_it_and_nothing_else_is_one() {
        let read = TraceParent::parse(GOOD).expect("well-formed").0;
        assert_eq!(read.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(read.span_id().to_string(), "b7ad6b7169203331");
        assert!(read.is_sampled() && read.is_remote());
        assert!(!TraceParent::parse(&GOOD.replace("-01", "-00")).expect("well-formed").0.is_sampled());
        let good = [GOOD.replacen("00", "cc", 1), GOOD.replacen("00", "cc", 1) + "-more", GOOD.replace("-01", "-ff")];
        for text in good {
            assert!(TraceParent::parse(&text).is_some(), "{text}");
        }
        let bad = [
            String::new(),
            GOOD.replacen("00", "ff", 1),
            GOOD.to_owned() + "-more",
            GOOD.replacen("00", "cc", 1) + "more",
            GOOD.to_uppercase(),
            GOOD.replace("-01", "-+1"),
            GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            GOOD.replace("b7ad6b7169203331", "b7ad6b716920333"),
            GOOD.replace("b7ad", "b7aé"),
            format!(" {GOOD}"),
            "00-1-1-01".to_owned(),
        ];
        for text in bad {
            assert_eq!(TraceParent::parse(&text), None, "{text}");
        }
    }

    #[test]
    fn a_request_with_two_parents_has_none() {
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT, GOOD.parse().expect("a value"));
        assert!(TraceParent::of(&headers).is_some());
        headers.append(TRACEPARENT, GOOD.parse().expect("a value"));
        assert_eq!(TraceParent::of(&headers), None);
    }
}
