// SPDX-License-Identifier: GPL-2.0-only
//! `/dev/imgstream-control`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use imgstream_proto::abi::ioctl::{
    self, Attach, Commit, Fill, Plain, Sessions, SourceView, Version,
};
use imgstream_proto::abi::refusal::Refusal as Module;
use imgstream_proto::abi::{CONTROL_PATH, VERSION};

use crate::args;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::refusal::Refusal;
use crate::sys;

/// The open control device.
pub struct Control {
    file: File,
}

/// Rates in KiB/s; 0 means no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub struct Rates {
    /// At least this much, however busy the system is (KiB/s, 0: no bound).
    #[arg(long = "min", value_name = "KIB_PER_S", default_value_t = 0, value_parser = args::rate, allow_negative_numbers = true)]
    pub min_kib_per_s: u64,
    /// At most this much (KiB/s, 0: no bound).
    #[arg(long = "max", value_name = "KIB_PER_S", default_value_t = 0, value_parser = args::rate, allow_negative_numbers = true)]
    pub max_kib_per_s: u64,
}

impl Rates {
    /// Refuses a least rate above the most.
    pub fn refuse_contradiction(self) -> Result<Self, Refusal> {
        let (min, max) = (self.min_kib_per_s, self.max_kib_per_s);
        if max == 0 || min <= max {
            return Ok(self);
        }
        let sentence = format!("--min {min} is more than --max {max}");
        Err(Refusal::Usage(sentence))
    }
}

impl Control {
    /// Opens it; refuses when the module is not loaded or speaks another version.
    pub fn open() -> Result<Self> {
        let path = Path::new(CONTROL_PATH);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => Refusal::NotAttached.into(),
                io::ErrorKind::PermissionDenied => Refusal::NotRoot.into(),
                _ => Error::io("opening", path)(e),
            })?;
        let control = Self { file };
        let mut version = Version::default();
        let done = sys::control::<{ ioctl::GET_VERSION }, _>(&control.file, &mut version);
        control.answer(done, 0)?;
        if version.abi != VERSION {
            return Err(Refusal::ModuleVersion {
                found: version.abi,
                wanted: VERSION,
            }
            .into());
        }
        Ok(control)
    }

    /// Attaches a disk.
    pub fn attach(&self, disk: &Path) -> Result<()> {
        let mut argument = Attach::new(disk.as_os_str().as_bytes()).ok_or_else(|| Error::Io {
            doing: "attaching",
            path: disk.to_path_buf(),
            source: io::ErrorKind::InvalidInput.into(),
        })?;
        let done = sys::control::<{ ioctl::ATTACH }, _>(&self.file, &mut argument);
        self.answer(done, argument.refusal)
    }

    /// Detaches it.
    pub fn detach(&self) -> Result<()> {
        let mut argument = Plain::default();
        let done = sys::control::<{ ioctl::DETACH }, _>(&self.file, &mut argument);
        self.answer(done, argument.refusal)
    }

    /// Sets up the background fill.
    pub fn fill(&self, enable: bool, rates: Rates) -> Result<()> {
        let mut argument = Fill {
            enable: enable.into(),
            min_kib_per_s: rates.min_kib_per_s,
            max_kib_per_s: rates.max_kib_per_s,
            ..Fill::default()
        };
        let done = sys::control::<{ ioctl::FILL }, _>(&self.file, &mut argument);
        self.answer(done, argument.refusal)
    }

    /// Starts the commit: the point of no return.
    pub fn commit(&self, now: bool, rates: Rates) -> Result<()> {
        let mut argument = Commit {
            flags: if now { ioctl::COMMIT_NOW } else { 0 },
            min_kib_per_s: rates.min_kib_per_s,
            max_kib_per_s: rates.max_kib_per_s,
            ..Commit::default()
        };
        let done = sys::control::<{ ioctl::COMMIT }, _>(&self.file, &mut argument);
        self.answer(done, argument.refusal)
    }

    /// Pauses the commit.
    pub fn pause(&self) -> Result<()> {
        let mut argument = Plain::default();
        let done = sys::control::<{ ioctl::PAUSE }, _>(&self.file, &mut argument);
        self.answer(done, argument.refusal)
    }

    /// Resumes it.
    pub fn resume(&self) -> Result<()> {
        let mut argument = Plain::default();
        let done = sys::control::<{ ioctl::RESUME }, _>(&self.file, &mut argument);
        self.answer(done, argument.refusal)
    }

    /// Looks for the repository now.
    pub fn reconnect(&self) -> Result<()> {
        let mut argument = Plain::default();
        let done = sys::control::<{ ioctl::RECONNECT }, _>(&self.file, &mut argument);
        self.answer(done, argument.refusal)
    }

    /// Sets how many sessions there are to be.
    pub fn sessions(&self, count: u8) -> Result<()> {
        let mut argument = Sessions {
            count: count.into(),
            ..Sessions::default()
        };
        let done = sys::control::<{ ioctl::SESSIONS }, _>(&self.file, &mut argument);
        self.answer(done, argument.refusal)
    }

    /// Makes the next boot roll back.
    pub fn rollback(&self) -> Result<()> {
        let mut argument = Plain::default();
        let done = sys::control::<{ ioctl::ROLLBACK }, _>(&self.file, &mut argument);
        self.answer(done, argument.refusal)
    }

    /// Opens or closes the view of the source.
    pub fn source_view(&self, open: bool) -> Result<()> {
        let mut argument = SourceView {
            open: open.into(),
            ..SourceView::default()
        };
        let done = sys::control::<{ ioctl::SOURCE_VIEW }, _>(&self.file, &mut argument);
        self.answer(done, argument.refusal)
    }

    /// An errno alone does not say which rule was broken: the refusal does.
    fn answer(&self, done: io::Result<()>, refusal: u32) -> Result<()> {
        done.map_err(|source| match Module::from_number(refusal) {
            Some(reason) => Refusal::Module(reason).into(),
            None => Error::Io {
                doing: "asking",
                path: CONTROL_PATH.into(),
                source,
            },
        })
    }
}

/// The exit code of a refusal of the module.
pub fn exit_of(reason: Module) -> Exit {
    match reason {
        Module::NoSuperblock => Exit::NoSuperblock,
        Module::SuperblocksDiffer | Module::Damaged => Exit::DamagedSuperblock,
        Module::NewerFormat => Exit::NewerSuperblock,
        Module::Geometry => Exit::ForeignSuperblock,
        Module::BlockSize => Exit::BlockSize,
        Module::DiskBusy | Module::InUse => Exit::DiskInUse,
        Module::NotAttached => Exit::NotAttached,
        Module::State
        | Module::CrashKernel
        | Module::Attached
        | Module::SourceViewOpen
        | Module::Committing
        | Module::NotCommitting
        | Module::Degraded => Exit::WrongState,
        Module::Argument => Exit::Usage,
        Module::DiskError
        | Module::NoDisk
        | Module::Memory
        | Module::Unsupported
        | Module::Settings => Exit::Failure,
    }
}
