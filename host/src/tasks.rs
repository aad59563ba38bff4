//! Tasks: nothing is spawned elsewhere, so that all can be counted, paused, aborted, and a panic ends the process.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::task::AbortHandle;
use tracing::Instrument;

type OnPanic = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// The tasks of one host. Cheap to clone; clones share the count.
#[derive(Clone)]
pub struct Tasks {
    shared: Arc<Shared>,
}

struct Shared {
    next: AtomicU64,
    /// Changed under the lock of `state`, and looked at without it: every poll of every task asks.
    paused: AtomicBool,
    /// Set by `abort_all`: what is spawned afterwards never runs, as on a machine without power.
    dead: AtomicBool,
    state: Mutex<State>,
    on_panic: OnPanic,
}

#[derive(Default)]
struct State {
    live: BTreeMap<u64, (&'static str, AbortHandle)>,
    gated: Vec<Waker>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// Tasks whose panic ends the process with exit code 70 (EX_SOFTWARE, sysexits.h): a half-dead process that still
    /// answers its health checks is worse than a restart.
    pub fn new() -> Self {
        Self::with_panic_hook(|name, message| {
            tracing::error!(task = name, message, "a task panicked; ending the process");
            std::process::exit(70);
        })
    }

    /// Tasks whose panic is told to `on_panic(name, message)` instead of ending the process.
    pub fn with_panic_hook(on_panic: impl Fn(&str, &str) + Send + Sync + 'static) -> Self {
        let on_panic = Arc::new(on_panic);
        let (next, paused, dead) = Default::default();
        Self { shared: Arc::new(Shared { next, paused, dead, state: Mutex::default(), on_panic }) }
    }

    /// Runs `future` as a task named `name`, inside the current span.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        if self.shared.dead.load(Ordering::Acquire) {
            return;
        }
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let tracked = Tracked { id, name, shared: self.shared.clone(), future: Box::pin(future) };
        #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
        let handle = tokio::spawn(tracked.in_current_span()).abort_handle();
        let mut state = self.state();
        if self.shared.dead.load(Ordering::Acquire) {
            // The power went while it was being started.
            handle.abort();
            return;
        }
        // A task that ended before this line has nobody left to remove it.
        if !handle.is_finished() {
            state.live.insert(id, (name, handle));
        }
    }

    /// How many tasks are alive.
    pub fn n_live(&self) -> usize {
        let mut state = self.state();
        state.live.retain(|_, (_, handle)| !handle.is_finished());
        state.live.len()
    }

    /// The names of the live tasks, sorted.
    pub fn names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> =
            self.state().live.values().filter(|(_, handle)| !handle.is_finished()).map(|(name, _)| *name).collect();
        names.sort_unstable();
        names
    }

    /// Stops polling every task until [`Tasks::resume`]; sockets and timers stay (SIGSTOP).
    pub fn pause(&self) {
        let _state = self.state();
        self.shared.paused.store(true, Ordering::Release);
    }

    /// Polls again.
    pub fn resume(&self) {
        let gated = {
            let mut state = self.state();
            self.shared.paused.store(false, Ordering::Release);
            std::mem::take(&mut state.gated)
        };
        gated.into_iter().for_each(Waker::wake);
    }

    /// Aborts every task and lets no new one start (SIGKILL).
    pub fn abort_all(&self) {
        let live = {
            let mut state = self.state();
            self.shared.dead.store(true, Ordering::Release);
            std::mem::take(&mut state.live)
        };
        for (_, handle) in live.into_values() {
            handle.abort();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        self.spawn("http", async move {
            future.await;
        });
    }
}

struct Tracked {
    id: u64,
    name: &'static str,
    shared: Arc<Shared>,
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Future for Tracked {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.shared.paused.load(Ordering::Acquire) {
            let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            // It may have been resumed since.
            if self.shared.paused.load(Ordering::Acquire) {
                state.gated.push(cx.waker().clone());
                return Poll::Pending;
            }
        }
        let future = self.future.as_mut();
        match std::panic::catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(poll) => poll,
            Err(panic) => {
                (self.shared.on_panic)(self.name, &panic_message(&*panic));
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).live.remove(&self.id);
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_finished_task_is_no_longer_counted() {
        let tasks = Tasks::new();
        let (done, wait) = tokio::sync::oneshot::channel();
        tasks.spawn("short", async move {
            let _ = done.send(());
        });
        wait.await.expect("task ran");
        tokio::task::yield_now().await;
        assert_eq!(tasks.n_live(), 0);
    }

    #[tokio::test]
    async fn a_panic_is_told_with_its_task_and_message() {
        let (tell, told) = std::sync::mpsc::channel();
        let tasks = Tasks::with_panic_hook(move |name, message| {
            let _ = tell.send(format!("{name}: {message}"));
        });
        tasks.spawn("fragile", async { panic!("as planned") });
        tokio::task::yield_now().await;
        assert_eq!(told.try_recv().as_deref(), Ok("fragile: as planned"));
    }

    #[tokio::test]
    async fn a_paused_task_runs_only_after_resume() {
        let tasks = Tasks::new();
        let (done, mut wait) = tokio::sync::oneshot::channel();
        tasks.pause();
        tasks.spawn("waiting", async move {
            let _ = done.send(());
        });
        tokio::task::yield_now().await;
        assert!(wait.try_recv().is_err());
        tasks.resume();
        wait.await.expect("task ran");
    }
}
