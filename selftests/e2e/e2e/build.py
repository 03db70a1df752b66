# SPDX-License-Identifier: GPL-2.0-only
"""Prepared disks, kept in the cache under a name made of all that they were made from."""

import inspect
import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

from . import content, disk, filelist, rootfs
from .config import CACHE
from .shell import key_of, run


class Prepared:
    """A directory of the cache: disk.raw, files.json, facts.json."""

    def __init__(self, path):
        self.path = path
        self.disk = path / "disk.raw"
        self.published = path / "published.raw"
        self.files = path / "files.json"
        self.dumped = path / "dumpe2fs"  # of the root file system

    @property
    def facts(self):
        return json.loads((self.path / "facts.json").read_text())


def _key(system, extra):
    makers = [inspect.getsource(module) for module in (rootfs, content, disk, filelist)]
    return key_of(asdict(system), rootfs.packages(system), makers, inspect.getsource(prepare), extra)


def prepare(system, log, extra=None, install=None, publish=None):
    """The system's disk; `install` adds to the tree, `publish` makes the LUN from the disk."""
    final = CACHE / f"{system.name}-{_key(system, extra)}"
    if final.exists():
        return Prepared(final)
    CACHE.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{system.name}-", dir=CACHE))
    try:
        made = _make(system, work, log, install, publish)
        (work / "facts.json").write_text(json.dumps(made) + "\n")
        shutil.rmtree(work / "tree")
        work.rename(final)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    _drop_older(system, final)
    return Prepared(final)


def _drop_older(system, keep):
    """Disks of this system that were made from something else: nobody will ask for them again."""
    for path in CACHE.glob(f"{system.name}-*"):
        if path != keep:
            shutil.rmtree(path, ignore_errors=True)


def clean(systems, log):
    """Removes what the cache has of systems that there are no more, and of builds that were cut off."""
    names = {system.name for system in systems}
    tars = {rootfs.place_of_tar(system) for system in systems}
    CACHE.mkdir(parents=True, exist_ok=True)
    for path in sorted(CACHE.iterdir()):
        if path in tars or path.name.rpartition("-")[0] in names:
            continue
        log(f"removing {path}")
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _make(system, work, log, install, publish):
    tree = rootfs.unpack(system, work / "tree", log)
    if system.users_mib:
        content.make(tree / "home/alice", system.users_mib, seed=1)
    if install:
        install(tree)
    log(f"{system.name}: making initramfs and boot loader")
    grub = rootfs.boot_files(system, tree)
    log(f"{system.name}: making the disk")
    image, root = work / "disk.raw", work / "root.ext4"
    boot = work / "boot.ext4"
    disk.make_file_systems(system, tree, root, boot)
    if system.users_far_mib:
        home = disk.fill_far(system, root, work)
        shutil.copytree(home, tree / "home/bob", copy_function=shutil.move)
        shutil.rmtree(home)
    disk.check_clean(root)
    (work / "dumpe2fs").write_text(run("dumpe2fs", root))
    facts = {"kernel": rootfs.kernel_version(tree), "used": disk.used_share(root)}
    disk.partition(system, image)
    disk.put(root, image, system.root_offset)
    if system.boot_mib:
        disk.put(boot, image, system.boot_offset)
    disk.write_boot_code(system, image, grub)
    filelist.save(filelist.of_tree(tree), work / "files.json")
    if publish:
        log(f"{system.name}: imgstreamctl prepare")
        facts["published"] = publish(image, work / "published.raw")
    return facts
