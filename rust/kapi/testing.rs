// SPDX-License-Identifier: GPL-2.0-only

//! What the KUnit suites share. Only in a module for a kernel with KUnit.
//!
//! `kernel::kunit` has assertions and no more.

mod bios;
mod disk;

use crate::kapi::{
    sync::Completion,
    workqueue::Queue, //
};
use core::{
    fmt::Debug,
    sync::atomic::{
        AtomicBool,
        Ordering, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

pub(crate) use bios::{
    note,
    Bench,
    Ends,
    Note,
    PAGES, //
};
pub(crate) use disk::MemoryDisk;

/// Longer than anything takes that happens at all, on the slowest machine.
pub(crate) const HANG_MS: u32 = 120_000;

/// How long something that must not happen is given to happen. What does right passes whatever this is.
pub(crate) const SHORT_MS: u32 = 50;

/// Waits until `happened` says so; whether it did before [`HANG_MS`]. Process context.
pub(crate) fn until(happened: impl Fn() -> bool) -> bool {
    for _ in 0..HANG_MS {
        if happened() {
            return true;
        }
        fsleep(Delta::from_millis(1));
    }
    false
}

/// Runs `f` on a thread of its own, a worker of `queue`; the completion says that it has returned.
pub(crate) fn begin(queue: &Queue, f: impl FnOnce() + Send + 'static) -> Result<Arc<Completion>> {
    let over = completion()?;
    let theirs = over.clone();
    queue.try_spawn(GFP_KERNEL, move || {
        f();
        theirs.complete_all();
    })?;
    Ok(over)
}

/// A queue for [`begin`].
pub(crate) fn queue() -> Result<Queue> {
    Queue::new(c"imgstream_kunit")
}

/// A [`Completion`] that threads share.
pub(crate) fn completion() -> Result<Arc<Completion>> {
    Arc::pin_init(Completion::new(), GFP_KERNEL)
}

/// Whether `holds` is true of every row of a table; the kernel's log has those of which it is not.
pub(crate) fn every<T: Debug>(
    rows: impl IntoIterator<Item = T>,
    mut holds: impl FnMut(&T) -> bool,
) -> bool {
    let mut all = true;
    for row in rows {
        if !holds(&row) {
            pr_err!("does not hold for {row:?}\n");
            all = false;
        }
    }
    all
}

/// A part of an object under test, whose [`Watch`] sees the object go.
pub(crate) struct Watched(Arc<AtomicBool>);

/// Sees a [`Watched`] go.
pub(crate) struct Watch(Arc<AtomicBool>);

/// A pair of them.
pub(crate) fn watched() -> Result<(Watched, Watch)> {
    let gone = Arc::new(AtomicBool::new(false), GFP_KERNEL)?;
    Ok((Watched(gone.clone()), Watch(gone)))
}

impl Watch {
    /// Whether the object was dropped.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
