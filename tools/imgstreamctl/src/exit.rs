// SPDX-License-Identifier: GPL-2.0-only
//! The table of exit codes.
//!
//! Scripts depend on the numbers: a code is never given another meaning, and a
//! new one is appended to its group. `Documentation/admin-guide/exit-codes.rst`
//! shows this table; a test compares the two.

/// One row of the table: the variant, its number, and what it means.
macro_rules! exits {
    ($($variant:ident = $code:literal, $meaning:literal;)*) => {
        /// How a command ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Exit {
            $(#[doc = $meaning] $variant,)*
        }

        impl Exit {
            /// Every exit code, in ascending order.
            pub const ALL: &'static [Exit] = &[$(Exit::$variant,)*];

            /// The number the process ends with.
            pub const fn code(self) -> u8 {
                match self { $(Exit::$variant => $code,)* }
            }

            /// The name used in `--json` output and in the documentation.
            pub const fn name(self) -> &'static str {
                match self { $(Exit::$variant => stringify!($variant),)* }
            }

            /// What it means, as the documentation says it.
            pub const fn meaning(self) -> &'static str {
                match self { $(Exit::$variant => $meaning,)* }
            }
        }
    };
}

exits! {
    Success = 0, "The command did what it was asked to do.";
    Failure = 1, "An operation failed (input, output, memory); the message names it.";
    Usage = 2, "The command line is wrong.";
    ToolMissing = 3, "A program that imgstreamctl calls is missing or failed.";
    NotConfirmed = 4, "The question was not answered with yes; nothing was done.";
    WrongState = 5, "The migration is in a state in which this command is not possible.";
    NotAttached = 6, "No imgstream device is attached, or the module is not loaded.";
    NotRoot = 7, "The command needs root.";
    ImageTooLarge = 10, "The image does not fit on the disk beside the shrunk source.";
    BootRegionBeyondSource = 11, "The image's boot region reaches beyond the shrunk source.";
    CannotShrink = 12, "The source's file system cannot be shrunk.";
    FilesystemFull = 13, "The source's file system is too full.";
    FilesystemErrors = 14, "A file system has errors; check it first.";
    DiskInUse = 15, "The disk is in use by something that is not the source system.";
    DiskTooSmall = 16, "The disk is too small for any migration.";
    BlockSize = 17, "The logical block size is not 512 bytes (4Kn), or differs from the image's.";
    Lvm = 18, "LVM lies under the source or the target.";
    Luks = 19, "LUKS lies under the source or the target.";
    Md = 20, "Software RAID (md) lies under the source or the target.";
    Hibernated = 21, "The system is hibernated.";
    NicDriverMissing = 22, "The image's initramfs lacks the driver of the network interface.";
    ImgstreamMissing = 23, "The image's initramfs lacks imgstream.";
    BootSetup = 24, "The image or the source does not start by BIOS and GRUB in a supported way.";
    PartitionTable = 25, "The partition table is missing, damaged or of an unsupported kind.";
    RootNotLast = 26, "The source's root file system is not in the last partition of the disk.";
    FilesystemKind = 27, "The file system is of an unsupported kind (ext4 is supported).";
    Changed = 28, "The disk has changed since the migration was planned.";
    NoRoom = 29, "The memory or a file system of the source has too little room for the stage.";
    NoSuperblock = 30, "No imgstream superblock was found on the disk.";
    ForeignSuperblock = 31, "The superblock belongs to another migration, disk or image.";
    NewerSuperblock = 32, "The superblock was written by a newer version.";
    SecondSuperblock = 33, "More than one disk carries a superblock; name the one that is meant.";
    DamagedSuperblock = 34, "The control structure is damaged in both copies.";
    MigrationAlive = 35, "An older migration is alive on this disk.";
    OneCopyBad = 36, "One of two copies of the control structure is bad; nothing is lost.";
    WrongImage = 40, "Another image is behind the portal than the one this migration began with.";
    NotPublished = 41, "What the portal or file offers is not a published image.";
    NewerImage = 42, "The image was published by a newer version of imgstreamctl.";
    PortalUnreachable = 43, "The portal does not answer or refuses the login.";
    Network = 44, "The interface that leads to the portal is of an unsupported kind.";
}

#[cfg(test)]
mod tests {
    use super::*;

    const RST: &str = include_str!("../../../Documentation/admin-guide/exit-codes.rst");

    /// The table as `exit-codes.rst` has to show it.
    fn rendered() -> String {
        let row = |e: &Exit| {
            let (code, name, meaning) = (e.code(), e.name(), e.meaning());
            format!("   * - {code}\n     - {name}\n     - {meaning}\n")
        };
        let rows: Vec<String> = Exit::ALL.iter().map(row).collect();
        rows.concat()
    }

    #[test]
    fn documentation_shows_the_table() {
        assert!(
            RST.ends_with(&rendered()),
            "Documentation/admin-guide/exit-codes.rst must end with:\n{}",
            rendered()
        );
    }

    #[test]
    fn codes_ascend_so_none_is_given_twice() {
        assert!(Exit::ALL.windows(2).all(|w| w[0].code() < w[1].code()));
    }
}
