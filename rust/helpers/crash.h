/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef IMGSTREAM_HELPERS_CRASH_H
#define IMGSTREAM_HELPERS_CRASH_H

#include <linux/types.h>

bool imgstream_is_kdump_kernel(void);

#endif
