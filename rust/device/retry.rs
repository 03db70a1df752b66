// SPDX-License-Identifier: GPL-2.0-only

//! Bios that cannot go on where they are: because somebody holds what they need for a moment, or because they came to
//! the next step in interrupt context.

use crate::{
    device::inner::{
        Queues,
        RESERVE_BIOS, //
    },
    kapi::{
        bio::{
            Bio,
            BioList, //
        },
        sync::{
            new_irq_spinlock,
            IrqSpinLock, //
        },
    },
    store::Store,
};
use core::sync::atomic::{
    AtomicU32,
    Ordering, //
};
use kernel::{
    prelude::*,
    sync::Arc,
    workqueue::{
        impl_has_work,
        new_work,
        Work,
        WorkItem, //
    }, //
};

struct Lists {
    /// Wait for a claim or an exclusion to end.
    blocked: BioList,
    /// To be submitted again now.
    again: BioList,
    /// Written, to be made durable now.
    flush: BioList,
}

/// Room in the reserve of copies that may wait for the network, see [`durable`](super::durable).
struct Room {
    taken: u32,
    /// Found none. Empty, or nothing is left, or `Retry::run` will come.
    waiting: BioList,
}

impl Room {
    fn is_left(&self) -> bool {
        self.taken < RESERVE_BIOS
    }
}

/// Waiting bios. The lists are linked through the bios, so waiting needs no memory.
#[pin_data]
pub(crate) struct Retry {
    #[pin]
    lists: IrqSpinLock<Lists>,
    #[pin]
    room: IrqSpinLock<Room>,
    /// Bios in `blocked`, so that nobody takes the lock to wake nobody.
    blocked: AtomicU32,
    #[pin]
    work: Work<Retry>,
    queues: Arc<Queues>,
    store: Arc<Store>,
}

impl_has_work! { impl HasWork<Self> for Retry { self.work } }

impl Retry {
    pub(super) fn new(queues: Arc<Queues>, store: Arc<Store>) -> Result<Arc<Self>> {
        let lists = Lists {
            blocked: BioList::new(),
            again: BioList::new(),
            flush: BioList::new(),
        };
        let room = Room {
            taken: 0,
            waiting: BioList::new(),
        };
        Arc::pin_init(
            pin_init!(Self {
                lists <- new_irq_spinlock!(lists, c"imgstream:retry"),
                room <- new_irq_spinlock!(room, c"imgstream:room"),
                blocked: AtomicU32::new(0),
                work <- new_work!("imgstream:retry"),
                queues,
                store,
            }),
            GFP_KERNEL,
        )
    }

    /// Keeps `bio` until [`Retry::wake`]. `still` says whether what it waits for still stands, asked after it was put
    /// away: if that ended just before, nobody else would wake it.
    pub(super) fn block(self: &Arc<Self>, bio: Bio, still: impl FnOnce() -> bool) {
        self.lists.lock().blocked.push(bio);
        self.blocked.fetch_add(1, Ordering::SeqCst);
        if !still() {
            self.wake();
        }
    }

    /// Something ended that bios may wait for: all of them try again. Any context.
    pub(super) fn wake(self: &Arc<Self>) {
        if self.blocked.load(Ordering::SeqCst) != 0 {
            self.kick();
        }
    }

    /// Submits `bio` again, soon. Any context.
    pub(super) fn again(self: &Arc<Self>, bio: Bio) {
        self.lists.lock().again.push(bio);
        self.kick();
    }

    /// Gives a bio whose data is written to the next flush round, soon. Any context.
    pub(super) fn flush(self: &Arc<Self>, bio: Bio) {
        self.lists.lock().flush.push(bio);
        self.kick();
    }

    /// Takes room for `bio` and gives it back; or keeps it until there is some, then it is submitted again.
    pub(super) fn enter(&self, bio: Bio) -> Option<Bio> {
        let mut room = self.room.lock();
        if !room.is_left() {
            room.waiting.push(bio);
            return None;
        }
        room.taken = room.taken.saturating_add(1);
        Some(bio)
    }

    /// Gives room back. Any context.
    pub(super) fn leave(self: &Arc<Self>) {
        let mut room = self.room.lock();
        room.taken = room.taken.saturating_sub(1);
        let wanted = !room.waiting.is_empty();
        drop(room);
        if wanted {
            self.kick();
        }
    }

    /// Who waits for room, if there is some. All of them: who needs it no more would pass it on to nobody.
    fn may_enter(&self) -> BioList {
        let mut room = self.room.lock();
        match room.is_left() {
            true => room.waiting.take(),
            false => BioList::new(),
        }
    }

    fn kick(self: &Arc<Self>) {
        // Not queued means that it is queued already.
        let _ = self.queues.again.enqueue(self.clone());
    }

    fn take(&self) -> Lists {
        self.blocked.store(0, Ordering::SeqCst);
        let mut lists = self.lists.lock();
        Lists {
            blocked: lists.blocked.take(),
            again: lists.again.take(),
            flush: lists.flush.take(),
        }
    }
}

impl WorkItem for Retry {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let mut lists = this.take();
        while let Some(bio) = lists.flush.pop() {
            this.store.flush(bio);
        }
        let mut entering = this.may_enter();
        while let Some(bio) = entering.pop() {
            bio.submit_again();
        }
        while let Some(bio) = lists.again.pop() {
            bio.submit_again();
        }
        while let Some(bio) = lists.blocked.pop() {
            bio.submit_again();
        }
    }
}

/// What the store calls when a bio's flush round is over. Process context.
pub(super) fn flushed(mut bio: Bio, result: Result) {
    if result.is_ok() && bio.is_preflush() && bio.sectors() > 0 {
        // Flushed first, as it asked for; now its data.
        bio.clear_preflush();
        bio.submit_again();
        return;
    }
    bio.end(super::inner::status(result));
}
