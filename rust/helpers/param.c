// SPDX-License-Identifier: GPL-2.0-only
/* String parameters of the module: module! of the kernel crate has integers only. */

#include <linux/moduleparam.h>

#include "param.h"

static char *disk;
module_param(disk, charp, 0444);
MODULE_PARM_DESC(disk, "disk to attach at once, e.g. /dev/vda");

const char *imgstream_param_disk(void)
{
	return disk;
}
