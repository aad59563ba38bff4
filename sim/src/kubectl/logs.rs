//! `kubectl logs -f`: read line by line, or by somebody who reads slowly.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::caller::{Answer, Caller};

/// A `logs -f` that is not begun yet.
#[must_use = "nothing is followed until it is started"]
pub struct LogsFollow {
    caller: Caller,
    cluster: String,
    pod: String,
    bytes_per_second: Option<u64>,
}

/// A log that is being read beside the story. Dropping it ends the request.
pub struct Logs {
    seen: Arc<Mutex<Seen>>,
    _stop: oneshot::Sender<()>,
}

#[derive(Default)]
struct Seen {
    n_bytes: usize,
    n_lines: usize,
    /// How it ended, in words.
    end: Option<String>,
}

impl LogsFollow {
    pub(super) fn new(caller: &Caller, cluster: &str, pod: &str) -> Self {
        Self { caller: caller.clone(), cluster: cluster.to_owned(), pod: pod.to_owned(), bytes_per_second: None }
    }

    /// Reads so many bytes per second at most.
    pub fn slow_reader(mut self, bytes_per_second: u64) -> Self {
        self.bytes_per_second = Some(bytes_per_second);
        self
    }

    /// Sends the request and goes on reading in the background.
    ///
    /// # Errors
    /// It was not answered with 200.
    pub async fn start(self) -> anyhow::Result<Logs> {
        let path = format!("/api/v1/namespaces/default/pods/{}/log?follow=true", self.pod);
        let answer = self.caller.get(&self.cluster, &path).open().await?;
        anyhow::ensure!(answer.status == http::StatusCode::OK, "the log got {}", answer.status);
        let (stop, mut stopped) = oneshot::channel();
        let seen = Arc::<Mutex<Seen>>::default();
        let reading = read(answer, self.bytes_per_second, seen.clone());
        self.caller.host().spawn("kubectl logs", async move {
            tokio::select! {
                biased;
                _ = &mut stopped => {}
                () = reading => {}
            }
        });
        Ok(Logs { seen, _stop: stop })
    }
}

impl Logs {
    /// How many whole lines came; that they came once and in order is looked at by a checker.
    pub fn n_lines(&self) -> usize {
        self.look(|seen| seen.n_lines)
    }

    /// How many bytes came.
    pub fn n_bytes(&self) -> usize {
        self.look(|seen| seen.n_bytes)
    }

    /// How it ended, in words, if it has.
    pub fn end(&self) -> Option<String> {
        self.look(|seen| seen.end.clone())
    }

    /// Fails if it has ended.
    ///
    /// # Errors
    /// How it ended.
    pub fn expect_still_open(&self) -> anyhow::Result<()> {
        self.end().map_or(Ok(()), |end| Err(anyhow::anyhow!("the log has ended: {end}")))
    }

    fn look<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn read(mut answer: Answer, bytes_per_second: Option<u64>, seen: Arc<Mutex<Seen>>) {
    let look = |look: &mut dyn FnMut(&mut Seen)| look(&mut seen.lock().unwrap_or_else(PoisonError::into_inner));
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => {
                look(&mut |seen| {
                    seen.n_bytes += chunk.len();
                    seen.n_lines += chunk.iter().filter(|byte| **byte == b'\n').count();
                });
                if let Some(speed) = bytes_per_second {
                    tokio::time::sleep(Duration::from_secs_f64(chunk.len() as f64 / speed as f64)).await;
                }
            }
            Ok(None) => return look(&mut |seen| seen.end = Some("as if whole".to_owned())),
            Err(error) => return look(&mut |seen| seen.end = Some(format!("{error:#}"))),
        }
    }
}
