//! Bodies in and out.

use std::io;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::Value;

use super::protobuf;
use super::status::Status;

/// An answer's body; an error breaks the connection (or resets the stream) in the middle of it.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What a real API server takes (`--max-resource-write-bytes` default, 3 MiB).
pub(crate) const OBJECT_BYTES_MAX: usize = 3 * 1024 * 1024;

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn json(code: StatusCode, value: &impl Serialize) -> Response<Body> {
    let bytes = serde_json::to_vec(value).expect("values of this crate have text keys only");
    with_type(code, "application/json", bytes)
}

pub(crate) fn text(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    with_type(code, "text/plain; charset=utf-8", text)
}

/// As Go's `http.Error` answers.
pub(crate) fn plain_error(code: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = self::text(code, text);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

pub(crate) fn with_type(code: StatusCode, media_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// Reads a request's body whole, up to [`OBJECT_BYTES_MAX`].
pub(crate) async fn read(body: Incoming) -> Result<Bytes, Status> {
    match Limited::new(body, OBJECT_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Status::too_large(OBJECT_BYTES_MAX)),
        Err(error) => Err(Status::bad_request(format!("unable to read the body: {error}"))),
    }
}

/// Reads the object in a request's body: JSON, also without a type, or the protobuf of typed clients.
pub(crate) async fn read_object(request: Request<Incoming>) -> Result<Value, Status> {
    let media_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
    match media_type.as_str() {
        "application/json" | "" => {
            let bytes = read(request.into_body()).await?;
            serde_json::from_slice(&bytes)
                .map_err(|error| Status::bad_request(format!("the object provided is unrecognized: {error}")))
        }
        protobuf::MEDIA_TYPE => protobuf::decode(&read(request.into_body()).await?),
        other => Err(Status::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: application/json, {}; got {other}",
            protobuf::MEDIA_TYPE
        ))),
    }
}
