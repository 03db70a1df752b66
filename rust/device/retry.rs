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

/// What [`Retry`] runs.
struct Lists {
    /// Wait for a claim or an exclusion to end.
    blocked: BioList,
    /// To be submitted again now.
    again: BioList,
    /// Written, to be made durable now.
    flush: BioList,
}

impl Lists {
    const fn new() -> Self {
        Self {
            blocked: BioList::new(),
            again: BioList::new(),
            flush: BioList::new(),
        }
    }

    fn take(&mut self) -> Self {
        core::mem::replace(self, Self::new())
    }

    /// Gives each to `flush` or to `submit`, and what `next_to_enter` says to that: first what others may wait for.
    fn run(
        mut self,
        next_to_enter: impl Fn() -> Option<Bio>,
        flush: impl Fn(Bio),
        submit: impl Fn(Bio),
    ) {
        while let Some(bio) = self.flush.pop() {
            flush(bio);
        }
        while let Some(bio) = next_to_enter() {
            submit(bio);
        }
        for list in [&mut self.again, &mut self.blocked] {
            while let Some(bio) = list.pop() {
                submit(bio);
            }
        }
    }
}

/// Room in the reserve of copies that may wait for the network, see [`durable`](super::durable).
struct Room {
    taken: u32,
    /// Found none. Empty, or nothing is left, or `Retry::run` will come.
    waiting: BioList,
}

impl Room {
    const fn new() -> Self {
        Self {
            taken: 0,
            waiting: BioList::new(),
        }
    }

    fn is_left(&self) -> bool {
        self.taken < RESERVE_BIOS
    }

    /// See [`Retry::enter`].
    fn enter(&mut self, bio: Bio) -> Option<Bio> {
        if !self.is_left() {
            self.waiting.push(bio);
            return None;
        }
        self.taken = self.taken.saturating_add(1);
        Some(bio)
    }

    /// Gives room back; whether somebody waits for it.
    fn leave(&mut self) -> bool {
        self.taken = self.taken.saturating_sub(1);
        !self.waiting.is_empty()
    }

    /// Who has waited longest for room, if there is some. Asked again after that one was submitted: who needs it no more
    /// would pass it on to nobody.
    fn next_to_enter(&mut self) -> Option<Bio> {
        match self.is_left() {
            true => self.waiting.pop(),
            false => None,
        }
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
        Arc::pin_init(
            pin_init!(Self {
                lists <- new_irq_spinlock!(Lists::new(), c"imgstream:retry"),
                room <- new_irq_spinlock!(Room::new(), c"imgstream:room"),
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
        self.room.lock().enter(bio)
    }

    /// Gives room back. Any context.
    pub(super) fn leave(self: &Arc<Self>) {
        let wanted = self.room.lock().leave();
        if wanted {
            self.kick();
        }
    }

    fn kick(self: &Arc<Self>) {
        // Not queued means that it is queued already.
        let _ = self.queues.again.enqueue(self.clone());
    }

    fn take(&self) -> Lists {
        self.blocked.store(0, Ordering::SeqCst);
        self.lists.lock().take()
    }
}

impl WorkItem for Retry {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let lists = this.take();
        lists.run(
            || this.room.lock().next_to_enter(),
            |bio| this.store.flush(bio),
            Bio::submit_again,
        );
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

#[kunit_tests(imgstream_retry)]
mod tests {
    use super::*;
    use crate::kapi::{
        bio::Op,
        testing::Bench, //
    };
    use core::cell::RefCell;

    /// A bio that is told by its sector.
    fn bio(bench: &Bench, sector: u64) -> Result<Bio> {
        Ok(bench.incoming(Op::Write, sector, 1)?.0)
    }

    fn sectors(mut list: BioList) -> Result<KVec<u64>> {
        let mut sectors = KVec::new();
        while let Some(bio) = list.pop() {
            sectors.push(bio.sector(), GFP_KERNEL)?;
        }
        Ok(sectors)
    }

    #[test]
    fn room_is_given_out_by_count_and_the_rest_waits_in_order() -> Result {
        let (bench, mut room) = (Bench::new()?, Room::new());
        for sector in 0..u64::from(RESERVE_BIOS) {
            let entered = room.enter(bio(&bench, sector)?);
            assert_eq!(entered.map(|bio| bio.sector()), Some(sector));
        }
        for sector in 100..103 {
            assert!(room.enter(bio(&bench, sector)?).is_none());
        }
        // Nobody may enter while nothing is left.
        assert!(room.next_to_enter().is_none());
        // Somebody has to be told: the first of them, and the next one only if that one does not enter.
        assert!(room.leave());
        let next = room.next_to_enter();
        assert_eq!(next.as_ref().map(Bio::sector), Some(100));
        drop(next);
        let next = room.next_to_enter().and_then(|bio| room.enter(bio));
        assert_eq!(next.map(|bio| bio.sector()), Some(101));
        assert!(room.next_to_enter().is_none());
        // One place was free, and just one.
        assert!(room.enter(bio(&bench, 200)?).is_none());
        assert_eq!(*sectors(room.waiting.take())?, [102, 200]);
        Ok(())
    }

    #[test]
    fn who_leaves_tells_nobody_if_nobody_waits() -> Result {
        let (bench, mut room) = (Bench::new()?, Room::new());
        drop(room.enter(bio(&bench, 0)?));
        assert!(!room.leave());
        // More than came have not left.
        assert!(!room.leave() && room.is_left());
        for sector in 0..u64::from(RESERVE_BIOS) {
            assert!(room.enter(bio(&bench, sector)?).is_some());
        }
        assert!(room.enter(bio(&bench, 100)?).is_none());
        Ok(())
    }

    #[test]
    fn what_was_written_goes_first_and_what_was_blocked_last() -> Result {
        let (bench, mut lists) = (Bench::new()?, Lists::new());
        let mut entering = BioList::new();
        for round in [0, 1] {
            lists.blocked.push(bio(&bench, 30 + round)?);
            lists.again.push(bio(&bench, 20 + round)?);
            entering.push(bio(&bench, 10 + round)?);
            lists.flush.push(bio(&bench, round)?);
        }
        let (flushed, submitted) = (RefCell::new(BioList::new()), RefCell::new(BioList::new()));
        let entering = RefCell::new(entering);
        lists.take().run(
            || entering.borrow_mut().pop(),
            |bio| flushed.borrow_mut().push(bio),
            |bio| submitted.borrow_mut().push(bio),
        );
        assert_eq!(*sectors(flushed.into_inner())?, [0, 1]);
        assert_eq!(*sectors(submitted.into_inner())?, [10, 11, 20, 21, 30, 31]);
        // They were taken.
        lists.run(|| None, drop, drop);
        assert!(bench.disk.take().is_none());
        Ok(())
    }
}
