# SPDX-License-Identifier: GPL-2.0-only
"""What the runs bring along: imgstream itself, and a package to install while streaming."""

import os
import random
import shutil
from pathlib import Path

from .config import BUILD, REPO
from .shell import Failed, file_hash, in_tree, key_of, run


def imgstreamctl():
    """The statically linked program that `make tools` built."""
    path = Path(os.environ.get("IMGSTREAMCTL", BUILD / "tools/imgstreamctl"))
    if not path.exists():
        raise Failed(f"{path} is missing: run make tools")
    return path


def staged(work, kernel):
    """Everything that `make install` puts into a target, in a directory of its own."""
    place = work / "install"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    run("make", "-s", "-C", REPO, "install", f"DESTDIR={place}", f"KVER={kernel}")
    return place


def key_of_tree(tree):
    """A key for the contents of a directory."""
    return key_of([(str(p.relative_to(tree)), file_hash(p)) for p in sorted(tree.rglob("*")) if p.is_file()])


def install_into(place, kernel):
    """The step of the disk builder that adds imgstream to a target's tree."""
    def install(tree):
        run("cp", "-a", "--no-preserve=ownership", f"{place}/.", f"{tree}/")
        in_tree(tree, "depmod", "-a", kernel)
    return install


CONTROL = """Package: imgstream-demo
Version: 1.0
Architecture: all
Maintainer: imgstream <imgstream@example.org>
Description: files that are installed while the image still streams
"""
FILES, FILE_BYTES = 40, 200_000


def package(work):
    """A Debian package with some MiB of files; gives its path and the files' checksums."""
    tree = work / "package"
    shutil.rmtree(tree, ignore_errors=True)
    data = tree / "usr/share/imgstream-demo"
    data.mkdir(parents=True)
    rng = random.Random(3)
    for number in range(FILES):
        (data / f"file{number:02}").write_bytes(rng.randbytes(FILE_BYTES))
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(CONTROL)
    made = work / "imgstream-demo.deb"
    run("dpkg-deb", "--root-owner-group", "--build", tree, made)
    sums = "".join(f"{file_hash(f)}  /usr/share/imgstream-demo/{f.name}\n" for f in sorted(data.iterdir()))
    return made, sums
