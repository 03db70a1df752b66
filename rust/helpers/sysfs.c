// SPDX-License-Identifier: GPL-2.0-only
/* A macro of <linux/sysfs.h> as a function, for Rust. */

#include <linux/sysfs.h>

#include "sysfs.h"

/*
 * An attribute that is not static needs a lock class. All of ours share one: none is read while
 * another is held.
 */
void imgstream_sysfs_attr_init(struct attribute *attr)
{
	sysfs_attr_init(attr);
}
