// SPDX-License-Identifier: GPL-2.0-only

//! Numbers and structures of the ioctls.
//!
//! A number carries direction, size, type and sequence as `_IOC()` of `include/uapi/asm-generic/ioctl.h` does. All
//! structures have the same layout for 32-bit and 64-bit callers: fields are aligned to their size, without holes.

use zerocopy_derive::{
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout, //
};

/// The ioctl type (`_IOC_TYPE`) of this driver.
pub const TYPE: u8 = 0xb9;

/// Longest device path that [`Attach`] takes, including the NUL.
pub const PATH_BYTES: usize = 256;

const NONE: u32 = 0;
const READ: u32 = 2;
const READ_WRITE: u32 = 3;

/// `_IOC()`. Sizes here are far below the 14 bits that it has for them.
const fn number(direction: u32, sequence: u8, size: usize) -> u32 {
    assert!(size < 1 << 14);
    (direction << 30) | ((size as u32) << 16) | ((TYPE as u32) << 8) | sequence as u32
}

/// Fills in a [`Version`].
pub const GET_VERSION: u32 = number(READ, 0, size_of::<Version>());
/// Attaches a disk ([`Attach`]) as [`DISK_NAME`](super::DISK_NAME).
pub const ATTACH: u32 = number(READ_WRITE, 1, size_of::<Attach>());
/// Detaches the disk ([`Plain`]); refused while it is in use.
pub const DETACH: u32 = number(READ_WRITE, 2, size_of::<Plain>());
/// Sets up the background fill ([`Fill`]).
pub const FILL: u32 = number(READ_WRITE, 3, size_of::<Fill>());
/// Starts the commit ([`Commit`]): the point of no return.
pub const COMMIT: u32 = number(READ_WRITE, 4, size_of::<Commit>());
/// Pauses a commit ([`Plain`]).
pub const PAUSE: u32 = number(READ_WRITE, 5, size_of::<Plain>());
/// Resumes a paused commit ([`Plain`]).
pub const RESUME: u32 = number(READ_WRITE, 6, size_of::<Plain>());
/// Asks for a roll back at the next boot ([`Plain`]).
pub const ROLLBACK: u32 = number(READ_WRITE, 7, size_of::<Plain>());
/// Opens or closes the read-only view of the source ([`SourceView`]).
pub const SOURCE_VIEW: u32 = number(READ_WRITE, 8, size_of::<SourceView>());
/// Looks for the repository now instead of after the pause ([`Plain`]).
pub const RECONNECT: u32 = number(READ_WRITE, 9, size_of::<Plain>());
/// Sets how many sessions with the repository there are to be ([`Sessions`]).
pub const SESSIONS: u32 = number(READ_WRITE, 10, size_of::<Sessions>());

/// A number that no ioctl has: for tests of the answer to it.
pub const UNKNOWN: u32 = number(NONE, 0xff, 0);

/// What [`GET_VERSION`] says.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Version {
    /// [`VERSION`](super::VERSION) of the module.
    pub abi: u32,
    /// Newest on-disk format version that the module understands.
    pub format: u32,
    /// Optional features of the interface; none is defined yet.
    pub features: u64,
}

/// An ioctl without arguments.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Plain {
    /// Out: a [`Refusal`](super::refusal::Refusal), or 0.
    pub refusal: u32,
    /// Zero.
    pub reserved: u32,
}

/// Argument of [`ATTACH`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Attach {
    /// Out: a [`Refusal`](super::refusal::Refusal), or 0.
    pub refusal: u32,
    /// Zero.
    pub flags: u32,
    /// Path of the disk, ended by a NUL, e.g. `/dev/vda`.
    pub path: [u8; PATH_BYTES],
}

/// Argument of [`FILL`]: the background fill fetches what nobody has asked for yet.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Fill {
    /// Out: a [`Refusal`](super::refusal::Refusal), or 0.
    pub refusal: u32,
    /// 1: on, 0: off.
    pub enable: u32,
    /// At least this rate, however busy the guest is; 0: none.
    pub min_kib_per_s: u64,
    /// At most this rate; 0: unlimited.
    pub max_kib_per_s: u64,
}

/// Argument of [`COMMIT`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Commit {
    /// Out: a [`Refusal`](super::refusal::Refusal), or 0.
    pub refusal: u32,
    /// [`COMMIT_NOW`] or 0.
    pub flags: u32,
    /// At least this rate, however busy the guest is; 0: none.
    pub min_kib_per_s: u64,
    /// At most this rate; 0: unlimited.
    pub max_kib_per_s: u64,
}

/// In [`Commit::flags`]: at full speed, whatever the guest does.
pub const COMMIT_NOW: u32 = 1;

/// Argument of [`SOURCE_VIEW`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct SourceView {
    /// Out: a [`Refusal`](super::refusal::Refusal), or 0.
    pub refusal: u32,
    /// 1: open it, 0: close it.
    pub open: u32,
}

/// Argument of [`SESSIONS`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Sessions {
    /// Out: a [`Refusal`](super::refusal::Refusal), or 0.
    pub refusal: u32,
    /// 1 to 8.
    pub count: u32,
}

impl Attach {
    /// The argument that names `path`; `None` if that is empty, too long or contains a NUL.
    pub fn new(path: &[u8]) -> Option<Self> {
        if path.is_empty() || path.contains(&0) {
            return None;
        }
        let mut this = Self {
            refusal: 0,
            flags: 0,
            path: [0; PATH_BYTES],
        };
        // One byte stays for the NUL.
        let room = this.path.get_mut(..PATH_BYTES - 1)?;
        room.get_mut(..path.len())?.copy_from_slice(path);
        Some(this)
    }

    /// The path without its NUL; `None` if it is empty or has no end.
    pub fn path(&self) -> Option<&[u8]> {
        let len = self.path.iter().position(|&byte| byte == 0)?;
        self.path.get(..len).filter(|path| !path.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_what_c_makes_of_them() {
        // _IOR(0xb9, 0, 16 bytes), _IOWR(0xb9, 1, 264 bytes), _IOWR(0xb9, 2, 8 bytes).
        assert_eq!(GET_VERSION, 0x8010_b900);
        assert_eq!(ATTACH, 0xc108_b901);
        assert_eq!(DETACH, 0xc008_b902);
        assert_eq!(FILL, 0xc018_b903);
        assert_eq!(COMMIT, 0xc018_b904);
        assert_eq!(SOURCE_VIEW, 0xc008_b908);
        assert_eq!(SESSIONS, 0xc008_b90a);
    }

    #[test]
    fn a_path_goes_through() {
        let attach = Attach::new(b"/dev/vda").unwrap();
        assert_eq!(attach.path(), Some(&b"/dev/vda"[..]));
        let longest = [b'x'; PATH_BYTES - 1];
        assert_eq!(Attach::new(&longest).unwrap().path(), Some(&longest[..]));
    }

    #[test]
    fn a_path_that_cannot_be_said_is_refused() {
        assert_eq!(Attach::new(b""), None);
        assert_eq!(Attach::new(b"/dev/v\0da"), None);
        assert_eq!(Attach::new(&[b'x'; PATH_BYTES]), None);
        let endless = Attach {
            refusal: 0,
            flags: 0,
            path: [b'x'; PATH_BYTES],
        };
        assert_eq!(endless.path(), None);
    }
}
