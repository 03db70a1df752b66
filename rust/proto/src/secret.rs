// SPDX-License-Identifier: GPL-2.0-only

//! Having secrets forgotten.

use core::hint::black_box;

/// Overwrites what nobody may find later; `black_box` keeps the compiler from leaving out what nobody reads.
pub fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    black_box(bytes);
}

/// Overwrites so many bytes of the stack below its caller, where functions had their variables that have returned: a value with a
/// secret that is returned, or moved, may have left copies of itself there.
#[inline(never)]
pub fn wipe_stack<const BYTES: usize>() {
    black_box(&mut [0_u8; BYTES]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wiped_is_gone() {
        let mut bytes = [7; 300];
        wipe(&mut bytes);
        assert_eq!(bytes, [0; 300]);
    }
}
