//! A gate in front of a store, at which one operation can be made to wait, so that a test decides what happens
//! meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use object_store::ObjectStore;
use object_store::path::Path;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::fault::Op;
use super::intercept::{Intercept, Request};

/// What an operation does to its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

type Stop = Box<dyn Fn(Access, &Path) -> bool + Send + Sync>;

/// The gate.
#[derive(Default)]
pub(crate) struct Gate {
    stop: Mutex<Option<Stop>>,
    waits: AtomicBool,
    came: Notify,
    opened: Notify,
}

impl Gate {
    /// A gate that nobody waits at yet, and the way through it to `store`.
    pub(crate) fn before(store: Arc<dyn ObjectStore>) -> (Arc<Self>, Arc<Intercept>) {
        let gate = Arc::new(Self::default());
        let passed = Arc::clone(&gate);
        let way = Intercept::new(store, move |request| {
            let gate = Arc::clone(&passed);
            async move {
                gate.pass(&request).await;
                Ok(())
            }
            .boxed()
        });
        (gate, way)
    }

    /// The next operation that `stop` names will wait before it is done; those after it will not.
    pub(crate) fn close(&self, stop: impl Fn(Access, &Path) -> bool + Send + Sync + 'static) {
        *self.stop.lock() = Some(Box::new(stop));
    }

    /// Whether an operation came to the gate and waits; `false` when someone said that none will.
    pub(crate) async fn came(&self) -> bool {
        self.came.notified().await;
        self.waits.load(Ordering::Acquire)
    }

    /// Says that no operation will come to the gate any more.
    pub(crate) fn none_will_come(&self) {
        *self.stop.lock() = None;
        self.came.notify_one();
    }

    /// Lets the operation that waits go on.
    pub(crate) fn open(&self) {
        self.opened.notify_one();
    }

    async fn pass(&self, request: &Request) {
        let access = match request.op {
            Op::Get => Access::Read,
            Op::Create | Op::Put | Op::MultipartStart => Access::Write,
            // Deletes and listings pass, as do the parts of an upload that has begun.
            _ => return,
        };
        let waits = {
            let mut stop = self.stop.lock();
            let named = stop
                .as_ref()
                .is_some_and(|stop| stop(access, &request.path));
            if named {
                *stop = None;
            }
            named
        };
        if waits {
            self.waits.store(true, Ordering::Release);
            self.came.notify_one();
            self.opened.notified().await;
        }
    }
}
