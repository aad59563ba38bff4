//! A machine that runs one program, ends it in all the ways programs end, and starts it again.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::{Drain, DrainSwitch, Host, Tasks};
use tokio::time::Instant;
use tracing::Instrument;

use crate::fabric::Fabric;
use crate::host::{Disk, SimHost};
use crate::seed::Seed;
use crate::trace::{MACHINE_SPAN, Trace};

/// What a program's main returns: a word on why it could not go on, if so.
pub type Ending = Result<(), String>;

/// A program: given a host and a drain, it runs until it is drained.
pub type Program = Arc<dyn Fn(Host, Drain) -> Pin<Box<dyn Future<Output = Ending> + Send>> + Send + Sync>;

/// A program that makes one attempt after another, with a `pause` after each, until it is drained.
pub(crate) fn persistent(
    pause: Duration,
    attempt: impl Fn(Host) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync + 'static,
) -> Program {
    let attempt = Arc::new(attempt);
    Arc::new(move |host, mut drain| {
        let attempt = attempt.clone();
        Box::pin(async move {
            loop {
                tokio::select! {
                    biased;
                    () = drain.started() => {
                        host.tasks().abort_all();
                        return Ok(());
                    }
                    () = attempt(host.clone()) => {}
                }
                tokio::time::sleep(pause).await;
            }
        })
    })
}

/// The panics of a world's tasks: name and message.
pub(crate) type Panics = Arc<dyn Fn(String) + Send + Sync>;

/// One machine of a world.
pub struct Machine {
    name: String,
    fabric: Fabric,
    trace: Trace,
    disk: Arc<Disk>,
    program: Program,
    panics: Panics,
    running: Mutex<Option<Running>>,
    pauses: Mutex<Vec<Pause>>,
}

/// A time in which a machine did nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pause {
    pub(crate) at: Instant,
    pub(crate) until: Option<Instant>,
}

struct Running {
    tasks: Tasks,
    drain: DrainSwitch,
    is_drained: bool,
}

impl Machine {
    /// Adds a machine to the fabric; nothing runs on it yet.
    pub(crate) fn new(name: &str, fabric: Fabric, trace: Trace, seed: Seed, panics: Panics, program: Program) -> Self {
        fabric.add_machine(name);
        let disk = Arc::new(Disk::new(seed.split(name).dice()));
        Self { name: name.to_owned(), fabric, trace, disk, program, panics, running: Mutex::default(), pauses: Mutex::default() }
    }

    /// Its name, as `place/program`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its files and its clock.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Starts the program, anew if one ran before.
    pub fn start(&self) {
        self.end_pauses();
        let host = self.host();
        let (switch, drain) = DrainSwitch::new();
        let main = (self.program)(host.clone(), drain);
        let (name, trace) = (self.name.clone(), self.trace.clone());
        let main = async move {
            match main.await {
                Ok(()) => trace.tell(&name, "ended"),
                Err(why) => trace.tell(&name, format!("ended: {why}")),
            }
        };
        // The span goes around `main` and, as tasks inherit it, around all that `main` starts.
        let span = tracing::error_span!(MACHINE_SPAN, name = %self.name);
        let tasks = host.tasks().clone();
        span.in_scope(|| tasks.spawn("main", main.in_current_span()));
        *self.running() = Some(Running { tasks, drain: switch, is_drained: false });
    }

    /// A host of this machine for a program that lives outside of it: a caller, or a server more than the world has.
    pub fn host(&self) -> Host {
        let incarnation = self.fabric.power_on(&self.name);
        let (name, panics) = (self.name.clone(), self.panics.clone());
        let tasks = Tasks::with_panic_hook(move |task, message| panics(format!("task {task} of {name} panicked: {message}")));
        let system = SimHost::new(self.fabric.clone(), &self.name, incarnation, self.disk.clone(), self.trace.clone());
        Host::new(Arc::new(system), tasks)
    }

    /// Ends the program at once; its peers get resets (SIGKILL, out of memory).
    pub fn crash(&self) {
        self.fabric.crash(&self.name);
        self.abort();
    }

    /// Ends the machine at once; nobody is told (a power loss).
    pub fn vanish(&self) {
        self.fabric.vanish(&self.name);
        self.abort();
        self.disk.lose_power();
        self.pauses().push(Pause { at: Instant::now(), until: None });
    }

    /// Stops polling its tasks; sockets and timers stay (SIGSTOP, a starved container).
    pub fn pause(&self) {
        if let Some(running) = &*self.running() {
            running.tasks.pause();
            self.pauses().push(Pause { at: Instant::now(), until: None });
        }
    }

    /// Polls its tasks again.
    pub fn resume(&self) {
        if let Some(running) = &*self.running() {
            running.tasks.resume();
        }
        self.end_pauses();
    }

    /// Asks the program to finish what runs and end (SIGTERM).
    pub fn drain(&self) {
        if let Some(running) = &mut *self.running() {
            running.is_drained = true;
            running.drain.start();
        }
    }

    /// Whether a program runs here that can be asked: one that is not paused and does not end.
    pub(crate) fn is_at_work(&self) -> bool {
        self.running().as_ref().is_some_and(|it| it.tasks.n_live() > 0 && !it.is_drained)
            && self.all_pauses().iter().all(|pause| pause.until.is_some())
    }

    /// All times in which it was paused or without power, in turn: nobody there could say so.
    pub(crate) fn all_pauses(&self) -> Vec<Pause> {
        self.pauses().clone()
    }

    /// The names of its live tasks, sorted; none when nothing runs.
    pub fn tasks(&self) -> Vec<&'static str> {
        self.running().as_ref().map(|running| running.tasks.names()).unwrap_or_default()
    }

    fn abort(&self) {
        if let Some(running) = self.running().take() {
            running.tasks.abort_all();
        }
        self.end_pauses();
    }

    fn end_pauses(&self) {
        for pause in &mut *self.pauses() {
            pause.until.get_or_insert_with(Instant::now);
        }
    }

    fn pauses(&self) -> MutexGuard<'_, Vec<Pause>> {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
