//! Faults that last as long as a value lives.

/// A fault that lasts; dropping it undoes it.
#[must_use = "a fault is over as soon as it is dropped"]
pub struct Fault(Option<Box<dyn FnOnce() + Send>>);

impl Fault {
    /// A fault that `undo` ends.
    pub(crate) fn new(undo: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(undo)))
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        if let Some(undo) = self.0.take() {
            undo();
        }
    }
}
