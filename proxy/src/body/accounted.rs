//! Bodies under account: whoever keeps it is told how many bytes passed and how it ended.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use super::{Body, BoxError};

/// What is told of a body while it is read. A reader that leaves before the end drops it without a word.
pub trait Account: Send + Unpin + 'static {
    /// That many bytes more have passed.
    fn passed(&mut self, n: u64);
    /// All has passed, or it broke off.
    fn ended(&mut self, end: Result<(), &BoxError>);
}

/// The body under `account`, which lives exactly as long.
pub fn accounted(body: Body, mut account: impl Account) -> Body {
    if body.is_end_stream() {
        account.ended(Ok(()));
    }
    Accounted { body, account }.boxed_unsync()
}

struct Accounted<A> {
    body: Body,
    account: A,
}

impl<A: Account> HttpBody for Accounted<A> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let is_end = self.body.is_end_stream();
        match &frame {
            Some(Ok(frame)) => {
                let n = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.account.passed(n);
                // Nobody asks for another frame then.
                if is_end {
                    self.account.ended(Ok(()));
                }
            }
            Some(Err(error)) => self.account.ended(Err(error)),
            None => self.account.ended(Ok(())),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::body::{empty, full};

    #[derive(Clone, Default)]
    struct Tally(Arc<Mutex<(u64, Option<bool>)>>);

    impl Account for Tally {
        fn passed(&mut self, n: u64) {
            self.0.lock().unwrap().0 += n;
        }

        fn ended(&mut self, end: Result<(), &BoxError>) {
            self.0.lock().unwrap().1 = Some(end.is_ok());
        }
    }

    impl Tally {
        fn told(&self) -> (u64, Option<bool>) {
            *self.0.lock().unwrap()
        }
    }

    #[tokio::test]
    async fn a_body_is_told_whole_broken_or_left_alone() {
        let [whole, nothing, broken, left] = [(); 4].map(|()| Tally::default());
        accounted(full("abc"), whole.clone()).collect().await.expect("whole");
        assert_eq!(whole.told(), (3, Some(true)));
        drop(accounted(empty(), nothing.clone()));
        assert_eq!(nothing.told(), (0, Some(true)), "there is nothing to wait for");
        drop(accounted(full("abc"), left.clone()));
        assert_eq!(left.told(), (0, None));
        let failing = Failing(vec![Err("gone".into()), Ok(Frame::data(Bytes::from_static(b"ab")))]);
        accounted(failing.boxed_unsync(), broken.clone()).collect().await.expect_err("broken");
        assert_eq!(broken.told(), (2, Some(false)));
    }

    struct Failing(Vec<Result<Frame<Bytes>, BoxError>>);

    impl HttpBody for Failing {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Poll::Ready(self.0.pop())
        }
    }
}
