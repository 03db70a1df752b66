// SPDX-License-Identifier: GPL-2.0-only

//! Runs the tasks of a model one step at a time, in an order that the seed decides.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::rng::Rng;

/// A task: what one user of the device, or one part of it, does.
pub type Task = Pin<Box<dyn Future<Output = ()>>>;

struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}

/// The tasks that have not ended.
#[derive(Default)]
pub struct Tasks(Vec<Task>);

impl Tasks {
    /// Adds a task.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + 'static) {
        self.0.push(Box::pin(task));
    }

    /// Whether all have ended.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets one task go on as far as it can.
    pub fn step(&mut self, rng: &Rng) {
        let index = rng.index(self.0.len());
        let waker = Waker::from(Arc::new(Nobody));
        let done = self.0[index]
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_ready();
        if done {
            drop(self.0.swap_remove(index));
        }
    }
}

/// Lets others run once.
pub async fn pause() {
    let been = Cell::new(false);
    std::future::poll_fn(|_| {
        if been.replace(true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// Waits until `ready` says something.
pub async fn until<T>(mut ready: impl FnMut() -> Option<T>) -> T {
    std::future::poll_fn(|_| match ready() {
        Some(value) => Poll::Ready(value),
        None => Poll::Pending,
    })
    .await
}
