// SPDX-License-Identifier: GPL-2.0-only
/* Macros of <linux/spinlock.h> as functions, for Rust. */

#include <linux/spinlock.h>

#include "lock.h"

unsigned long imgstream_spin_lock_irqsave(spinlock_t *lock)
{
	unsigned long flags;

	spin_lock_irqsave(lock, flags);
	return flags;
}

bool imgstream_spin_trylock_irqsave(spinlock_t *lock, unsigned long *flags)
{
	return spin_trylock_irqsave(lock, *flags);
}

void imgstream_spin_unlock_irqrestore(spinlock_t *lock, unsigned long flags)
{
	spin_unlock_irqrestore(lock, flags);
}
