# SPDX-License-Identifier: GPL-2.0-only
"""Trees of installed Debian systems, made by mmdebstrap and set up for a serial console."""

import os
import shutil
import uuid
from pathlib import Path

from .config import CACHE, REPO
from .shell import Failed, in_tree, key_of, run

AUTOLOGIN = """[Service]
ExecStart=
ExecStart=-/sbin/agetty -o '-p -f -- \\\\u' --autologin root --keep-baud 115200 - vt220
"""

INTERFACES = """auto lo
iface lo inet loopback
"""
DHCP = """
auto ens3
iface ens3 inet dhcp
"""

# An image as small as that of a test is here before its system has started, on a computer that starts it slowly.
FILLS_SLOWLY = """[Unit]
DefaultDependencies=no
ConditionPathExists=/sys/block/imgstream0/imgstream

[Service]
Type=oneshot
ExecStart=/usr/sbin/imgstreamctl fill on --min 64 --max 512
"""

GRUB_DEFAULTS = """GRUB_DEFAULT=0
GRUB_TIMEOUT={timeout}
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="{cmdline}"
GRUB_TERMINAL=serial
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
"""

# grub-mkconfig asks grub-probe about the devices of / and /boot: there are none yet, the answers are known.
PROBE = """#!/bin/sh
number={root} uuid={root_uuid}
for word in "$@"; do
	case $word in
	--target=*) target=${{word#--target=}};;
	-t) target=;;
	/boot*|/dev/vda{boot}) number={boot} uuid={boot_uuid};;
	*) [ -n "$target" ] || target=$word;;
	esac
done
case $target in
device) echo /dev/vda$number;; fs_uuid) echo $uuid;; fs) echo ext2;; partmap) echo {partmap};;
drive) echo "(hd0,{partmap}$number)";; compatibility_hint) echo hd0,{partmap}$number;;
hints_string) echo --hint-bios=hd0,{partmap}$number;;
partuuid|abstraction) :;; *) exit 1;; esac
"""

# The ordinary entry twice more, with switches for the host to look at the powered-off disk; a key of the menu picks one
# (not c or e, which are GRUB's own).
EXTRA_ENTRIES = """#!/bin/sh
entry() {{
cat << EOF
menuentry '$1' --hotkey=$2 {{
	insmod part_{partmap}
	insmod ext2
	search --no-floppy --fs-uuid --set=root {boot_uuid}
	linux /boot/vmlinuz-{version} root=UUID={root_uuid} ro {cmdline} $3
	initrd /boot/initrd.img-{version}
}}
EOF
}}
entry 'Debian, commit from the initramfs' x 'imgstreamctl.commit=now imgstreamctl.after=poweroff'
entry 'Debian, power off after a roll back' p 'imgstreamctl.after=poweroff'
entry 'Debian, the module cannot be loaded' n 'module_blacklist=imgstream'
"""


def root_uuid(system):
    """The file system's UUID: the same whenever the same system is made."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "imgstream-e2e/" + system.name))


def boot_uuid(system):
    """The same of the file system that /boot is in."""
    if not system.boot_mib:
        return root_uuid(system)
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"imgstream-e2e/{system.name}/boot"))


def _partmap(system):
    """GRUB's name of the partition table."""
    return "gpt" if system.table == "gpt" else "msdos"


def _apt_lines(system):
    mirror = run(REPO / "scripts/mirror").strip()
    suites = [system.suite] + (["trixie-backports"] if system.suite == "trixie" else [])
    return [f"deb {mirror} {suite} main" for suite in suites]


def kernel_package(system):
    """The system's kernel: Debian's own, or the one that the module is built for."""
    if not system.has_imgstream:
        return system.kernel
    return "linux-image-" + run(REPO / "scripts/kernel-release").split()[0]


def packages(system):
    kernel = kernel_package(system)
    backport = ["linux-base/trixie-backports"] if system.suite == "trixie" else []
    return [*system.packages, *backport, kernel]


def place_of_tar(system):
    """Where the cache has, or will have, the system as its packages leave it."""
    key = key_of(system.suite, packages(system), 2)
    return CACHE / f"rootfs-{system.suite}-{key}.tar"


def base_tar(system, log):
    """A tar of the system as its packages leave it, from the cache if it is there."""
    tar = place_of_tar(system)
    if tar.exists():
        return tar
    log(f"{system.name}: installing {system.suite} with mmdebstrap")
    CACHE.mkdir(parents=True, exist_ok=True)
    part = tar.with_suffix(f".{os.getpid()}.tar")
    preseed = 'echo "grub-pc grub-pc/install_devices_empty boolean true" | chroot "$1" debconf-set-selections'
    run("mmdebstrap", "--variant=minbase", f"--include={','.join(packages(system))}",
        f"--essential-hook={preseed}", '--customize-hook=rm -rf "$1"/var/lib/apt/lists/*',
        system.suite, part, *_apt_lines(system), env={**os.environ, "INITRD": "No"})
    part.rename(tar)
    return tar


def unpack(system, tree, log):
    """Unpacks the system's tar into an empty directory and sets the system up."""
    tar = base_tar(system, log)
    tree.mkdir(parents=True)
    run("tar", "-C", tree, "--numeric-owner", "--xattrs", "--exclude=./dev/*", "-xpf", tar)
    _identity(system, tree)
    _consoles(tree)
    _network(system, tree)
    if system.fills_slowly:
        _fills_slowly(tree)
    return tree


def kernel_version(tree):
    versions = sorted(p.name for p in (tree / "lib/modules").iterdir())
    if len(versions) != 1:
        raise Failed(f"{tree}: one kernel expected, found {versions}")
    return versions[0]


def _write(path, text, mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _identity(system, tree):
    ident = uuid.uuid5(uuid.NAMESPACE_URL, "imgstream-e2e/machine/" + system.name).hex
    _write(tree / "etc/machine-id", ident + "\n", 0o444)
    _write(tree / "etc/hostname", system.hostname + "\n")
    _write(tree / "etc/hosts", f"127.0.0.1 localhost {system.hostname}\n")
    table = f"UUID={root_uuid(system)} / ext4 errors=remount-ro 0 1\n"
    if system.boot_mib:
        table += f"UUID={boot_uuid(system)} /boot ext4 defaults 0 2\n"
    _write(tree / "etc/fstab", table)
    for timer in ("apt-daily.timer", "apt-daily-upgrade.timer"):
        link = tree / "etc/systemd/system" / timer
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")


def _consoles(tree):
    """ttyS0: what a person sees. ttyS1: where the runs type their commands."""
    units = tree / "etc/systemd/system"
    _write(units / "serial-getty@.service.d/autologin.conf", AUTOLOGIN)
    wants = units / "getty.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    for tty in ("ttyS0", "ttyS1"):
        link = wants / f"serial-getty@{tty}.service"
        link.unlink(missing_ok=True)
        link.symlink_to("/lib/systemd/system/serial-getty@.service")


def _network(system, tree):
    text = INTERFACES if system.has_imgstream else INTERFACES + DHCP
    _write(tree / "etc/network/interfaces", text)


def _fills_slowly(tree):
    units = tree / "etc/systemd/system"
    _write(units / "fills-slowly.service", FILLS_SLOWLY)
    wants = units / "sysinit.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants / "fills-slowly.service").symlink_to("../fills-slowly.service")


def boot_files(system, tree):
    """Makes initramfs, GRUB's configuration and its core image; the tree is complete then."""
    version = kernel_version(tree)
    in_tree(tree, "update-initramfs", "-c", "-k", version)
    grub = tree / "boot/grub"
    _write(tree / "etc/default/grub", GRUB_DEFAULTS.format(timeout=2 if system.has_imgstream else 1, cmdline=system.cmdline))
    if system.has_imgstream:
        _write(tree / "etc/grub.d/40_custom",
               EXTRA_ENTRIES.format(root_uuid=root_uuid(system), boot_uuid=boot_uuid(system),
                                    partmap=_partmap(system), version=version, cmdline=system.cmdline), 0o755)
    _grub_modules(tree)
    in_tree(tree, "grub-editenv", "/boot/grub/grubenv", "create")
    partmap = _partmap(system)
    place = "/grub" if system.boot_mib else "/boot/grub"
    in_tree(tree, "grub-mkimage", "-O", "i386-pc", "-p", f"(,{partmap}{system.boot_number}){place}",
            "-o", "/boot/grub/i386-pc/core.img", "biosdisk", f"part_{partmap}", "ext2")
    _grub_config(system, tree)
    return grub / "i386-pc"


def _grub_modules(tree):
    source, place = tree / "usr/lib/grub/i386-pc", tree / "boot/grub/i386-pc"
    place.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        if file.suffix in (".mod", ".lst", ".img"):
            shutil.copy(file, place / file.name)


def _grub_config(system, tree):
    probe, kept = tree / "usr/sbin/grub-probe", tree / "usr/sbin/grub-probe.kept"
    probe.rename(kept)
    try:
        _write(probe, PROBE.format(
            root=system.root_number, root_uuid=root_uuid(system), boot=system.boot_number, boot_uuid=boot_uuid(system),
            partmap=_partmap(system)), 0o755)
        in_tree(tree, "grub-mkconfig", "-o", "/boot/grub/grub.cfg")
    finally:
        kept.rename(probe)
    # Without udev's links grub-mkconfig names the device instead of the file system, and without a mount it does not know
    # that /boot is one of its own.
    config = tree / "boot/grub/grub.cfg"
    text = config.read_text().replace(f"root=/dev/vda{system.root_number}", "root=UUID=" + root_uuid(system))
    if "/boot/vmlinuz-" not in text:
        raise Failed(f"{config}: grub-mkconfig found no kernel")
    if system.boot_mib:
        text = text.replace("/boot/vmlinuz-", "/vmlinuz-").replace("/boot/initrd.img-", "/initrd.img-")
    config.chmod(0o644)
    config.write_text(text)
