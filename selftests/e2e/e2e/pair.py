# SPDX-License-Identifier: GPL-2.0-only
"""A source and a target, prepared and proved fit for the runs."""

import inspect
import json

from . import build, disk, payload, rootfs
from .check import expect
from .config import BLOCK, BUILD
from .shell import key_of, run


class Pair:
    """Both systems' disks and what the runs need to know of them."""

    def __init__(self, variant, log):
        self.source_system, self.target_system = variant.source, variant.target
        self.memory_mib = variant.memory_mib
        work = BUILD / "e2e"
        work.mkdir(parents=True, exist_ok=True)
        self.target = _target(variant.target, work, log)
        self.source = build.prepare(variant.source, log)
        self.image_bytes = self.target.facts["published"]["manifest"]["image_bytes"]
        self._prove(log)

    def blocks_to_move(self, source_end_bytes):
        """Blocks of the source's file system at or beyond the place where it will end."""
        return disk.blocks_used_from(
            self.source.dumped.read_text(), self.source_system.root_offset // BLOCK, source_end_bytes // BLOCK)

    def _prove(self, log):
        """A read of the wrong side must not be able to hide; done once for a pair of disks."""
        proof = self.target.path / f"proved-{self.source.path.name}.json"
        if not proof.exists():
            nonzero, differ = disk.blocks_that_differ(self.target.published, self.source.disk)
            expect(differ >= 0.9 * nonzero, f"only {differ} of {nonzero} blocks differ between the systems")
            proof.write_text(json.dumps({"nonzero": nonzero, "differ": differ}))
        facts = json.loads(proof.read_text())
        share = 100 * facts["differ"] / facts["nonzero"]
        log(f"{share:.1f} % of the image's {facts['nonzero']} non-zero blocks differ from the source at the same address")


def _target(system, work, log):
    kernel = rootfs.kernel_package(system).removeprefix("linux-image-")
    place = payload.staged(work, kernel)

    def publish(image, published):
        said = run(payload.imgstreamctl(), "prepare", "--json", image, "--out", published)
        return json.loads(said[said.index("{"):])

    return build.prepare(
        system, log, extra=[payload.key_of_tree(place), key_of(inspect.getsource(payload))],
        install=payload.install_into(place, kernel), publish=publish)
