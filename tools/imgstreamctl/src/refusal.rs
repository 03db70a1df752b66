// SPDX-License-Identifier: GPL-2.0-only
//! Everything imgstreamctl refuses to do: one variant, one sentence, one exit
//! code each. A refusal is decided before the first write.

use imgstream_proto::abi::refusal::Refusal as Module;

use crate::exit::Exit;

/// A reason not to go on. The disk is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// See [`Exit::Lvm`].
    #[error("{place} is LVM, which is not supported yet")]
    Lvm {
        /// Partition or file in which it was found.
        place: String,
    },
    /// See [`Exit::Luks`].
    #[error("{place} is encrypted with LUKS, which is not supported yet")]
    Luks {
        /// Partition or file in which it was found.
        place: String,
    },
    /// See [`Exit::Md`].
    #[error("{place} is a member of a software RAID (md), which is not supported yet")]
    Md {
        /// Partition or file in which it was found.
        place: String,
    },
    /// See [`Exit::Hibernated`].
    #[error("{place} holds a hibernated system; start it and shut it down first")]
    Hibernated {
        /// Partition or file in which it was found.
        place: String,
    },
    /// See [`Exit::BlockSize`].
    #[error("{place} has logical blocks of {found_bytes} bytes; only 512 are supported")]
    BlockSize {
        /// The disk or image.
        place: String,
        /// What it has.
        found_bytes: u64,
    },
    /// See [`Exit::PartitionTable`].
    #[error("{place}: {what}")]
    PartitionTable {
        /// The disk or image.
        place: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// See [`Exit::PartitionTable`].
    #[error("{place} is {found}, not a disk or the raw image of one; {instead}")]
    NotRaw {
        /// The file or disk.
        place: String,
        /// What it is.
        found: String,
        /// What to do.
        instead: String,
    },
    /// See [`Exit::PartitionTable`].
    #[error("{place}: the GPT is damaged: {what}")]
    DamagedGpt {
        /// The disk or image.
        place: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// See [`Exit::FilesystemErrors`].
    #[error("the file system {place} has errors ({what}); run e2fsck on it first")]
    FilesystemErrors {
        /// Where it is.
        place: String,
        /// What was found.
        what: String,
    },
    /// See [`Exit::FilesystemKind`].
    #[error("{place} holds {found}; only ext4 is supported")]
    FilesystemKind {
        /// Where it is.
        place: String,
        /// What it holds.
        found: String,
    },
    /// See [`Exit::BootSetup`].
    #[error("{place} does not start by BIOS and GRUB: {what}")]
    BootSetup {
        /// The disk or image.
        place: String,
        /// What is missing or different.
        what: String,
    },
    /// See [`Exit::ImgstreamMissing`].
    #[error("imgstream is missing in the image's initramfs {initrd}: it lacks {what}")]
    ImgstreamMissing {
        /// The initramfs.
        initrd: String,
        /// The file that is not there.
        what: String,
    },
    /// See [`Exit::NicDriverMissing`].
    #[error("NIC driver missing in the image's initramfs {initrd}: it lacks {wanted}")]
    NicDriverMissing {
        /// The initramfs.
        initrd: String,
        /// The driver that was asked for, or "any".
        wanted: String,
    },
    /// See [`Exit::DiskInUse`].
    #[error("{place} is in use: {by}")]
    DiskInUse {
        /// The disk or partition.
        place: String,
        /// Who uses it.
        by: String,
    },
    /// See [`Exit::RootNotLast`].
    #[error("the root file system is in partition {root} of {disk}, but partition {last} is the last one; only the last partition can give up space")]
    RootNotLast {
        /// The disk.
        disk: String,
        /// Number of the root partition.
        root: u32,
        /// Number of the last partition.
        last: u32,
    },
    /// See [`Exit::CannotShrink`].
    #[error("the file system {place} cannot be shrunk: {what}")]
    CannotShrink {
        /// Where it is.
        place: String,
        /// Why.
        what: String,
    },
    /// Image, source and disk do not fit together.
    #[error("{0}")]
    DoesNotFit(imgstream_engine::plan::Refusal),
    /// See [`Exit::NotPublished`].
    #[error("{place} is not a published image: {what}")]
    NotPublished {
        /// The portal or file.
        place: String,
        /// What is wrong with it.
        what: String,
    },
    /// See [`Exit::WrongImage`].
    #[error("another image is behind {place} than the one this migration began with: {what}")]
    WrongImage {
        /// The portal.
        place: String,
        /// What differs.
        what: String,
    },
    /// See [`Exit::PortalUnreachable`].
    #[error("nothing can be read from {place}: {what}")]
    PortalUnreachable {
        /// The portal.
        place: String,
        /// What went wrong.
        what: String,
    },
    /// See [`Exit::NewerImage`].
    #[error("{place} was published by a newer version of imgstreamctl (format {found}); this one knows format {known}")]
    NewerImage {
        /// The portal or file.
        place: String,
        /// The version found.
        found: u32,
        /// The version this program writes.
        known: u32,
    },
    /// See [`Exit::WrongState`].
    #[error("{command} is not possible in state {state}")]
    WrongState {
        /// The command that was given.
        command: &'static str,
        /// The state the migration is in.
        state: String,
    },
    /// See [`Exit::NotAttached`].
    #[error("no imgstream device is attached, or the module is not loaded")]
    NotAttached,
    /// The running module speaks another version of the control interface.
    #[error(
        "the loaded module speaks version {found} of the interface, this imgstreamctl {wanted}"
    )]
    ModuleVersion {
        /// The module's.
        found: u32,
        /// Ours.
        wanted: u32,
    },
    /// The module refused, see [`crate::device::control::exit_of`].
    #[error("{}", .0.sentence())]
    Module(Module),
    /// See [`Exit::Network`].
    #[error("the network cannot be set up again later: {interface}: {why}")]
    Network {
        /// The interface that leads to the portal.
        interface: String,
        /// What is in the way.
        why: String,
    },
    /// See [`Exit::NoSuperblock`].
    #[error("no imgstream superblock on {place}: no migration has begun there, or it has ended")]
    NoSuperblock {
        /// The disk, or where was looked.
        place: String,
    },
    /// See [`Exit::ForeignSuperblock`].
    #[error("the imgstream superblock of {place} is not its own: {what}")]
    ForeignSuperblock {
        /// The disk.
        place: String,
        /// What does not fit.
        what: String,
    },
    /// See [`Exit::NewerSuperblock`].
    #[error("the imgstream superblock of {place} is of a newer version: {what}")]
    NewerSuperblock {
        /// The disk.
        place: String,
        /// What is not known.
        what: String,
    },
    /// See [`Exit::SecondSuperblock`].
    #[error(
        "more than one disk carries an imgstream superblock ({places}); name the one that is meant"
    )]
    SecondSuperblock {
        /// The disks.
        places: String,
    },
    /// See [`Exit::DamagedSuperblock`].
    #[error("the imgstream superblock of {place} is damaged: {what}")]
    DamagedSuperblock {
        /// The disk.
        place: String,
        /// How.
        what: String,
    },
    /// See [`Exit::DamagedSuperblock`].
    #[error(
        "the disk has lost both superblocks of this migration, and its boot list (byte {place}) says that blocks of this \
         system were being replaced; nothing more is written to it, because the saved blocks may be all there is of them"
    )]
    SuperblockLost {
        /// Where the boot list stands.
        place: u64,
    },
    /// See [`Exit::MigrationAlive`].
    #[error(
        "an older migration is alive on {place} (state {state}); commit it or roll it back first"
    )]
    MigrationAlive {
        /// The disk.
        place: String,
        /// Its state.
        state: String,
    },
    /// See [`Exit::Changed`].
    #[error("{place} has changed since the migration was planned: {what}")]
    Changed {
        /// The disk.
        place: String,
        /// What.
        what: String,
    },
    /// See [`Exit::NoRoom`].
    #[error("{place} has room for {free_bytes} bytes, {needed_bytes} are needed")]
    NoRoom {
        /// Where.
        place: String,
        /// What there is.
        free_bytes: u64,
        /// What is needed.
        needed_bytes: u64,
    },
    /// See [`Exit::NotRoot`].
    #[error("only root can do this")]
    NotRoot,
    /// See [`Exit::NotRoot`].
    #[error("this user may not {what} {place}; root may")]
    NotAllowed {
        /// "open", "write to".
        what: &'static str,
        /// The disk or file.
        place: String,
    },
    /// See [`Exit::Usage`].
    #[error("{0}")]
    Usage(String),
    /// See [`Exit::WrongState`].
    #[error("there is no migration to cancel")]
    NothingToCancel,
    /// See [`Exit::OneCopyBad`].
    #[error(
        "{place}: a copy of the control structure is bad; the other one is whole, nothing is lost"
    )]
    OneCopyBad {
        /// The disk.
        place: String,
    },
    /// See [`Exit::NotConfirmed`].
    #[error("not confirmed, so nothing was done; where nobody can be asked, --yes does it")]
    NotConfirmed,
}

impl Refusal {
    /// The exit code of this refusal.
    pub fn exit(&self) -> Exit {
        match self {
            Refusal::Lvm { .. } => Exit::Lvm,
            Refusal::Luks { .. } => Exit::Luks,
            Refusal::Md { .. } => Exit::Md,
            Refusal::Hibernated { .. } => Exit::Hibernated,
            Refusal::BlockSize { .. } => Exit::BlockSize,
            Refusal::PartitionTable { .. }
            | Refusal::NotRaw { .. }
            | Refusal::DamagedGpt { .. } => Exit::PartitionTable,
            Refusal::FilesystemErrors { .. } => Exit::FilesystemErrors,
            Refusal::FilesystemKind { .. } => Exit::FilesystemKind,
            Refusal::BootSetup { .. } => Exit::BootSetup,
            Refusal::ImgstreamMissing { .. } => Exit::ImgstreamMissing,
            Refusal::NicDriverMissing { .. } => Exit::NicDriverMissing,
            Refusal::DiskInUse { .. } => Exit::DiskInUse,
            Refusal::RootNotLast { .. } => Exit::RootNotLast,
            Refusal::CannotShrink { .. } => Exit::CannotShrink,
            Refusal::DoesNotFit(refusal) => does_not_fit(refusal),
            Refusal::NotPublished { .. } => Exit::NotPublished,
            Refusal::WrongImage { .. } => Exit::WrongImage,
            Refusal::PortalUnreachable { .. } => Exit::PortalUnreachable,
            Refusal::NewerImage { .. } => Exit::NewerImage,
            Refusal::WrongState { .. } | Refusal::NothingToCancel => Exit::WrongState,
            Refusal::NotAttached => Exit::NotAttached,
            Refusal::ModuleVersion { .. } => Exit::Failure,
            Refusal::Module(reason) => crate::device::control::exit_of(*reason),
            Refusal::Network { .. } => Exit::Network,
            Refusal::NoSuperblock { .. } => Exit::NoSuperblock,
            Refusal::ForeignSuperblock { .. } => Exit::ForeignSuperblock,
            Refusal::NewerSuperblock { .. } => Exit::NewerSuperblock,
            Refusal::SecondSuperblock { .. } => Exit::SecondSuperblock,
            Refusal::DamagedSuperblock { .. } | Refusal::SuperblockLost { .. } => {
                Exit::DamagedSuperblock
            }
            Refusal::MigrationAlive { .. } => Exit::MigrationAlive,
            Refusal::Changed { .. } => Exit::Changed,
            Refusal::NoRoom { .. } => Exit::NoRoom,
            Refusal::NotRoot | Refusal::NotAllowed { .. } => Exit::NotRoot,
            Refusal::Usage(_) => Exit::Usage,
            Refusal::OneCopyBad { .. } => Exit::OneCopyBad,
            Refusal::NotConfirmed => Exit::NotConfirmed,
        }
    }
}

/// The exit code for what the engine's planner refused.
fn does_not_fit(refusal: &imgstream_engine::plan::Refusal) -> Exit {
    use imgstream_engine::plan::Refusal as Plan;
    match refusal {
        Plan::LogicalBlock { .. } => Exit::BlockSize,
        Plan::DiskTooSmall { .. } => Exit::DiskTooSmall,
        Plan::ImageTooLarge { .. } => Exit::ImageTooLarge,
        Plan::SourceTooLarge { .. } => Exit::FilesystemFull,
        Plan::BootBeyondSource { .. } => Exit::BootRegionBeyondSource,
        Plan::TooManyBootEntries { .. } => Exit::BootSetup,
        Plan::Impossible { .. } => Exit::NotPublished,
    }
}
