// SPDX-License-Identifier: GPL-2.0-only
//! Small disks with a system that starts by BIOS and GRUB, as far as a reader
//! can tell; with GRUB itself on them where a test starts it.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test programs, each of which uses a part of it"
)]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{symlink, FileExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use imgstreamctl::disk::Disk;
use imgstreamctl::publish::Published;
use tempfile::TempDir;

pub const MIB: u64 = 1 << 20;
pub const KERNEL: &str = "7.2.12+deb13-amd64";

/// How a test disk is made.
#[derive(Clone)]
pub struct Recipe {
    pub gpt: bool,
    pub separate_boot: bool,
    pub swap: bool,
    pub block_bytes: u64,
    /// Options of mke2fs, for example `^extent`.
    pub features: &'static str,
    pub grub_cfg: String,
    /// Size of the disk; its partitions need not fill it.
    pub disk_bytes: u64,
    /// Size of the root partition.
    pub root_bytes: u64,
    /// Users' data in the root file system.
    pub data_bytes: usize,
    /// With GRUB's own boot sector, core image and modules.
    pub real_grub: bool,
    /// Members of the initramfs.
    pub initramfs: Vec<(String, Vec<u8>)>,
}

impl Default for Recipe {
    fn default() -> Self {
        Recipe {
            gpt: true,
            separate_boot: false,
            swap: false,
            block_bytes: 4096,
            features: "",
            disk_bytes: 96 * MIB,
            root_bytes: 40 * MIB,
            data_bytes: 3_000_000,
            grub_cfg: grub_cfg("/boot"),
            real_grub: false,
            initramfs: complete_initramfs(),
        }
    }
}

/// A made disk; everything goes away with it.
pub struct Made {
    pub dir: TempDir,
    pub image: PathBuf,
    /// First byte of the file system with GRUB's files.
    pub boot_start: u64,
    /// First byte of the root file system.
    pub root_start: u64,
    /// The byte after the last partition.
    pub end: u64,
}

impl Made {
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs `debugfs -R command` on the file system at `start` of `image`.
    pub fn debugfs(&self, image: &Path, start: u64, command: &str) -> Vec<u8> {
        let name = format!("{}?offset={start}", image.display());
        program("debugfs", &["-c", "-R", command, &name]).stdout
    }
}

/// A grub.cfg like Debian's, with kernels in `boot` as GRUB sees it.
pub fn grub_cfg(boot: &str) -> String {
    format!(
        r#"if [ -s $prefix/grubenv ]; then
  load_env
fi
font="/usr/share/grub/unicode.pf2"
if loadfont $font ; then set gfxmode=auto; fi
if background_image /usr/share/images/desktop-base/desktop-grub.png; then true; fi
menuentry 'Debian GNU/Linux' {{
	linux	{boot}/vmlinuz-{KERNEL} root=UUID=x ro quiet
	initrd	{boot}/initrd.img-{KERNEL}
}}
if [ -f  ${{config_directory}}/custom.cfg ]; then
  source ${{config_directory}}/custom.cfg
fi
"#
    )
}

/// Everything that prepare wants to see.
pub fn complete_initramfs() -> Vec<(String, Vec<u8>)> {
    let modules = format!("usr/lib/modules/{KERNEL}");
    vec![
        (format!("{modules}/updates/imgstream.ko"), b"elf".to_vec()),
        (
            format!("{modules}/kernel/drivers/net/virtio_net.ko"),
            b"elf".to_vec(),
        ),
        ("usr/sbin/imgstreamctl".into(), b"elf".to_vec()),
        ("scripts/local-top/imgstream".into(), b"#!/bin/sh".to_vec()),
    ]
}

pub fn program(name: &str, arguments: &[&str]) -> Output {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(name)
        .args(arguments)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .output()
        .unwrap_or_else(|e| panic!("{name} has to be installed: {e}"));
    assert!(output.status.success(), "{name} {arguments:?}: {output:?}");
    output
}

/// Runs imgstreamctl: exit code, standard output, standard error.
pub fn imgstreamctl(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imgstreamctl"));
    command.args(arguments);
    ended(command)
}

fn ended(mut command: Command) -> (i32, String, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap();
    (code, text(&output.stdout), text(&output.stderr))
}

/// The same as a user who is not root, with a copy of the program where anybody may read.
pub fn as_nobody(arguments: &[&str]) -> (i32, String, String) {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let dir = tempfile::tempdir().unwrap();
    let everybody = fs::Permissions::from_mode(0o755);
    fs::set_permissions(dir.path(), everybody).unwrap();
    let program = dir.path().join("imgstreamctl");
    fs::copy(env!("CARGO_BIN_EXE_imgstreamctl"), &program).unwrap();
    let mut command = Command::new(&program);
    command.args(arguments).current_dir("/");
    if rustix::process::geteuid().is_root() {
        command.uid(65534);
    }
    ended(command)
}

/// Bytes that look random and are the same in every run; no two blocks are equal.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    let block: Vec<u8> = (0..4096).map(|_| next()).collect();
    let mut all = Vec::with_capacity(len + block.len());
    for number in 0..len.div_ceil(block.len()) as u64 {
        all.extend(number.to_le_bytes());
        all.extend(&block[8..]);
    }
    all.truncate(len);
    all
}

/// The least file whose header says that it is a kernel of this release.
fn kernel() -> Vec<u8> {
    let mut file = noise(300_000, 7);
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x20e..0x210].copy_from_slice(&0x400_u16.to_le_bytes());
    file[0x236] = 1;
    let release = format!("{KERNEL} (test)\0");
    file[0x600..0x600 + release.len()].copy_from_slice(release.as_bytes());
    file
}

fn initramfs(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Vec::new();
    let end = ("TRAILER!!!".to_string(), Vec::new());
    for (name, data) in members.iter().chain([&end]) {
        let fields = [
            0,
            0o100_644,
            0,
            0,
            1,
            0,
            data.len(),
            0,
            0,
            0,
            0,
            name.len() + 1,
            0,
        ];
        archive.extend(b"070701");
        for field in fields {
            archive.extend(format!("{field:08X}").as_bytes());
        }
        archive.extend(name.as_bytes());
        archive.push(0);
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(data);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&archive).unwrap();
    encoder.finish().unwrap()
}

fn put(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Fills `root` and `boot`, which are the same tree when /boot is not separate.
fn fill_trees(recipe: &Recipe, root: &Path, boot: &Path) {
    put(&boot.join(format!("vmlinuz-{KERNEL}")), &kernel());
    put(
        &boot.join(format!("initrd.img-{KERNEL}")),
        &initramfs(&recipe.initramfs),
    );
    put(&boot.join("grub/grub.cfg"), recipe.grub_cfg.as_bytes());
    put(&boot.join("grub/grubenv"), &[b'#'; 1024]);
    let modules = boot.join("grub/i386-pc");
    match recipe.real_grub {
        true => put_modules(&modules),
        false => {
            for module in ["normal", "ext2", "linux"] {
                put(&modules.join(format!("{module}.mod")), &noise(20_000, 3));
            }
        }
    }
    put(&root.join("usr/share/grub/unicode.pf2"), &noise(50_000, 5));
    put(&root.join("usr/share/pictures/real.png"), &noise(40_000, 9));
    put(&root.join("etc/fstab"), b"# the root file system has one");
    fs::create_dir_all(root.join("etc/alternatives")).unwrap();
    fs::create_dir_all(root.join("usr/share/images/desktop-base")).unwrap();
    symlink(
        "/usr/share/pictures/real.png",
        root.join("etc/alternatives/desktop-grub"),
    )
    .unwrap();
    symlink(
        "../../../../etc/alternatives/desktop-grub",
        root.join("usr/share/images/desktop-base/desktop-grub.png"),
    )
    .unwrap();
    put(&root.join("home/user/data"), &noise(recipe.data_bytes, 11));
}

/// Makes a disk. The file is larger than its partitions need: prepare trims it.
pub fn make(recipe: &Recipe) -> Made {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.img");
    let (root, boot) = (dir.path().join("root"), dir.path().join("bootfs"));
    let boot_tree = if recipe.separate_boot {
        boot
    } else {
        root.join("boot")
    };
    fill_trees(recipe, &root, &boot_tree);
    fs::File::create(&image)
        .unwrap()
        .set_len(recipe.disk_bytes)
        .unwrap();
    let mut layout = vec![("bios", MIB, MIB)];
    if recipe.separate_boot {
        layout.push(("linux", 2 * MIB, 16 * MIB));
    }
    layout.push(("linux", 20 * MIB, recipe.root_bytes));
    if recipe.swap && !recipe.gpt {
        // A logical partition, as Debian's installer makes it.
        layout.push(("extended", 63 * MIB, 9 * MIB));
    }
    if recipe.swap {
        layout.push(("swap", 64 * MIB, 8 * MIB));
    }
    partition(&image, recipe.gpt, &layout);
    let root_start = 20 * MIB;
    let boot_start = if recipe.separate_boot {
        2 * MIB
    } else {
        root_start
    };
    mke2fs(&image, recipe, root_start, recipe.root_bytes, &root);
    if recipe.separate_boot {
        mke2fs(&image, recipe, boot_start, 16 * MIB, &boot_tree);
    }
    if recipe.swap {
        write_at(&image, 64 * MIB + 4086, b"SWAPSPACE2");
        write_at(&image, 66 * MIB, &noise(8192, 13));
    }
    let core_lba = if recipe.gpt { MIB / 512 } else { 1 };
    match recipe.real_grub {
        true => put_real_grub(&image, core_lba, &prefix(recipe)),
        false => put_grub(&image, core_lba),
    }
    let (_, start, len) = layout[layout.len() - 1];
    Made {
        dir,
        image,
        boot_start,
        root_start,
        end: start + len,
    }
}

fn partition(image: &Path, gpt: bool, layout: &[(&str, u64, u64)]) {
    let mut script = format!("label: {}\n", if gpt { "gpt" } else { "dos" });
    for (kind, start, len) in layout {
        let code = match (*kind, gpt) {
            ("bios", true) => "21686148-6449-6E6F-744E-656564454649",
            ("swap", true) => "S",
            ("swap", false) => "82",
            ("extended", _) => "5",
            (_, true) => "L",
            ("bios", false) => continue,
            (_, false) => "83",
        };
        script += &format!("start={}, size={}, type={code}\n", start / 512, len / 512);
    }
    let mut child = Command::new("/sbin/sfdisk")
        .args(["--quiet", "--no-reread", "--no-tell-kernel"])
        .arg(image)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("sfdisk has to be installed");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
}

fn mke2fs(image: &Path, recipe: &Recipe, start: u64, len: u64, tree: &Path) {
    let block = recipe.block_bytes.to_string();
    let offset = format!("offset={start},lazy_itable_init=0");
    let blocks = (len / recipe.block_bytes).to_string();
    let (image, tree) = (image.to_str().unwrap(), tree.to_str().unwrap());
    let mut arguments = vec!["-q", "-F", "-t", "ext4", "-b", &block, "-E", &offset];
    if !recipe.features.is_empty() {
        arguments.extend(["-O", recipe.features]);
    }
    arguments.extend(["-d", tree, image, &blocks]);
    program("mke2fs", &arguments);
}

/// A boot sector that points to a core image at `lba`, and that one's list.
fn put_grub(image: &Path, lba: u64) {
    write_at(image, 0x180, b"GRUB ");
    write_at(image, 0x5c, &lba.to_le_bytes());
    write_at(image, lba * 512 + 500, &(lba + 1).to_le_bytes());
    write_at(image, lba * 512 + 508, &[40, 0, 0x20, 0x08]);
}

/// Where Debian's package grub-pc-bin puts GRUB for BIOS.
const GRUB: &str = "/usr/lib/grub/i386-pc";

/// GRUB's modules and the lists that say which one has which command.
fn put_modules(to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(GRUB).expect("grub-pc-bin has to be installed") {
        let from = entry.unwrap().path();
        let extension = from.extension().unwrap_or_default();
        if extension == "mod" || extension == "lst" {
            fs::copy(&from, to.join(from.file_name().unwrap())).unwrap();
        }
    }
}

/// How GRUB names a partition by its place among those with a file system.
pub fn grub_device(recipe: &Recipe, place: u32) -> String {
    match recipe.gpt {
        true => format!("hd0,gpt{}", place + 1),
        false => format!("hd0,msdos{place}"),
    }
}

fn prefix(recipe: &Recipe) -> String {
    let directory = if recipe.separate_boot { "" } else { "/boot" };
    format!("({}){directory}/grub", grub_device(recipe, 1))
}

/// GRUB's boot sector and core image with the places that grub-install sets.
fn put_real_grub(image: &Path, core_lba: u64, prefix: &str) {
    let core = tempfile::NamedTempFile::new().unwrap();
    let out = core.path().to_str().unwrap();
    let mut arguments = vec!["-O", "i386-pc", "-p", prefix, "-o", out];
    arguments.extend(["biosdisk", "part_gpt", "part_msdos", "ext2"]);
    program("grub-mkimage", &arguments);
    let boot = fs::read(Path::new(GRUB).join("boot.img")).unwrap();
    write_at(image, 0, &boot[..440]);
    write_at(image, 0x5c, &core_lba.to_le_bytes());
    write_at(image, core_lba * 512, &fs::read(core.path()).unwrap());
    write_at(image, core_lba * 512 + 500, &(core_lba + 1).to_le_bytes());
}

pub fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

/// Runs prepare with JSON output and expects it to succeed.
pub fn prepare(made: &Made, more: &[&str]) -> (PathBuf, serde_json::Value, String) {
    let out = made.path("published.lun");
    let mut arguments = vec!["prepare", made.image.to_str().unwrap(), "--json", "--out"];
    arguments.push(out.to_str().unwrap());
    arguments.extend(more);
    let (code, stdout, stderr) = imgstreamctl(&arguments);
    assert_eq!(code, 0, "{stderr}");
    (out, serde_json::from_str(&stdout).unwrap(), stderr)
}

pub fn published(lun: &Path) -> Published {
    Published::read(&mut Disk::open(lun).unwrap()).unwrap()
}

/// The image part of a LUN, in a file of its own.
pub fn image_of(made: &Made, lun: &Path) -> PathBuf {
    let copy = made.path("image-part.img");
    fs::copy(lun, &copy).unwrap();
    let len = published(lun).trailer.image_bytes;
    let file = OpenOptions::new().write(true).open(&copy).unwrap();
    file.set_len(len).unwrap();
    copy
}

/// A copy of the image part with everything outside of the boot region set to
/// 0xa5, as on a disk on which the source's data still stands there.
pub fn poisoned(made: &Made, lun: &Path) -> PathBuf {
    let copy = image_of(made, lun);
    let manifest = published(lun).manifest;
    let file = OpenOptions::new().write(true).open(&copy).unwrap();
    for block in 0..manifest.image_bytes / 4096 {
        if !manifest.boot_region.contains(block) {
            file.write_all_at(&[0xa5; 4096], block * 4096).unwrap();
        }
    }
    copy
}

/// Free blocks of the root file system in `image`, as dumpe2fs prints them.
pub fn free_blocks(made: &Made, image: &Path) -> Vec<u64> {
    // dumpe2fs of e2fsprogs 1.47.2 takes no offset: it gets a file of its own.
    let copy = made.path("filesystem.img");
    let (from, to) = (
        fs::File::open(image).unwrap(),
        fs::File::create(&copy).unwrap(),
    );
    let end = fs::metadata(image).unwrap().len().min(made.end);
    to.set_len(end - made.root_start).unwrap();
    let mut block = vec![0; MIB as usize];
    for at in (made.root_start..end).step_by(MIB as usize) {
        from.read_exact_at(&mut block, at).unwrap();
        if block.iter().any(|byte| *byte != 0) {
            to.write_all_at(&block, at - made.root_start).unwrap();
        }
    }
    let said = program("dumpe2fs", &[copy.to_str().unwrap()]).stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    said.lines()
        .filter_map(|line| line.strip_prefix("  Free blocks: "))
        .flat_map(|line| line.split(", "))
        .filter(|piece| !piece.is_empty())
        .flat_map(|piece| {
            let (a, b) = piece.split_once('-').unwrap_or((piece, piece));
            a.parse::<u64>().unwrap()..=b.parse::<u64>().unwrap()
        })
        .collect()
}
