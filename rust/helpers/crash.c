// SPDX-License-Identifier: GPL-2.0-only
/* The inline function of <linux/crash_dump.h>, for Rust. */

#include <linux/crash_dump.h>

#include "crash.h"

bool imgstream_is_kdump_kernel(void)
{
	return is_kdump_kernel();
}
