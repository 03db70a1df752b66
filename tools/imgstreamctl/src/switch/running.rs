// SPDX-License-Identifier: GPL-2.0-only
//! The running system as the stage finds it: what would go wrong there is found
//! out before anything is written.

use std::fs;
use std::path::{Path, PathBuf};

use super::{custom_cfg, overlay, source};
use crate::error::{Error, Result};
use crate::plan::Refusals;
use crate::refusal::Refusal;

/// What stays free in /boot.
const BOOT_SPARE_BYTES: u64 = 16 << 20;
/// Initramfs archives are in memory twice while the kernel unpacks them.
const MEMORY_SPARE_BYTES: u64 = 192 << 20;

const LOCAL: &str = "/usr/share/initramfs-tools/scripts/local";

/// The running system.
pub struct Running {
    /// Its root directory.
    root: PathBuf,
    /// Its kernel's release.
    release: String,
    /// Its kernel's command line.
    cmdline: String,
}

impl Running {
    /// This one.
    pub fn here() -> Self {
        let release = rustix::system::uname();
        Self {
            root: PathBuf::from("/"),
            release: release.release().to_string_lossy().into_owned(),
            cmdline: fs::read_to_string("/proc/cmdline").unwrap_or_default(),
        }
    }

    /// The kernel that becomes the stage's. With the size of the boot region
    /// known, room for it is looked for, too.
    pub fn look(&self, boot_bytes: Option<u64>, refusals: &mut Refusals) -> Option<Kernel> {
        refusals.take(self.refuse_armed());
        refusals.take(self.refuse_grub());
        refusals.take(self.refuse_generator());
        let kernel = refusals.take(self.kernel());
        if let Some(boot_bytes) = boot_bytes {
            self.refuse_cramped(overlay::estimate_bytes(boot_bytes), refusals);
        }
        kernel
    }

    fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    fn refuse_armed(&self) -> Result<()> {
        match source::is_armed_in(&self.path(source::GRUB))? {
            false => Ok(()),
            true => Err(Refusal::WrongState {
                command: "migrate",
                state: "armed (a migration begins at the next boot; cancel it first)".into(),
            }
            .into()),
        }
    }

    fn refuse_grub(&self) -> Result<()> {
        let grub_cfg = self.path(source::GRUB).join("grub.cfg");
        match crate::stage::leave::read(&grub_cfg)? {
            Some(text) if custom_cfg::is_sourced_by(&text) => Ok(()),
            Some(_) => Err(boot_setup("its grub.cfg does not read custom.cfg").into()),
            None => Err(boot_setup("there is no /boot/grub/grub.cfg").into()),
        }
    }

    fn refuse_generator(&self) -> Result<(), Refusal> {
        match self.path(LOCAL).exists() {
            true => Ok(()),
            false => Err(boot_setup("its initramfs is not made by initramfs-tools")),
        }
    }

    fn kernel(&self) -> Result<Kernel, Refusal> {
        let kernel = Kernel::of(&self.release, &self.cmdline)?;
        match self.path(&kernel.initrd_file).exists() {
            true => Ok(kernel),
            false => Err(boot_setup(&format!("{} is missing", kernel.initrd_file))),
        }
    }

    /// The payload is made in /var before it goes into the archive in /boot.
    fn refuse_cramped(&self, needed: u64, refusals: &mut Refusals) {
        for directory in ["/boot", "/var/lib"] {
            refusals.take(refuse_full(
                &self.path(directory),
                needed + BOOT_SPARE_BYTES,
            ));
        }
        refusals.take(refuse_memory(2 * needed + MEMORY_SPARE_BYTES));
    }
}

/// The kernel that runs and its initramfs, which become the stage's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// As GRUB sees its path.
    pub kernel: String,
    /// As GRUB sees its path.
    pub initrd: String,
    /// As this system sees it.
    initrd_file: String,
    /// Command line without what belongs to this boot only.
    pub cmdline: String,
}

impl Kernel {
    fn of(release: &str, cmdline: &str) -> Result<Self, Refusal> {
        let image = cmdline
            .split_whitespace()
            .find_map(|word| word.strip_prefix("BOOT_IMAGE="))
            .ok_or_else(|| boot_setup("the running kernel was not started by GRUB"))?;
        let (directory, name) = image.rsplit_once('/').unwrap_or(("", image));
        if name != format!("vmlinuz-{release}") {
            return Err(boot_setup(&format!(
                "the running kernel {release} was started from {image}"
            )));
        }
        Ok(Self {
            kernel: image.to_string(),
            initrd: format!("{directory}/initrd.img-{release}"),
            initrd_file: format!("/boot/initrd.img-{release}"),
            cmdline: stage_cmdline(cmdline),
        })
    }

    /// The stage's archive as GRUB sees its path.
    pub fn overlay(&self) -> String {
        let (directory, _) = self.kernel.rsplit_once('/').unwrap_or(("", ""));
        let name = Path::new(source::OVERLAY).file_name().unwrap_or_default();
        format!("{directory}/{}", name.to_string_lossy())
    }
}

/// Consoles and quirks of the machine stay; root stays too, for an initramfs
/// that does not know `boot=` then starts the source as ever.
fn stage_cmdline(running: &str) -> String {
    let mut words: Vec<&str> = running
        .split_whitespace()
        .filter(|word| !word.starts_with("BOOT_IMAGE=") && !word.starts_with("resume"))
        .filter(|word| !matches!(*word, "quiet" | "splash") && !word.starts_with("boot="))
        .collect();
    words.extend(["noresume", "boot=imgstream-stage"]);
    words.join(" ")
}

fn refuse_full(directory: &Path, needed_bytes: u64) -> Result<()> {
    let space =
        rustix::fs::statvfs(directory).map_err(|e| Error::io("examining", directory)(e.into()))?;
    let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
    let place = directory.display().to_string();
    refuse_less(place, free_bytes, needed_bytes)
}

fn refuse_memory(needed_bytes: u64) -> Result<()> {
    let total = rustix::system::sysinfo();
    let total = total.totalram as u64 * u64::from(total.mem_unit);
    refuse_less("the memory of this computer".into(), total, needed_bytes)
}

fn refuse_less(place: String, free_bytes: u64, needed_bytes: u64) -> Result<()> {
    if free_bytes >= needed_bytes {
        return Ok(());
    }
    Err(Refusal::NoRoom {
        place,
        free_bytes,
        needed_bytes,
    }
    .into())
}

fn boot_setup(what: &str) -> Refusal {
    Refusal::BootSetup {
        place: "this system".into(),
        what: what.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_becomes_the_stages() {
        let cmdline = "BOOT_IMAGE=/boot/vmlinuz-6.1.0-42-amd64 root=UUID=6b29 ro console=ttyS0,115200 quiet resume=UUID=1";
        let kernel = Kernel::of("6.1.0-42-amd64", cmdline).unwrap();
        assert_eq!(kernel.initrd, "/boot/initrd.img-6.1.0-42-amd64");
        assert_eq!(kernel.overlay(), "/boot/imgstream-stage.img");
        assert_eq!(
            kernel.cmdline,
            "root=UUID=6b29 ro console=ttyS0,115200 noresume boot=imgstream-stage"
        );
    }

    #[test]
    fn a_separate_boot_has_no_boot_in_its_paths() {
        let kernel = Kernel::of("6.1", "BOOT_IMAGE=/vmlinuz-6.1 ro").unwrap();
        assert_eq!(kernel.kernel, "/vmlinuz-6.1");
        assert_eq!(kernel.initrd, "/initrd.img-6.1");
        assert_eq!(kernel.overlay(), "/imgstream-stage.img");
        assert_eq!(kernel.initrd_file, "/boot/initrd.img-6.1");
    }

    #[test]
    fn a_kernel_from_elsewhere_is_refused() {
        for cmdline in ["ro quiet", "BOOT_IMAGE=/boot/vmlinuz-6.0 ro"] {
            let error = Kernel::of("6.1", cmdline).unwrap_err();
            assert_eq!(error.exit(), crate::Exit::BootSetup, "{error}");
        }
    }

    const RELEASE: &str = "6.1.0-42-amd64";

    /// A system with nothing in it but room.
    fn empty() -> (tempfile::TempDir, Running) {
        let dir = tempfile::tempdir().unwrap();
        for directory in ["boot/grub", "var/lib"] {
            fs::create_dir_all(dir.path().join(directory)).unwrap();
        }
        let running = Running {
            root: dir.path().into(),
            release: RELEASE.into(),
            cmdline: format!("BOOT_IMAGE=/boot/vmlinuz-{RELEASE} ro"),
        };
        (dir, running)
    }

    fn put(running: &Running, path: &str, text: &str) {
        let path = running.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A system that `migrate` can work with.
    fn debian() -> (tempfile::TempDir, Running) {
        let (dir, running) = empty();
        put(
            &running,
            "/boot/grub/grub.cfg",
            "source ${config_directory}/custom.cfg\n",
        );
        put(&running, &format!("/boot/initrd.img-{RELEASE}"), "");
        put(&running, LOCAL, "");
        (dir, running)
    }

    /// The sentences, and the code of each.
    fn refused(running: &Running, boot_bytes: u64) -> Vec<(crate::Exit, String)> {
        let mut refusals = Refusals::default();
        running.look(Some(boot_bytes), &mut refusals);
        let each = refusals.iter();
        each.map(|error| (error.exit(), error.to_string()))
            .collect()
    }

    #[test]
    fn debian_is_not_refused() {
        let (_dir, running) = debian();
        assert_eq!(refused(&running, 0), []);
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let (_dir, mut running) = empty();
        running.cmdline = "ro quiet".into();
        let sentences: Vec<String> = refused(&running, 0).into_iter().map(|r| r.1).collect();
        let expected = [
            "there is no /boot/grub/grub.cfg",
            "not made by initramfs-tools",
            "was not started by GRUB",
        ];
        assert_eq!(sentences.len(), expected.len(), "{sentences:?}");
        for (sentence, expected) in sentences.iter().zip(expected) {
            assert!(sentence.contains(expected), "{sentence}");
        }
    }

    #[test]
    fn each_is_refused_by_itself() {
        use crate::Exit;
        type Change = fn(&Running);
        let cases: [(Change, Exit, &str); 4] = [
            (
                |r| put(r, "/boot/grub/grub.cfg", "# nothing\n"),
                Exit::BootSetup,
                "does not read custom.cfg",
            ),
            (
                |r| fs::remove_file(r.path(&format!("/boot/initrd.img-{RELEASE}"))).unwrap(),
                Exit::BootSetup,
                "/boot/initrd.img-6.1.0-42-amd64 is missing",
            ),
            (
                |r| fs::remove_file(r.path(LOCAL)).unwrap(),
                Exit::BootSetup,
                "not made by initramfs-tools",
            ),
            (
                |r| put(r, "/boot/grub/custom.cfg", &armed()),
                Exit::WrongState,
                "not possible in state armed",
            ),
        ];
        for (change, exit, sentence) in cases {
            let (_dir, running) = debian();
            change(&running);
            let found = refused(&running, 0);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].0, exit);
            assert!(found[0].1.contains(sentence), "{found:?}");
        }
    }

    fn armed() -> String {
        let entry = custom_cfg::Entry {
            boot_uuid: "x".into(),
            kernel: "/vmlinuz".into(),
            initrds: vec!["/initrd".into()],
            cmdline: String::new(),
        };
        custom_cfg::with_entry(None, &entry)
    }

    /// No disk and no memory has an exabyte.
    #[test]
    fn no_room_is_said_of_every_place() {
        let (_dir, running) = debian();
        let found = refused(&running, 1 << 60);
        let places = [
            "/boot has room for",
            "/var/lib has room for",
            "the memory of this computer has",
        ];
        assert_eq!(found.len(), places.len(), "{found:?}");
        for ((exit, sentence), place) in found.iter().zip(places) {
            assert_eq!(*exit, crate::Exit::NoRoom);
            assert!(sentence.contains(place), "{sentence}");
        }
    }
}
