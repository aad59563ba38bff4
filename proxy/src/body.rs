//! Bodies of requests and answers: one boxed type for all of them, limits on their length and on their pauses, and accounts.

mod accounted;
mod patience;

use std::error::Error;

use bytes::Bytes;
use http::Request;
use http::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};

pub use accounted::{Account, accounted};
pub use patience::{Stalled, patient, stalled};

/// Whatever made a body end early.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Any body, streamed frame by frame.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body that is all there.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// No body.
pub fn empty() -> Body {
    full(Bytes::new())
}

/// Says that a body of unknown length is chunked: without it HTTP/1.1 has no body on a GET or DELETE, and the bytes would
/// be lost in silence.
pub fn announce_length<B: http_body::Body>(request: &mut Request<B>) {
    let is_unknown = !request.body().is_end_stream() && request.body().size_hint().exact().is_none();
    if is_unknown && !request.headers().contains_key(CONTENT_LENGTH) {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// The body was announced longer than its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is longer than {max} bytes")]
pub struct TooLarge {
    /// The limit.
    pub max: usize,
}

/// A body that ends with an error at the first byte past `max`; [`is_too_large`] knows that error.
///
/// # Errors
/// When the length is known beforehand and over the limit: nothing need be sent then.
pub fn limited<B>(body: B, max: usize) -> Result<Body, TooLarge>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > max { Err(TooLarge { max }) } else { Ok(Limited::new(body, max).boxed_unsync()) }
}

/// Whether an error, or one that it stems from, is that of a body past its limit.
pub fn is_too_large(error: &(dyn Error + 'static)) -> bool {
    error.is::<LengthLimitError>() || error.source().is_some_and(is_too_large)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http_body::Frame;

    use super::*;

    #[tokio::test]
    async fn a_body_at_its_limit_passes_whole() {
        let body = limited(unannounced(&["abc", "de"]), 5).expect("no length announced");
        assert_eq!(body.collect().await.expect("whole").to_bytes(), "abcde");
    }

    #[tokio::test]
    async fn a_body_past_its_limit_ends_with_an_error_that_can_be_told() {
        let body = limited(unannounced(&["abc", "def"]), 5).expect("no length announced");
        let error = body.collect().await.expect_err("too large");
        assert!(is_too_large(&*error));
        assert!(!is_too_large(&std::io::Error::other("else")));
    }

    #[test]
    fn an_announced_length_past_the_limit_is_refused_at_once() {
        assert_eq!(limited(full("abcdef"), 5).err(), Some(TooLarge { max: 5 }));
        assert!(limited(full("abcde"), 5).is_ok());
    }

    fn unannounced(chunks: &[&'static str]) -> Chunks {
        Chunks(chunks.iter().map(|chunk| Bytes::from_static(chunk.as_bytes())).collect())
    }

    struct Chunks(VecDeque<Bytes>);

    impl http_body::Body for Chunks {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Poll::Ready(self.0.pop_front().map(|chunk| Ok(Frame::data(chunk))))
        }
    }
}
