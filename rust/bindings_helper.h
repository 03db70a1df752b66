/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The headers that rust/bindings_generated.rs is generated from, in alphabetical order.
 *
 * A constant that bindgen cannot evaluate (a cast, a sizeof) is written as
 * "const gfp_t RUST_CONST_HELPER_GFP_NOIO = GFP_NOIO;" and is called GFP_NOIO in Rust.
 */
#include <crypto/md5.h>
#include <crypto/sha1.h>
#include <crypto/sha2.h>
#include <crypto/sha3.h>
#include <linux/blkdev.h>
#include <linux/crc32.h>
#include <linux/in.h>
#include <linux/random.h>

#include "blk.h"
#include "crash.h"
#include "lock.h"
#include "memalloc.h"
#include "net.h"
#include "param.h"
#include "sysfs.h"

const int RUST_CONST_HELPER_IPPROTO_TCP = IPPROTO_TCP;
