/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef IMGSTREAM_HELPERS_PARAM_H
#define IMGSTREAM_HELPERS_PARAM_H

const char *imgstream_param_disk(void);
unsigned int imgstream_param_sessions(void);

#endif
