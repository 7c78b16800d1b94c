//! Ctrl-C: the first one cancels the running statement, another one (or one while nothing runs) ends the program.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal;
use tokio::sync::Notify;

use crate::exit::Exit;

/// Tells a running statement that it is to stop.
#[derive(Clone, Default)]
pub(crate) struct Interrupt(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Whether a statement runs that has not been cancelled yet.
    running: AtomicBool,
    pressed: Notify,
}

impl Interrupt {
    /// Watches for Ctrl-C from now on. It needs a task of its own: the statement may keep its thread busy (planning,
    /// reading a script), and only a watcher elsewhere can then end the program.
    pub(crate) fn watch(runtime: &tokio::runtime::Handle) -> Self {
        let interrupt = Self::default();
        let shared = Arc::clone(&interrupt.0);
        runtime.spawn(async move {
            while signal::ctrl_c().await.is_ok() {
                if shared.running.swap(false, Ordering::SeqCst) {
                    shared.pressed.notify_waiters();
                } else {
                    process::exit(Exit::Interrupted as i32);
                }
            }
        });
        interrupt
    }

    /// Runs `work` until it ends or is interrupted; `None` means that it was dropped half-way.
    pub(crate) async fn guard<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        // `notify_waiters` keeps no permit, so a press that comes too late for this work does not hit the next.
        let pressed = self.0.pressed.notified();
        self.0.running.store(true, Ordering::SeqCst);
        let done = tokio::select! {
            biased;
            () = pressed => None,
            done = work => Some(done),
        };
        self.0.running.store(false, Ordering::SeqCst);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_press_drops_the_work_and_only_that_work() {
        let interrupt = Interrupt::default();
        assert_eq!(interrupt.guard(async { 1 }).await, Some(1));

        let shared = Arc::clone(&interrupt.0);
        let press = async move {
            assert!(shared.running.swap(false, Ordering::SeqCst));
            shared.pressed.notify_waiters();
            std::future::pending::<()>().await;
        };
        assert_eq!(interrupt.guard(press).await, None);
        assert_eq!(interrupt.guard(async { 2 }).await, Some(2));
    }

    #[tokio::test]
    async fn a_press_as_the_work_ends_does_not_reach_the_next() {
        let interrupt = Interrupt::default();
        let shared = Arc::clone(&interrupt.0);
        let late = async move {
            shared.running.store(false, Ordering::SeqCst);
            shared.pressed.notify_waiters();
        };
        assert_eq!(interrupt.guard(late).await, Some(()));
        let next = async {
            tokio::task::yield_now().await;
            3
        };
        assert_eq!(interrupt.guard(next).await, Some(3));
    }
}
