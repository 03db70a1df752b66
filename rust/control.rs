// SPDX-License-Identifier: GPL-2.0-only

//! Who may tell the device what to do: `/dev/imgstream-control`, the module parameter `disk=`, and the files in sysfs.
//!
//! One lock, `Manager::attached`: attaching, detaching and every other command come one after the other. Files are read
//! without it, so that status is there while a command takes its time.

mod ioctl;

use crate::{
    device::Device,
    kapi::{
        crash,
        errno::Errno,
        misc::{
            FileOperations,
            Registration, //
        },
        pm::NoHibernation,
        sysfs::{
            Files,
            Group,
            Text, //
        },
    },
};
use imgstream_proto::abi::{
    refusal::Refusal,
    status::Attribute, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

static OPERATIONS: FileOperations<Manager> = FileOperations::new(&crate::THIS_MODULE);

/// Everything of the module that is reachable from outside.
///
/// Fields are dropped in this order: first nobody can come in any more, then the disk is detached.
pub(crate) struct Entrance {
    // None if there was no memory for it, and a disk is attached all the same.
    _device_file: Option<Pin<KBox<Registration<Manager>>>>,
    manager: Arc<Manager>,
}

impl Entrance {
    /// Attaches `disk` if there is one, then opens the door.
    pub(crate) fn open(disk: Option<&CStr>) -> Result<Self> {
        let manager = Manager::new()?;
        if let Some(path) = disk {
            manager.attach(path).map_err(errno)?;
        }
        let registration = Registration::new(c"imgstream-control", &OPERATIONS, manager.clone());
        let device_file = match KBox::pin_init(registration, GFP_KERNEL) {
            Ok(device_file) => Some(device_file),
            Err(error) if disk.is_none() => return Err(error),
            // The disk may be in use already, and the code of a module that fails to load goes at once.
            Err(_) => {
                pr_err!("no /dev/imgstream-control: there was no memory for it\n");
                None
            }
        };
        Ok(Self {
            _device_file: device_file,
            manager,
        })
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        self.manager.close();
    }
}

/// The attached disk, if there is one.
#[pin_data]
struct Manager {
    #[pin]
    attached: Mutex<Option<Attached>>,
}

struct Attached {
    // None while the disk is being detached, and when there was no memory.
    files: Option<Group<Shown>>,
    device: Arc<Device>,
    _awake: Pin<KBox<NoHibernation>>,
}

/// The kernel that reads a hibernation image back attaches the disk to do so, and writes to it; the one that it wakes knows
/// nothing of that. Nor may an image that was in the target's swap space take the place of a kernel that has attached.
const NO_HIBERNATION: &str = "an imgstream disk is attached";

/// The device for those who only look.
struct Shown(Arc<Device>);

impl Files for Shown {
    const DIRECTORY: &'static CStr = c"imgstream";
    const NAMES: &'static [&'static CStr] = &names();

    fn show(&self, index: usize, out: &mut Text<'_>) -> core::fmt::Result {
        match Attribute::ALL.get(index) {
            Some(&attribute) => self.0.show(attribute, out),
            None => Ok(()),
        }
    }
}

const fn names() -> [&'static CStr; Attribute::ALL.len()] {
    let mut names = [c""; Attribute::ALL.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = Attribute::ALL[index].file_c();
        index += 1;
    }
    names
}

impl Manager {
    fn new() -> Result<Arc<Self>> {
        let init = pin_init!(Self {
            attached <- new_mutex!(None, "imgstream:attached"),
        });
        Arc::pin_init(init, GFP_KERNEL)
    }

    fn attach(&self, path: &CStr) -> Result<(), Refusal> {
        // Without the lock: may wait until the machine wakes up.
        let awake = KBox::pin_init(NoHibernation::new(NO_HIBERNATION), GFP_KERNEL)
            .map_err(|_| Refusal::Memory)?;
        let mut attached = self.attached.lock();
        if attached.is_some() {
            return Err(Refusal::Attached);
        }
        let device = not_in_crash_kernel()
            .and_then(|()| Device::attach(path))
            .inspect_err(|refusal| {
                pr_err!("{path:?} is not attached: {}\n", refusal.sentence());
            })?;
        let files = files(&device);
        if files.is_none() {
            pr_err!("{path:?} is attached, but there is no memory for its files in sysfs\n");
        }
        device.announce();
        *attached = Some(Attached {
            files,
            device,
            _awake: awake,
        });
        Ok(())
    }

    fn detach(&self) -> Result<(), Refusal> {
        let mut guard = self.attached.lock();
        let slot = &mut *guard;
        let attached = slot.as_mut().ok_or(Refusal::NotAttached)?;
        // Before the disk that they hang below.
        attached.files = None;
        if let Err(refusal) = attached.device.detach() {
            attached.files = files(&attached.device);
            return Err(refusal);
        }
        *slot = None;
        Ok(())
    }

    /// Detaches what is attached, at the end.
    fn close(&self) {
        let attached = self.attached.lock().take();
        if let Some(mut attached) = attached {
            // Before the disk that they hang below.
            attached.files = None;
            attached.device.end();
        }
    }

    /// Has the attached device do something, and tells user space what state it is in afterwards.
    fn command(&self, f: impl FnOnce(&Device) -> Result<(), Refusal>) -> Result<(), Refusal> {
        let slot = self.attached.lock();
        let attached = slot.as_ref().ok_or(Refusal::NotAttached)?;
        f(&attached.device)?;
        attached.device.announce();
        Ok(())
    }
}

/// A kernel of kdump has little memory, few drivers and one thing to do; it leaves the disk as the crash has left it.
fn not_in_crash_kernel() -> Result<(), Refusal> {
    if crash::is_kdump_kernel() {
        return Err(Refusal::CrashKernel);
    }
    Ok(())
}

fn files(device: &Arc<Device>) -> Option<Group<Shown>> {
    let shown = Arc::new(Shown(device.clone()), GFP_KERNEL).ok()?;
    device.with_disk(|disk| Group::new(disk, shown))?.ok()
}

/// The errno of a refusal. The refusal itself says more; this is for those who see only the errno (`insmod`).
fn errno(refusal: Refusal) -> Error {
    match refusal {
        Refusal::DiskBusy | Refusal::InUse | Refusal::Attached | Refusal::SourceViewOpen => EBUSY,
        Refusal::NoDisk => ENODEV,
        Refusal::NotAttached => ENXIO,
        Refusal::Memory => ENOMEM,
        Refusal::DiskError | Refusal::Degraded => EIO,
        Refusal::Committing | Refusal::NotCommitting | Refusal::State | Refusal::CrashKernel => {
            EPERM
        }
        Refusal::NoSuperblock => ENOENT,
        Refusal::Unsupported | Refusal::NewerFormat => Errno::NotSupported.into(),
        Refusal::SuperblocksDiffer
        | Refusal::Geometry
        | Refusal::BlockSize
        | Refusal::Damaged
        | Refusal::Argument
        | Refusal::Settings => EINVAL,
    }
}
