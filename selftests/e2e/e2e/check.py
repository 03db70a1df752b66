# SPDX-License-Identifier: GPL-2.0-only
"""What has to be true of a disk or of a running system; each check raises when it is not."""

import hashlib
import struct
import zlib

from . import filelist
from .config import BLOCK, SECTOR
from .repository import Shelf
from .shell import Failed


def expect(condition, text):
    if not condition:
        raise Failed(text)


# --- a running system ---------------------------------------------------------------------------

def carry_lists(machine, files, work, place, leave_out):
    """Carries the list of every file into the VM, to be checked there later without a network."""
    found = filelist.load(files)
    sums, names = work / "sums", work / "names"
    sums.write_text(filelist.sums(found, leave_out))
    names.write_text("".join(sorted(
        f"{facts['mode'][-4:].lstrip('0') or '0'} {facts['owner']} {path} -> {facts.get('link', '')}\n"
        for path, facts in found.items() if not _out(path, leave_out) and facts["mode"][:2] != "20")))
    for file in (sums, names):
        with Shelf(file) as shelf:
            shelf.carry_to(machine, f"{place}.{file.name}")


def _out(path, leave_out):
    return any(path.startswith(prefix) for prefix in leave_out)


def every_file(machine, place):
    """Contents, owners, modes and links of every listed file, as the running system reads them; gives how many."""
    machine.command("sync; echo 3 > /proc/sys/vm/drop_caches")
    # Both processors at once: hashing is most of what an emulated machine does here.
    code, said = machine.command(
        f"split -n r/2 {place}.sums /run/sums. && ls /run/sums.* | xargs -P 2 -n 1 sha256sum --quiet -c", seconds=900, check=False)
    expect(code == 0, f"files differ from their list:\n{said[-3000:]}")
    _, said = machine.command(
        "find / /boot -xdev -printf '%m %U:%G %p -> %l\\n' | LC_ALL=C sort > /run/found;"
        f" LC_ALL=C sort {place}.names | LC_ALL=C comm -13 /run/found - | head -40", seconds=300)
    expect(not said, f"owners, modes or links differ from their list:\n{said}")
    count = int(machine.command(f"wc -l < {place}.sums")[1])
    expect(count > 1000, f"only {count} files are listed: this proves nothing")
    return count


def plain_disk(machine, system):
    """No imgstream in the way: root on the disk's own partition, module not loaded, no device."""
    _, root = machine.command("findmnt -no SOURCE /")
    expect(root == f"/dev/vda{system.root_number}", f"root is {root}, not the disk's own partition")
    code, said = machine.command("grep -w ^imgstream /proc/modules; ls /dev/imgstream* 2>/dev/null", check=False)
    expect(code != 0 and not said, f"imgstream is still there: {said}")


def raw_partitions_hidden(machine, system):
    """Whoever looks for file systems finds those of imgstream, not those that the raw disk seems to have."""
    _, disks = machine.command("lsblk -nro NAME,TYPE | sort")
    names = [line.split()[0] for line in disks.splitlines()]
    root = f"imgstream0p{system.root_number}"
    expect(root in names and "vda" in names, f"lsblk: {disks}")
    raw = [name for name in names if name.startswith("vda") and name != "vda"]
    expect(not raw, f"partitions of the raw disk: {raw}")
    _, known = machine.command("grep -o 'vda[0-9].*' /proc/partitions; ls /dev | grep '^vda[0-9]'; blkid | grep '^/dev/vda[0-9]'", check=False)
    expect(not known, f"partitions of the raw disk: {known}")
    _, links = machine.command("for l in /dev/disk/by-*id/* /dev/disk/by-*label/*; do echo \"$l $(readlink -f $l)\"; done")
    expect(f"/dev/{root}" in links and "/dev/vda" not in links, f"links of udev:\n{links}")


def gone(machine, paths):
    """None of these files exists."""
    _, there = machine.command("ls -d " + " ".join(paths) + " 2>/dev/null", check=False)
    expect(not there, f"still there: {there}")


def no_network(machine):
    _, said = machine.command("ls /sys/class/net")
    expect(said.split() == ["lo"], f"the machine has a network card: {said}")


def healthy(machine):
    """The file systems say clean and the kernel logged no error."""
    _, said = machine.command("for device in $(findmnt -rno SOURCE -t ext4); do dumpe2fs -h $device 2>/dev/null; done"
                              " | grep -E '^(Filesystem state|FS Error count)'")
    expect("clean" in said and "with errors" not in said and "Error count" not in said, f"file system: {said}")
    code, said = machine.command("dmesg --level=emerg,alert,crit,err | grep -E 'EXT4-fs|I/O error|imgstream|BUG|Oops' ", check=False)
    expect(code != 0, f"the kernel logged errors:\n{said}")


# --- a disk that is switched off ----------------------------------------------------------------

def hash_of_start(disk, length):
    """SHA-256 of [0, length)."""
    digest = hashlib.sha256()
    with open(disk, "rb") as file:
        while length > 0:
            data = file.read(min(length, 1 << 20))
            expect(data, f"{disk} is too short")
            digest.update(data)
            length -= len(data)
    return digest.hexdigest()


def same_bytes(disk, image, length):
    """[0, length) of both files is equal."""
    with open(disk, "rb") as a, open(image, "rb") as b:
        for at in range(0, length, 1 << 20):
            size = min(1 << 20, length - at)
            left, right = a.read(size), b.read(size)
            expect(len(left) == len(right) == size, f"{disk} or {image} ends before byte {length}")
            if left != right:
                byte = at + next(i for i, pair in enumerate(zip(left, right)) if pair[0] != pair[1])
                raise Failed(f"byte {byte} (block {byte // BLOCK}) differs from the image")


def gpt_is_whole(disk):
    """The disk's GPT as firmware wants it: the backup stands in the last sector and agrees."""
    with open(disk, "rb") as file:
        file.seek(0, 2)
        last = file.tell() // SECTOR - 1
        for own, other in ((1, last), (last, 1)):
            file.seek(own * SECTOR)
            header = bytearray(file.read(SECTOR))
            my, alternate = struct.unpack_from("<QQ", header, 24)
            crc, = struct.unpack_from("<I", header, 16)
            header[16:20] = bytes(4)
            expect(header[:8] == b"EFI PART" and (my, alternate) == (own, other)
                   and zlib.crc32(bytes(header[:92])) == crc, f"GPT header in sector {own} is not right")
