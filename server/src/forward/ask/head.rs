//! Heads: a request's as bytes, an answer's from bytes (RFC 9112 sections 3 to 5).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;
use proxy::head::{INNER_FIELDS_MAX, INNER_HEAD_BUFFER};

use super::AskError;
use super::framing::Framing;

/// Most heads are shorter, and then their buffer does not grow.
const HEAD_USUAL: usize = 512;

/// The longest end of a head, in bytes.
pub(super) const END_MAX: usize = 4;

/// Whether a head may end in these bytes: an empty line, which some senders end with a bare line feed.
pub(super) fn ends_in(bytes: &[u8]) -> bool {
    let mut ends = memchr::memchr_iter(b'\n', bytes);
    ends.any(|at| matches!(bytes.get(at + 1..), Some([b'\n', ..] | [b'\r', b'\n', ..])))
}

pub(super) fn encode(parts: &Parts) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD_USUAL);
    out.put_slice(parts.method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(parts.uri.path_and_query().map_or("/", |target| target.as_str()).as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    for (name, value) in &parts.headers {
        out.put_slice(name.as_str().as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    out.put_slice(b"\r\n");
    out.freeze()
}

/// The final answer's head, taken off the front of `bytes`; none while it is not all there. Interim answers are dropped.
pub(super) fn parse(bytes: &mut Bytes, method: &Method) -> Result<Option<(Response<()>, Framing)>, AskError> {
    loop {
        let Some(response) = parse_one(bytes)? else { return Ok(None) };
        let status = response.status();
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            continue;
        }
        let mut response = response;
        let framing = Framing::of(method, status, response.version(), response.headers_mut())?;
        *response.version_mut() = Version::HTTP_11;
        return Ok(Some((response, framing)));
    }
}

fn parse_one(bytes: &mut Bytes) -> Result<Option<Response<()>>, AskError> {
    let malformed = |_| AskError::Malformed("a broken head");
    let mut fields = [const { std::mem::MaybeUninit::uninit() }; INNER_FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let len = match config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields).map_err(malformed)? {
        httparse::Status::Complete(len) if len > INNER_HEAD_BUFFER => return Err(AskError::TooLong),
        httparse::Status::Complete(len) => len,
        httparse::Status::Partial => return Ok(None),
    };
    let mut response = Response::new(());
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    *response.status_mut() = status.ok_or(AskError::Malformed("a broken status"))?;
    *response.version_mut() = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let reason = parsed.reason.unwrap_or_default();
    if Some(reason) != response.status().canonical_reason()
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        response.extensions_mut().insert(reason);
    }
    *response.headers_mut() = fields_of(bytes, parsed.headers)?;
    bytes.advance(len);
    Ok(Some(response))
}

/// Fields as the library of HTTP keeps them; their values go on lying in `bytes`.
pub(super) fn fields_of(bytes: &Bytes, fields: &[httparse::Header<'_>]) -> Result<HeaderMap, AskError> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value));
        let (Ok(name), Ok(value)) = (name, value) else { return Err(AskError::Malformed("a broken field")) };
        headers.append(name, value);
    }
    Ok(headers)
}

/// What all `Content-Length` fields say (RFC 9110 section 8.6); none without any.
pub(super) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, AskError> {
    let mut length = None;
    for member in headers.get_all(CONTENT_LENGTH).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b',')) {
        let digits = std::str::from_utf8(member.trim_ascii()).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let told = digits.and_then(|digits| digits.parse().ok()).ok_or(AskError::Malformed("a broken Content-Length"))?;
        if length.replace(told).is_some_and(|before| before != told) {
            return Err(AskError::Malformed("two lengths"));
        }
    }
    Ok(length)
}
