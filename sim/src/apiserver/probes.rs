//! Paths of no real API server: they show or provoke what HTTP allows, for tests of what lies in between.
//!
//! | path | answer |
//! |---|---|
//! | `/echo…` | any method: the body sent back, or without a body the request as JSON, without its Authorization |
//! | `/bulk?bytes=N[&chunked=1][&pause_ms=P]` | N bytes of [`pattern`], a pause before each piece |
//! | `/abort?after=N[&bytes=M]` | N bytes (fewer to a slow reader) of a body that claims M or is chunked, then a broken connection |
//! | `/trailers` | a body with the declared trailer `x-digest` |
//! | `/status/CODE` | that status without content, with an `ETag` |
//! | `/head?fields=N[&bytes=M]` | an answer with N fields more, which take M bytes together |
//! | `/upload[?pause_ms=P]` | length and SHA-256 of the request's body, which is asked for after a pause |
//! | `/deny` | 403 at once; the request's body is not read |
//! | `/open` | how many requests are open beside this one |
//! | `/silent[?unread=1]` | no answer, ever; the request's body is read, or not |

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, TRAILER};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body as _, Incoming};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::ApiServer;
use super::body::{self, Body};
use super::query::Query;
use super::status::Status;

/// The period of [`pattern`]: a prime, so that bytes lost or doubled in powers of two show.
const PERIOD: usize = 251;

/// One piece of a bulk answer, a multiple of the period near 32 KiB.
const PIECE_BYTES: usize = 128 * PERIOD;

/// What a body that will break off is given to leave the buffers: a few round trips of a slow link.
pub(crate) const FLUSH_TIME: Duration = Duration::from_millis(500);

/// What every answer of `/status` has, to see that it arrives.
const PROBE_ETAG: &str = "\"probe\"";

/// How long Go keeps a connection open whose request it has answered and not read (`rstAvoidanceDelay`), so that the
/// reset does not overtake the answer.
const UNREAD_TIME: Duration = Duration::from_millis(500);

/// The byte at `position` of every bulk body.
pub fn pattern(position: u64) -> u8 {
    (position % PERIOD as u64) as u8
}

pub(crate) fn is_probe(path: &str) -> bool {
    let first = path.split('/').nth(1).unwrap_or_default();
    matches!(first, "echo" | "bulk" | "abort" | "trailers" | "status" | "head" | "upload" | "deny" | "open" | "silent")
}

pub(crate) async fn answer(server: &ApiServer, path: &str, request: Request<Incoming>) -> Response<Body> {
    let query = Query::parse(request.uri().query());
    let answer = match path.split('/').nth(1).unwrap_or_default() {
        "echo" => Ok(echo(request)),
        "bulk" => bulk(&query),
        "abort" => abort(&query),
        "trailers" => Ok(trailers()),
        "status" => status(path),
        "head" => head(&query),
        "deny" => return deny(server, request.into_body()),
        "open" => Ok(open(server)),
        "silent" => silent(&query, request.into_body()).await,
        _ => upload(&query, request.into_body()).await,
    };
    answer.unwrap_or_else(Status::into_response)
}

fn echo(request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    if !body.is_end_stream() {
        let mut response = Response::new(body.map_err(io::Error::other).boxed_unsync());
        if let Some(media_type) = parts.headers.get(CONTENT_TYPE) {
            response.headers_mut().insert(CONTENT_TYPE, media_type.clone());
        }
        return response;
    }
    let headers: Vec<_> = parts
        .headers
        .iter()
        // A credential goes in and never comes out.
        .filter(|(name, _)| **name != AUTHORIZATION)
        .map(|(name, value)| [name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()])
        .collect();
    let target = parts.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let document = json!({
        "method": parts.method.as_str(), "target": target, "version": format!("{:?}", parts.version), "headers": headers,
    });
    body::json(StatusCode::OK, &document)
}

fn bulk(query: &Query) -> Result<Response<Body>, Status> {
    let bytes = query.number("bytes")?.unwrap_or(0);
    let pause = Duration::from_millis(query.number("pause_ms")?.unwrap_or(0));
    let mut response = octets(pieces(bytes, pause).map(|piece| Ok(Frame::data(piece))));
    if !query.flag("chunked") {
        response.headers_mut().insert(CONTENT_LENGTH, bytes.into());
    }
    Ok(response)
}

fn abort(query: &Query) -> Result<Response<Body>, Status> {
    let after = query.number("after")?.unwrap_or(0);
    let broken = stream::once(async {
        // What is still in the connection's buffer when it breaks is never sent.
        tokio::time::sleep(FLUSH_TIME).await;
        Err(io::Error::other("broken on purpose"))
    });
    let mut response = octets(pieces(after, Duration::ZERO).map(|piece| Ok(Frame::data(piece))).chain(broken));
    if let Some(claimed) = query.number("bytes")? {
        response.headers_mut().insert(CONTENT_LENGTH, claimed.into());
    }
    Ok(response)
}

fn trailers() -> Response<Body> {
    let text = Bytes::from_static(b"a body with a trailer\n");
    let mut trailers = HeaderMap::new();
    let digest = HeaderValue::from_str(&hex(&Sha256::digest(&text))).expect("hex digits are a header value");
    trailers.insert("x-digest", digest);
    let mut response = octets(stream::iter([Ok(Frame::data(text)), Ok(Frame::trailers(trailers))]));
    response.headers_mut().insert(TRAILER, HeaderValue::from_static("x-digest"));
    response
}

fn status(path: &str) -> Result<Response<Body>, Status> {
    let code = path.split('/').nth(2).and_then(|code| code.parse().ok()).and_then(|code| StatusCode::from_u16(code).ok());
    // 1xx are no answers of their own.
    let code =
        code.filter(|code| !code.is_informational()).ok_or_else(|| Status::bad_request("no status code to answer with"))?;
    let mut response = Response::new(body::full(""));
    *response.status_mut() = code;
    response.headers_mut().insert(ETAG, HeaderValue::from_static(PROBE_ETAG));
    Ok(response)
}

fn head(query: &Query) -> Result<Response<Body>, Status> {
    let fields = query.number("fields")?.unwrap_or(0);
    let field_bytes = query.number("bytes")?.unwrap_or(0).checked_div(fields).unwrap_or_default();
    let mut response = Response::new(body::full("a body after a long head"));
    for n in 0..fields {
        let name = HeaderName::from_bytes(format!("x-field-{n}").as_bytes()).expect("letters and digits are a header name");
        // A line has a colon, a blank and an end beside them.
        let value = "v".repeat(usize::try_from(field_bytes).unwrap_or(usize::MAX).saturating_sub(name.as_str().len() + 4));
        response.headers_mut().insert(name, HeaderValue::try_from(value).expect("letters are a header value"));
    }
    Ok(response)
}

async fn upload(query: &Query, mut body: Incoming) -> Result<Response<Body>, Status> {
    tokio::time::sleep(Duration::from_millis(query.number("pause_ms")?.unwrap_or(0))).await;
    let mut digest = Sha256::new();
    let mut n_bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::bad_request(format!("the body broke off after {n_bytes} bytes: {error}")))?;
        if let Some(data) = frame.data_ref() {
            n_bytes += data.len() as u64;
            digest.update(data);
        }
    }
    Ok(body::json(StatusCode::OK, &json!({ "bytes": n_bytes, "sha256": hex(&digest.finalize()) })))
}

fn open(server: &ApiServer) -> Response<Body> {
    body::text(StatusCode::OK, server.n_requests_open().saturating_sub(1).to_string())
}

async fn silent(query: &Query, mut body: Incoming) -> ! {
    // Only who has read a request's body sees its caller leave: hyper as well as Go looks no further ahead.
    while !query.flag("unread") && body.frame().await.is_some_and(|frame| frame.is_ok()) {}
    std::future::pending().await
}

fn deny(server: &ApiServer, unread: Incoming) -> Response<Body> {
    server.host().spawn("unread body", async move {
        tokio::time::sleep(UNREAD_TIME).await;
        drop(unread);
    });
    let mut response = Status::forbidden("denied on purpose").into_response();
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// `bytes` bytes of the pattern, cut into pieces of one buffer.
fn pieces(bytes: u64, pause: Duration) -> impl futures_util::Stream<Item = Bytes> + Send + 'static {
    let piece: Bytes = (0..PIECE_BYTES as u64).map(pattern).collect();
    stream::unfold(bytes, move |left| {
        let piece = piece.clone();
        async move {
            if left == 0 {
                return None;
            }
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
            Some((piece.slice(..now), left - now as u64))
        }
    })
}

fn octets(frames: impl futures_util::Stream<Item = Result<Frame<Bytes>, io::Error>> + Send + 'static) -> Response<Body> {
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
