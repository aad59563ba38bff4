//! A suite: named steps in order, timed, all of them run, all failures told at the end.

use std::time::Instant;

use anyhow::Result;

/// The steps run so far and what came of them.
///
/// `E2E_STEP=TEXT` runs only the steps whose name contains TEXT.
pub struct Suite {
    only: Option<String>,
    failed: Vec<String>,
}

impl Suite {
    /// A suite without steps yet.
    #[expect(clippy::new_without_default, reason = "a default that reads the environment would surprise")]
    pub fn new() -> Self {
        Self { only: std::env::var("E2E_STEP").ok(), failed: Vec::new() }
    }

    /// Runs one step; a failure is told at once and again at the end.
    pub fn step(&mut self, name: &str, run: impl FnOnce() -> Result<()>) {
        if self.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            return;
        }
        self.must(name, run);
    }

    /// Runs a step that later ones stand on, whatever `E2E_STEP` says; tells whether they can.
    pub fn must(&mut self, name: &str, run: impl FnOnce() -> Result<()>) -> bool {
        let start = Instant::now();
        let result = run();
        let seconds = start.elapsed().as_secs_f64();
        match &result {
            Ok(()) => eprintln!("step: {name} ok ({seconds:.1} s)"),
            Err(error) => {
                eprintln!("step: {name} FAILED ({seconds:.1} s): {error:#}");
                self.failed.push(format!("{name}: {error:#}"));
            }
        }
        result.is_ok()
    }

    /// Ends the suite.
    ///
    /// # Panics
    /// When a step has failed, after printing `logs`.
    pub fn finish(self, logs: impl FnOnce() -> String) {
        if self.failed.is_empty() {
            return;
        }
        eprintln!("{}", logs());
        panic!("{} steps failed:\n- {}", self.failed.len(), self.failed.join("\n- "));
    }
}
