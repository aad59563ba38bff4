//! A request without a body and its answer, as one HTTP/1.1 exchange in one stream.
//!
//! Most requests are these, and watches among them wait for hours: an answer holds no buffer while nothing comes, and its
//! bytes are passed on as they were received. What sends a body or may switch protocols is hyper's (`exchange`).

mod framing;
mod head;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use proxy::body::{Body, BoxError};
use proxy::head::INNER_HEAD_BUFFER;
use tokio::io::AsyncWriteExt;
use tunnel::TunnelStream;

use framing::{Framing, Step};

/// Bytes taken from the stream at once: one frame's.
const CHUNK_MAX: usize = 32 * 1024;

/// Why there is no answer, or not all of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("the stream broke off")]
    Stream(#[source] io::Error),
    #[error("the answer ended before it was whole")]
    Incomplete,
    #[error("the answer is no HTTP/1.1: {0}")]
    Malformed(&'static str),
    #[error("the head of the answer is longer than {INNER_HEAD_BUFFER} bytes")]
    TooLong,
}

/// Whether `request` can be asked here: it sends nothing behind its head and switches to nothing.
pub(super) fn can_ask(request: &Request<Body>, may_switch: bool) -> bool {
    !may_switch && matches!(*request.method(), Method::GET | Method::HEAD) && request.body().is_end_stream()
}

/// Sends `request` and waits for the head of its answer. Dropping the answer cancels what is not finished.
pub(super) async fn ask(mut stream: TunnelStream, request: Request<Body>) -> Result<Response<Body>, AskError> {
    let (parts, _) = request.into_parts();
    stream.write_all(&head::encode(&parts)).await.map_err(AskError::Stream)?;
    let mut rest = Bytes::new();
    loop {
        if !more(&mut stream, &mut rest).await? {
            return Err(AskError::Incomplete);
        }
        if let Some((response, framing)) = head::parse(&mut rest, &parts.method)? {
            return Ok(response.map(|()| Answer { stream, rest, framing }.boxed_unsync()));
        }
        if rest.len() > INNER_HEAD_BUFFER {
            return Err(AskError::TooLong);
        }
    }
}

async fn more(stream: &mut TunnelStream, rest: &mut Bytes) -> Result<bool, AskError> {
    poll_fn(|cx| poll_more(stream, rest, cx)).await
}

/// Adds what came to `rest`; false at the end.
fn poll_more(stream: &mut TunnelStream, rest: &mut Bytes, cx: &mut Context<'_>) -> Poll<Result<bool, AskError>> {
    let came = ready!(stream.poll_chunk(CHUNK_MAX, cx)).map_err(AskError::Stream)?;
    let is_end = came.is_empty();
    if rest.is_empty() {
        *rest = came;
    } else if !is_end {
        // A line that came in pieces.
        let mut joined = BytesMut::with_capacity(rest.len() + came.len());
        joined.extend_from_slice(rest);
        joined.extend_from_slice(&came);
        *rest = joined.freeze();
    }
    Poll::Ready(Ok(!is_end))
}

/// The body of an answer as it comes.
struct Answer {
    stream: TunnelStream,
    /// Received and not yet passed on.
    rest: Bytes,
    framing: Framing,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { stream, rest, framing } = &mut *self;
        loop {
            match framing.step(rest)? {
                Step::Data(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Step::Trailers(trailers) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Step::Over => return Poll::Ready(None),
                Step::More => {
                    if !ready!(poll_more(stream, rest, cx))? {
                        framing.end()?;
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.framing.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.framing.size_hint()
    }
}
