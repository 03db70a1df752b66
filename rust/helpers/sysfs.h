/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef IMGSTREAM_HELPERS_SYSFS_H
#define IMGSTREAM_HELPERS_SYSFS_H

struct attribute;

void imgstream_sysfs_attr_init(struct attribute *attr);

#endif
