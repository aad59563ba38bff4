//! Logs: JSON lines on standard error, one object an event. Traces are beside them.

mod collector;
mod export;
mod parent;
mod traces;

use std::str::FromStr;

use tracing_subscriber::filter::LevelFilter;

pub use export::METRICS as TRACE_METRICS;
pub use parent::{TRACEPARENT, TraceParent};
pub use traces::{Span, SpanKind, TraceConfig, Tracer};

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Every frame-level decision.
    Debug,
    /// One line per request and per change of a session.
    #[default]
    Info,
    /// What may become a problem.
    Warn,
    /// What a person should look at.
    Error,
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "debug" => Ok(Self::Debug),
            "info" => Ok(Self::Info),
            "warn" => Ok(Self::Warn),
            "error" => Ok(Self::Error),
            other => Err(format!("{other:?} is not one of debug, info, warn, error")),
        }
    }
}

/// Starts logging for this process. Only the first call of a process counts.
pub fn init_logging(level: LogLevel) {
    let filter = match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    // An error means that logging runs already, in a test, say.
    let _ = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        // The list of spans has it too, as its last.
        .with_current_span(false)
        .with_max_level(filter)
        .with_writer(std::io::stderr)
        .try_init();
}
