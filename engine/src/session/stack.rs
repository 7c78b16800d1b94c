//! Room for planning: views and functions are planned inside of what uses them, each level on top of the last one's
//! stack, and a thread of a runtime has little of it.

use std::pin::Pin;
use std::task::{Context, Poll};

/// What one level of planning may need; where less is left, it gets a stack of its own.
const NEEDED: usize = 1 << 20;
const STACK: usize = 4 << 20;

/// Runs `work` on a stack with room for it.
pub(super) fn roomy<F: Future>(work: F) -> Roomy<F> {
    Roomy(Box::pin(work))
}

pub(super) struct Roomy<F>(Pin<Box<F>>);

impl<F: Future> Future for Roomy<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let work = self.0.as_mut();
        stacker::maybe_grow(NEEDED, STACK, || work.poll(context))
    }
}
