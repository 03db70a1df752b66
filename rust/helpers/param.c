// SPDX-License-Identifier: GPL-2.0-only
/* Parameters that module! of the kernel crate cannot have: strings, and what sysfs shows. */

#include <linux/moduleparam.h>

#include "param.h"

static char *disk;
module_param(disk, charp, 0444);
MODULE_PARM_DESC(disk, "disk to attach at once, e.g. /dev/vda");

static unsigned int sessions;
module_param(sessions, uint, 0444);
MODULE_PARM_DESC(sessions, "sessions with the repository from the attach on, 1 to 8");

const char *imgstream_param_disk(void)
{
	return disk;
}

unsigned int imgstream_param_sessions(void)
{
	return sessions;
}
