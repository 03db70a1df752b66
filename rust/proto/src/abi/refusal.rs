// SPDX-License-Identifier: GPL-2.0-only

//! Why an ioctl was refused.

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $sentence:literal;)*) => {
        /// The rule that a refused ioctl would have broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Refusal {
            $($(#[$doc])* $name = $number,)*
        }

        impl Refusal {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The refusal with this number; `None` for 0 and for numbers of a newer module.
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// One sentence for a person.
            pub const fn sentence(self) -> &'static str {
                match self {
                    $(Self::$name => $sentence,)*
                }
            }
        }
    };
}

refusals! {
    /// No valid superblock.
    NoSuperblock = 1, "the disk carries no imgstream superblock";
    /// Superblocks contradict each other.
    SuperblocksDiffer = 2, "the disk carries two imgstream superblocks that contradict each other";
    /// An incompatible feature or version.
    NewerFormat = 3, "the control area was written by a newer imgstream";
    /// The geometry does not fit the disk.
    Geometry = 4, "the control area does not fit this disk";
    /// Block size of the disk.
    BlockSize = 5, "the disk's logical block size is not the image's";
    /// Exclusive open failed.
    DiskBusy = 6, "the disk or one of its partitions is in use";
    /// Map, journal or boot list damaged.
    Damaged = 7, "the control area is damaged; see the kernel log and imgstreamctl check";
    /// I/O error while attaching.
    DiskError = 8, "the disk failed while the control area was read or written; see the kernel log";
    /// A state that is not attached: the migration is over or not far enough.
    State = 9, "the migration is not in a state that allows this";
    /// There is a device already.
    Attached = 10, "a disk is attached already";
    /// There is no device.
    NotAttached = 11, "no disk is attached";
    /// Open or mounted.
    InUse = 12, "the device is in use";
    /// The path does not lead to a block device.
    NoDisk = 13, "there is no such block device";
    /// A source view is open.
    SourceViewOpen = 14, "the view of the source is open; close it first";
    /// A commit runs.
    Committing = 15, "a commit has begun; there is no way back";
    /// No commit runs.
    NotCommitting = 16, "no commit is running";
    /// Flags, rates or reserved fields that make no sense.
    Argument = 17, "an argument is out of range";
    /// No memory.
    Memory = 18, "there is not enough memory";
    /// Not built in this version.
    Unsupported = 19, "this version of the module cannot do that";
    /// The journal failed earlier, rule 10.
    Degraded = 20, "an earlier write of the journal failed; only reading goes on";
    /// The on-disk settings cannot be used.
    Settings = 21, "an address, a name or a secret in the superblock cannot be used";
    /// A kernel of kdump.
    CrashKernel = 22, "this kernel saves the dump of another one that crashed (kdump), and no disk is attached in it";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_both_ways_and_are_gapless() {
        for (index, &refusal) in Refusal::ALL.iter().enumerate() {
            assert_eq!(refusal as u32, index as u32 + 1);
            assert_eq!(Refusal::from_number(refusal as u32), Some(refusal));
        }
        assert_eq!(Refusal::from_number(0), None);
        assert_eq!(Refusal::from_number(Refusal::ALL.len() as u32 + 1), None);
    }

    #[test]
    fn sentences_fit_after_a_colon() {
        for refusal in Refusal::ALL {
            assert!(refusal.sentence().starts_with(|c: char| c.is_lowercase()));
            assert!(!refusal.sentence().ends_with('.'));
        }
    }
}
