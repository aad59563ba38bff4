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
use tunnel::{Reason, TunnelStream};

use framing::{Framing, Step};

/// Bytes taken from the stream at once: one frame's.
const CHUNK_MAX: usize = 32 * 1024;

/// A piece shorter than this is copied: it would hold the buffer that it lies in, and a caller that reads slowly has it
/// wait, counted by its own length.
const COPY_MAX: usize = 4 * 1024;

/// Why there is no answer, or not all of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
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
pub(crate) async fn ask(mut stream: TunnelStream, request: Request<Body>) -> Result<Response<Body>, AskError> {
    let (parts, _) = request.into_parts();
    let written = stream.write_all(&head::encode(&parts)).await;
    let mut rest = Bytes::new();
    let (response, framing) = match (read_head(&mut stream, &mut rest, &parts.method).await, written) {
        (Ok(head), _) => head,
        // Who refuses a head may have answered before its end.
        (Err(_), Err(error)) => return Err(AskError::Stream(error)),
        (Err(error), Ok(())) => return Err(error),
    };
    Ok(response.map(|()| Answer { stream, rest, framing }.boxed_unsync()))
}

/// Reads up to the end of the final head, and what came with it.
async fn read_head(stream: &mut TunnelStream, rest: &mut Bytes, method: &Method) -> Result<(Response<()>, Framing), AskError> {
    // Looked at already: a head that trickles is not parsed at every byte.
    let mut seen = 0;
    loop {
        if !poll_fn(|cx| poll_more(stream, rest, cx)).await? {
            return Err(AskError::Incomplete);
        }
        if head::ends_in(rest.get(seen..).unwrap_or_default())
            && let Some(found) = head::parse(rest, method)?
        {
            return Ok(found);
        }
        if rest.len() > INNER_HEAD_BUFFER {
            return Err(AskError::TooLong);
        }
        seen = rest.len().saturating_sub(head::END_MAX - 1);
    }
}

/// Adds what came to `rest`; false at the end.
fn poll_more(stream: &mut TunnelStream, rest: &mut Bytes, cx: &mut Context<'_>) -> Poll<Result<bool, AskError>> {
    if rest.is_empty() {
        // Empty, it would go on holding what it was cut from, for as long as nothing comes.
        *rest = Bytes::new();
    }
    let came = ready!(stream.poll_chunk(CHUNK_MAX, cx)).map_err(AskError::Stream)?;
    let is_end = came.is_empty();
    if rest.is_empty() {
        *rest = came;
    } else if !is_end {
        // A line that came in pieces. From the second on, the buffer is ours alone and grows as one.
        let mut joined = std::mem::take(rest).try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
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

impl Drop for Answer {
    /// Who has all says so: an agent can tell it from a caller that left.
    fn drop(&mut self) {
        if self.framing.is_over() {
            self.stream.reset(Reason::Done, "");
        }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { stream, rest, framing } = &mut *self;
        loop {
            match framing.step(rest)? {
                Step::Data(bytes) => {
                    let bytes = if bytes.len() < COPY_MAX { Bytes::copy_from_slice(&bytes) } else { bytes };
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
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
