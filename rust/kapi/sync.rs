// SPDX-License-Identifier: GPL-2.0-only

//! Locks and waiting that `kernel::sync` lacks.

pub(crate) mod completion;
pub(crate) mod irq_spinlock;

pub(crate) use completion::Completion;
pub(crate) use irq_spinlock::{
    new_irq_spinlock,
    IrqSpinLock, //
};
