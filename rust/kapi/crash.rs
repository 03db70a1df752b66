// SPDX-License-Identifier: GPL-2.0-only

//! What became of the kernel before this one.
//!
//! C header: [`include/linux/crash_dump.h`](srctree/include/linux/crash_dump.h)

use crate::bindings;

/// Whether this is the kernel of kdump, which saves what was in memory when another kernel crashed.
pub(crate) fn is_kdump_kernel() -> bool {
    // SAFETY: May be called at any time: reads what the command line said at boot.
    unsafe { bindings::imgstream_is_kdump_kernel() }
}
