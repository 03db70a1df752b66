/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef IMGSTREAM_HELPERS_MEMALLOC_H
#define IMGSTREAM_HELPERS_MEMALLOC_H

unsigned int imgstream_memalloc_noio_save(void);
void imgstream_memalloc_noio_restore(unsigned int flags);
unsigned int imgstream_memalloc_noreclaim_save(void);
void imgstream_memalloc_noreclaim_restore(unsigned int flags);

#endif
