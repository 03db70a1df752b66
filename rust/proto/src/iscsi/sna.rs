// SPDX-License-Identifier: GPL-2.0-only

//! Serial number arithmetic (RFC 1982 with SERIAL_BITS 32, as RFC 7143 section 4.2.2.1 asks of CmdSN).
//! StatSN counts modulo 2^32 (4.2.2.2).

/// A 32-bit serial number: it wraps, and only the nearer half of the circle is comparable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sna(pub u32);

impl Sna {
    /// The serial number after this one.
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// The serial number before this one.
    pub const fn prev(self) -> Self {
        Self(self.0.wrapping_sub(1))
    }

    /// Whether `self` comes before `other`.
    ///
    /// Two numbers exactly half the circle apart have no order (RFC 1982 section 3.2); neither comes before the other.
    pub const fn before(self, other: Self) -> bool {
        let ahead = other.0.wrapping_sub(self.0);
        ahead != 0 && ahead < 0x8000_0000
    }

    /// Whether `self` is `other` or comes before it.
    pub const fn not_after(self, other: Self) -> bool {
        self.0 == other.0 || self.before(other)
    }

    /// How many steps lead from `earlier` to `self`, or `None` if `earlier` does not come before or at `self`.
    pub const fn since(self, earlier: Self) -> Option<u32> {
        if earlier.not_after(self) {
            Some(self.0.wrapping_sub(earlier.0))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Sna;

    #[test]
    fn order_survives_the_wrap() {
        assert!(Sna(0xffff_ffff).before(Sna(0)));
        assert!(!Sna(0).before(Sna(0xffff_ffff)));
        assert!(Sna(5).not_after(Sna(5)));
        assert!(!Sna(5).before(Sna(5)));
    }

    #[test]
    fn half_a_circle_apart_has_no_order() {
        assert!(!Sna(0).before(Sna(0x8000_0000)));
        assert!(!Sna(0x8000_0000).before(Sna(0)));
        assert_eq!(Sna(0x8000_0000).since(Sna(0)), None);
    }

    #[test]
    fn distance_counts_over_the_wrap() {
        assert_eq!(Sna(3).since(Sna(0xffff_fffe)), Some(5));
        assert_eq!(Sna(0xffff_fffe).since(Sna(3)), None);
        assert_eq!(Sna(0).prev(), Sna(0xffff_ffff));
        assert_eq!(Sna(0xffff_ffff).next(), Sna(0));
    }
}
