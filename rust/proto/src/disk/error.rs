// SPDX-License-Identifier: GPL-2.0-only

//! Why bytes were not accepted.

/// What a structure said that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// The state word.
    State,
    /// Unknown flags.
    Flags,
    /// The logical block size.
    LogicalBlock,
    /// A length that goes over its place.
    Length,
    /// An address family.
    Family,
    /// A number of entries.
    Count,
    /// Order of entries, or entries that overlap.
    Order,
    /// An address that is not aligned, or that overflows.
    Place,
    /// The kind of a journal record.
    RecordKind,
    /// The way an interface gets its address.
    NetworkMethod,
    /// The sequence number, or index, of a journal transaction or a map segment.
    Sequence,
    /// The policy of digests.
    Digests,
    /// Names and secrets for CHAP.
    Chap,
    /// A reserved field that is not zero.
    Reserved,
}

/// Why a structure was refused; with what was expected and what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// Fewer bytes than the structure has; or a place too small to encode into.
    Short {
        /// Bytes there are.
        found: usize,
        /// Bytes needed.
        expected: usize,
    },
    /// It is not this structure at all.
    Magic {
        /// What stands there.
        found: [u8; 8],
    },
    /// It was this structure, but bytes changed (a torn write, a bad medium).
    Crc {
        /// The sum of the bytes found.
        found: u32,
        /// The sum that was written.
        expected: u32,
    },
    /// Another version of the format.
    Version {
        /// That version.
        found: u16,
        /// The one this code knows.
        expected: u16,
    },
    /// Features that must be understood to read the structure, and are not.
    Incompat {
        /// The unknown bits.
        unknown: u32,
    },
    /// A valid structure that belongs to another place.
    Location {
        /// What it says.
        found: u64,
        /// Where it was read, in bytes.
        expected: u64,
    },
    /// A valid structure of another migration or image.
    Uuid {
        /// Whose it is.
        found: [u8; 16],
        /// Whose it should be.
        expected: [u8; 16],
    },
    /// The checksum is right, but a field's value cannot be.
    Value {
        /// Which field.
        field: Field,
        /// What it says.
        found: u64,
    },
}

impl Error {
    pub(crate) const fn value(field: Field, found: u64) -> Self {
        Error::Value { field, found }
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Error::Short { found, expected } => {
                write!(f, "{found} bytes where {expected} are needed")
            }
            Error::Magic { .. } => write!(f, "no such structure here"),
            Error::Crc { found, expected } => {
                write!(f, "checksum is {found:#010x}, should be {expected:#010x}")
            }
            Error::Version { found, expected } => {
                write!(f, "format version {found}, this code knows {expected}")
            }
            Error::Incompat { unknown } => write!(f, "unknown incompatible features {unknown:#x}"),
            Error::Location { found, expected } => {
                write!(f, "structure of byte {found} found at byte {expected}")
            }
            Error::Uuid { .. } => write!(f, "structure of another migration or image"),
            Error::Value {
                field: Field::Chap, ..
            } => write!(f, "names and secrets for CHAP make no sense"),
            Error::Value { field, found } => write!(f, "impossible {field:?}: {found}"),
        }
    }
}

impl core::error::Error for Error {}
