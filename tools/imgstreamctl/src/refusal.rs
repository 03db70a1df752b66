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
    #[error("the loaded module speaks version {found} of the interface, this imgstreamctl {wanted}")]
    ModuleVersion {
        /// The module's.
        found: u32,
        /// Ours.
        wanted: u32,
    },
    /// The module refused, see [`crate::device::control::exit_of`].
    #[error("{}", .0.sentence())]
    Module(Module),
    /// See [`Exit::NotConfirmed`].
    #[error("not confirmed, so nothing was done")]
    NotConfirmed,
}

impl Refusal {
    /// The exit code of this refusal.
    pub fn exit(&self) -> Exit {
        match self {
            Refusal::Lvm { .. } => Exit::Lvm,
            Refusal::Luks { .. } => Exit::Luks,
            Refusal::Md { .. } => Exit::Md,
            Refusal::WrongState { .. } => Exit::WrongState,
            Refusal::NotAttached => Exit::NotAttached,
            Refusal::ModuleVersion { .. } => Exit::Failure,
            Refusal::Module(reason) => crate::device::control::exit_of(*reason),
            Refusal::NotConfirmed => Exit::NotConfirmed,
        }
    }
}
