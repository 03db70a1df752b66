/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef IMGSTREAM_HELPERS_LOCK_H
#define IMGSTREAM_HELPERS_LOCK_H

#include <linux/spinlock_types.h>
#include <linux/types.h>

unsigned long imgstream_spin_lock_irqsave(spinlock_t *lock);
bool imgstream_spin_trylock_irqsave(spinlock_t *lock, unsigned long *flags);
void imgstream_spin_unlock_irqrestore(spinlock_t *lock, unsigned long flags);

#endif
