//! The process itself: its runtime, its signals, its end.

use std::future::Future;
use std::io::Write;
use std::num::NonZero;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{Drain, DrainSwitch, Host};

/// A bug, in the words of sysexits.h.
const EX_SOFTWARE: u8 = 70;

/// How many threads serve a process's tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// One for every two CPUs, and at least one: a request is handed from task to task, and threads that hand it to each
    /// other spend more on waking than they gain (BENCHMARKS.md).
    HalfOfCpus,
    /// So many.
    Exactly(usize),
}

impl Workers {
    fn count(self) -> usize {
        match self {
            Self::HalfOfCpus => (std::thread::available_parallelism().map_or(1, NonZero::get) / 2).max(1),
            Self::Exactly(count) => count.max(1),
        }
    }
}

/// Runs a program on this machine until its future ends. SIGTERM or SIGINT starts its drain, a second one ends the
/// process at once.
pub fn run_process<F: Future>(name: &'static str, workers: Workers, program: impl FnOnce(Host, Drain) -> F) -> F::Output {
    let worker_threads = workers.count();
    let mut builder = match worker_threads {
        // Alone it needs no queue that others could take from.
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = match builder.worker_threads(worker_threads).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => exit(name, EX_SOFTWARE, &format!("no runtime: {error}")),
    };
    runtime.block_on(async {
        let (switch, drain) = DrainSwitch::new();
        let host = Host::real();
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(terminate), Ok(interrupt)) => host.spawn("signals", watch_signals(name, terminate, interrupt, switch)),
            (Err(error), _) | (_, Err(error)) => exit(name, EX_SOFTWARE, &format!("no signals: {error}")),
        }
        program(host, drain).await
    })
}

async fn watch_signals(name: &'static str, mut terminate: Signal, mut interrupt: Signal, switch: DrainSwitch) {
    let first = next_signal(&mut terminate, &mut interrupt).await.0;
    tracing::info!(signal = first, "draining; a second signal exits at once");
    switch.start();
    let (second, code) = next_signal(&mut terminate, &mut interrupt).await;
    exit(name, code, &format!("{second} cut the drain short"))
}

/// Its name, and the exit code that a shell gives to who died of it.
async fn next_signal(terminate: &mut Signal, interrupt: &mut Signal) -> (&'static str, u8) {
    tokio::select! {
        biased;
        _ = terminate.recv() => ("SIGTERM", 128 + 15),
        _ = interrupt.recv() => ("SIGINT", 128 + 2),
    }
}

fn exit(name: &str, code: u8, why: &str) -> ! {
    let _ = writeln!(std::io::stderr(), "{name}: {why}");
    std::process::exit(code.into())
}
