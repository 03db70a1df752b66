// SPDX-License-Identifier: GPL-2.0-only

//! Plants the mistakes that the debug kernel is there to report, one for each `plant=N`: selftests/test_canary_01.sh.
//!
//! In Rust, so that it is the instrumentation of Rust code that is tried. Loading it always fails, so nothing is left.

use core::mem::ManuallyDrop;
use kernel::prelude::*;
use kernel::sync::{new_mutex, new_spinlock, Mutex, SpinLock};
use kernel::time::{delay::fsleep, Delta};

module! {
    type: Canary,
    name: "canary",
    authors: ["imgstream contributors"],
    description: "Mistakes that have to be reported",
    license: "GPL",
    params: {
        plant: u32 {
            default: 0,
            description: "Which mistake",
        },
    },
}

struct Canary;

impl kernel::Module for Canary {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        match *module_parameters::plant.value() {
            1 => sleep_in_atomic_context(),
            2 => inverse_locks(),
            3 => use_after_free(),
            4 => leak(),
            5 => hang(),
            _ => Ok(()),
        }?;
        Err(EBUSY)
    }
}

#[pin_data]
struct Locks {
    #[pin]
    spinning: SpinLock<u32>,
    #[pin]
    first: Mutex<u32>,
    #[pin]
    second: Mutex<u32>,
}

fn locks() -> Result<Pin<KBox<Locks>>> {
    KBox::pin_init(
        pin_init!(Locks {
            spinning <- new_spinlock!(0, "canary::spinning"),
            first <- new_mutex!(0, "canary::first"),
            second <- new_mutex!(0, "canary::second"),
        }),
        GFP_KERNEL,
    )
}

fn sleep_in_atomic_context() -> Result {
    let locks = locks()?;
    let mut spinning = locks.spinning.lock();
    *spinning = *KBox::new(1, GFP_KERNEL)?;
    Ok(())
}

fn inverse_locks() -> Result {
    let locks = locks()?;
    {
        let _outer = locks.first.lock();
        let _inner = locks.second.lock();
    }
    let _outer = locks.second.lock();
    let _inner = locks.first.lock();
    Ok(())
}

fn use_after_free() -> Result {
    let freed = KBox::into_raw(KBox::new(1u64, GFP_KERNEL)?);
    // SAFETY: It came from `into_raw` just now.
    drop(unsafe { KBox::from_raw(freed) });
    // SAFETY: There is none: this is the mistake. The memory stays mapped, and its contents are of no consequence.
    let found = unsafe { freed.read_volatile() };
    pr_info!("read {found} after it was freed\n");
    Ok(())
}

/// Several, as the last pointer may still be on some stack.
fn leak() -> Result {
    for _ in 0..8 {
        let _lost = ManuallyDrop::new(KBox::new([1u8; 600], GFP_KERNEL)?);
    }
    Ok(())
}

/// Longer than the limit for a hung task that the test sets.
fn hang() -> Result {
    fsleep(Delta::from_secs(8));
    Ok(())
}
