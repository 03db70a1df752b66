// SPDX-License-Identifier: GPL-2.0-only
/* Inline functions of <linux/sched/mm.h> as real ones, for Rust. */

#include <linux/sched/mm.h>

#include "memalloc.h"

unsigned int imgstream_memalloc_noio_save(void)
{
	return memalloc_noio_save();
}

void imgstream_memalloc_noio_restore(unsigned int flags)
{
	memalloc_noio_restore(flags);
}

unsigned int imgstream_memalloc_noreclaim_save(void)
{
	return memalloc_noreclaim_save();
}

void imgstream_memalloc_noreclaim_restore(unsigned int flags)
{
	memalloc_noreclaim_restore(flags);
}
