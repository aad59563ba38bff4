//! A turnstile: of many who are ready for heavy work, one at a time does a piece of it.
//!
//! A fleet that comes back shakes hands thousands of times, each about a millisecond of arithmetic. If all of them stood in
//! line with whatever else is ready to run, a request would wait behind them at every one of its steps.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use tokio::sync::Semaphore;

/// Lines to stand in: a handshake has a piece or two before its last. Who has begun stands in a line of its own, or nobody
/// would end before all have begun, and then too late.
const LINES: usize = 3;

pub(crate) struct Turnstile([Semaphore; LINES]);

impl Turnstile {
    pub(crate) fn new() -> Self {
        Self([(); LINES].map(|()| Semaphore::new(1)))
    }

    /// Does `work`, with everybody else's in turn: each poll of it is a piece. What waits for the network holds up nobody.
    pub(crate) async fn pass<F: Future>(&self, work: F) -> F::Output {
        let mut work = pin!(work);
        let mut n_pieces = 0;
        loop {
            // The semaphores are never closed.
            let turn = self.0[n_pieces.min(LINES - 1)].acquire().await;
            n_pieces += 1;
            let piece = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
            drop(turn);
            if let Poll::Ready(done) = piece {
                return done;
            }
            let mut waits = true;
            // The piece has left our waker where it will be woken.
            poll_fn(|_| if std::mem::take(&mut waits) { Poll::Pending } else { Poll::Ready(()) }).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn who_waits_in_its_work_holds_up_nobody() {
        let turnstile = Turnstile::new();
        let order = Cell::new(Vec::new());
        let tell = |name| {
            let mut told = order.take();
            told.push(name);
            order.set(told);
        };
        let answer = tokio::sync::Notify::new();
        let slow = turnstile.pass(async {
            tell("slow begins");
            answer.notified().await;
            tell("slow ends");
        });
        let quick = turnstile.pass(async {
            tell("quick begins");
            tokio::task::yield_now().await;
            tell("quick ends");
            answer.notify_one();
        });
        tokio::join!(biased; slow, quick);
        assert_eq!(order.take(), ["slow begins", "quick begins", "quick ends", "slow ends"]);
    }
}
