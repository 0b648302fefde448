//! What is undone if it is not finished.

/// Runs this when dropped, unless it was [finished](Self::finished): on an error, and when the future
/// that holds it is dropped.
#[must_use]
pub(in crate::backend) struct Undo<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Undo<F> {
    pub(in crate::backend) fn new(undo: F) -> Self {
        Self(Some(undo))
    }

    /// There is nothing to undo any more.
    pub(in crate::backend) fn finished(mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for Undo<F> {
    fn drop(&mut self) {
        if let Some(undo) = self.0.take() {
            undo();
        }
    }
}
