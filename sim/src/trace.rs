//! The transcript: time, who, what. Verbs of the story and log lines of the product, in one column of time.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// More lines than a person reads; what follows is only counted.
const LINES_MAX: usize = 100_000;

/// The name of the span in which all of a machine's program runs.
pub(crate) const MACHINE_SPAN: &str = "machine";

/// What happened in a world. Cheap to clone.
#[derive(Clone)]
pub struct Trace {
    began: Instant,
    shared: Arc<Mutex<Lines>>,
}

#[derive(Default)]
struct Lines {
    lines: Vec<Line>,
    n_dropped: usize,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Since the world began.
    pub at: Duration,
    /// The machine, or `story`.
    pub who: String,
    /// What it did.
    pub what: String,
    /// Whether the product called it an error.
    pub is_error: bool,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.3}s  {:<16} {}", self.at.as_secs_f64(), self.who, self.what)
    }
}

impl Trace {
    /// An empty transcript that begins now.
    pub fn new() -> Self {
        Self { began: Instant::now(), shared: Arc::default() }
    }

    /// Adds an event.
    pub fn tell(&self, who: &str, what: impl Into<String>) {
        self.add(who.to_owned(), what.into(), false);
    }

    /// All events so far.
    pub fn lines(&self) -> Vec<Line> {
        self.lock().lines.clone()
    }

    /// The transcript as people read it; `last` limits the lines.
    pub fn render(&self, last: usize) -> String {
        let lines = self.lock();
        let skipped = lines.lines.len().saturating_sub(last);
        let mut text = String::from("      time  who              what\n");
        for line in &lines.lines[skipped..] {
            let _ = writeln!(text, "{line}");
        }
        if lines.n_dropped > 0 {
            let _ = writeln!(text, "and {} more", lines.n_dropped);
        }
        text
    }

    fn add(&self, who: String, what: String, is_error: bool) {
        let at = self.began.elapsed();
        let mut lines = self.lock();
        if lines.lines.len() < LINES_MAX {
            lines.lines.push(Line { at, who, what, is_error });
        } else {
            lines.n_dropped += 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

/// The machine of a span, kept with it.
struct Machine(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Trace {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        if attributes.metadata().name() == MACHINE_SPAN
            && let Some(span) = ctx.span(id)
        {
            let mut machine = Text::default();
            attributes.record(&mut machine);
            span.extensions_mut().insert(Machine(machine.named));
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::INFO {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let machine = ctx
            .event_scope(event)
            .into_iter()
            .flatten()
            .find_map(|span| span.extensions().get::<Machine>().map(|machine| machine.0.clone()));
        let mark = if level == Level::INFO { String::new() } else { format!("{level} ") };
        let who = machine.unwrap_or_else(|| event.metadata().target().to_owned());
        self.add(who, format!("{mark}{}{}", text.message, text.fields), level == Level::ERROR);
    }
}

/// The message of an event, then its fields.
#[derive(Default)]
struct Text {
    message: String,
    /// The field `name`, which a machine's span has.
    named: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "name" => self.named = format!("{value:?}"),
            other => {
                let _ = write!(self.fields, "  {other}={value:?}");
            }
        }
    }
}
