# SPDX-License-Identifier: GPL-2.0-only
"""The runs: commit, roll back, commit from the initramfs, repository gone at boot."""

import json
import re

from . import check, vm
from .check import expect
from .job import LEAVE_OUT_SOURCE, LEAVE_OUT_TARGET, LISTED, REMOVED, Job
from .timeline import Timeline, mib


def local_boot(pair, work):
    """The same image installed on a disk: what a boot costs without imgstream."""
    time = Timeline("The target's image, installed on a disk", work / "local.json")
    disk = vm.overlay(pair.target.disk, work / "local.qcow2")
    with vm.Vm(disk, work, pair.memory_mib, name="local") as machine:
        time.say("machine", "power on")
        machine.login(pair.target_system.hostname)
        took = time.say(pair.target_system.hostname, "login prompt")
        machine.open_shell(pair.target_system.hostname)
        machine.power_off()
    return {"local_boot_s": round(took, 1)}


def migrate_and_commit(pair, work, outage=False):
    """Run 1: migrate, work while it streams, commit, and boot the plain disk without a network."""
    with Job("commit", "Run 1: migrate, work, commit, boot without a network", pair, work) as job:
        job.start_source()
        job.begin_migrate()
        if outage:
            repository_gone(job)
        ready, fetched = job.await_target()
        job.root_is_imgstream()
        check.carry_lists(job.machine, pair.target.files, job.work, LISTED, LEAVE_OUT_TARGET)
        job.work_while_streaming()
        took = job.commit()
        job.work_is_there()
        job.power_off()
        count = _plain_boot(job)
        raw = job.raw()
        check.gpt_is_whole(raw)
        raw.unlink()
        job.say("disk", "GPT is whole, its backup in the last sector")
    return {"ready_s": round(ready, 1), "fetched_at_ready_bytes": fetched, "commit_s": round(took, 1),
            "network_free_boot": True, "files_checked": count}


def _plain_boot(job):
    """The committed disk by itself: no network card, no module, every file as in the list."""
    target = job.pair.target_system.hostname
    before = job.repository.relay.connections
    job.repository.stop()
    job.power_on(target, network=False)
    check.no_network(job.machine)
    check.plain_disk(job.machine)
    job.say(target, "root is the disk's own partition, imgstream.ko is not loaded")
    job.work_is_there()
    count = check.every_file(job.machine, LISTED)
    check.gone(job.machine, REMOVED)
    check.healthy(job.machine)
    job.say(target, f"{count} files agree with the image's list; file system clean")
    expect(job.repository.relay.connections == before, "the repository was contacted after the commit")
    job.power_off()
    return count


def repository_gone(job):
    """The repository is away when the target boots: it waits, says so, and goes on by itself."""
    console = job.machine.console
    console.await_text(r"imgstream: .*done; the computer starts again", job.mark, 600, job.machine.alive)
    job.repository.stop()
    job.say("repository", "stopped")
    mark = console.mark()
    console.await_text(r"imgstream: no connection to the repository at .*reads wait", mark, 300, job.machine.alive)
    expect("login:" not in console.text[mark:], "the target started without its repository: nothing was tested")
    job.repository.start()
    job.say("repository", "back")


def roll_back(pair, work):
    """Run 2: migrate and go back; the source is as it was."""
    with Job("rollback", "Run 2: migrate, then roll back", pair, work) as job:
        job.start_source()
        check.carry_lists(job.machine, pair.source.files, job.work, LISTED, LEAVE_OUT_SOURCE)
        job.machine.command("sync")
        job.begin_migrate("--hash-source")
        job.await_target()
        job.root_is_imgstream()
        job.work_while_streaming()
        facts = json.loads(job.machine.command("imgstreamctl dump --json /dev/vda")[1])
        moved = pair.blocks_to_move(facts["source_bytes"])
        expect(moved > 0, "the shrink had no block to move: this source proves nothing")
        job.say("disk", f"the shrink moved {moved} blocks that stood beyond S, byte {facts['source_bytes']}")
        began = job.say(pair.target_system.hostname, "$ imgstreamctl rollback --yes")
        _back_to_the_source(job)
        took = job.time.now() - began
        took -= _compare_shrunk_source(job, facts)
        took += job.power_on(pair.source_system.hostname)
        count = _source_again(job)
        job.power_off()
    return {"rollback_s": round(took, 1), "source_identical": True, "source_files_checked": count}


def _back_to_the_source(job):
    """The target's initramfs puts the source back; then the machine is switched off to be looked at."""
    mark = job.machine.console.mark()
    job.machine.port.type("imgstreamctl rollback --yes\n")
    _pick(job, "Debian, power off after a roll back", "p", mark)
    job.machine.await_off(600)
    job.say("machine", "rolled back and powered off")


def _pick(job, entry, key, since):
    """Chooses an entry of the target's boot menu."""
    job.machine.console.await_text(re.escape(entry), since, 600, job.machine.alive)
    job.machine.console.type(key)
    return job.say("GRUB", f"'{entry}' is chosen")


def _compare_shrunk_source(job, facts):
    """[0, S) of the powered-off disk against the hash that was recorded right after the shrink; gives the seconds it took."""
    began = job.time.now()
    raw = job.raw()
    found = check.hash_of_start(raw, facts["source_bytes"])
    raw.unlink()
    expect(found == facts["source_hash"], "the shrunk source differs from what it was right after the shrink")
    return job.say("disk", f"[0, S), {mib(facts['source_bytes'])}, is as it was right after the shrink") - began


def _source_again(job):
    check.plain_disk(job.machine)
    count = check.every_file(job.machine, LISTED)
    check.healthy(job.machine)
    job.say(job.pair.source_system.hostname, f"{count} files are as before migrate; file system clean")
    return count


def commit_in_initramfs(pair, work):
    """Run 3: commit with root never mounted; the host compares the powered-off disk."""
    with Job("initramfs", "Run 3: commit from the initramfs, root never mounted", pair, work) as job:
        job.start_source()
        job.static_address()
        job.begin_migrate()
        began = _pick(job, "Debian, commit from the initramfs", "x", job.mark)
        job.machine.await_off(900)
        took = job.say("machine", "committed and powered off") - began
        raw = job.raw()
        length = pair.image_bytes
        used = check.same_bytes(raw, pair.target.published, length, check.gpt_bytes(length))
        check.gpt_is_whole(raw)
        raw.unlink()
        listed = ", ".join(f"{name}: {count}" for name, count in used.items()) or "none"
        job.say("disk", f"{mib(length)} equal the image; differing bytes: {listed}")
    return {"commit_verified": True, "initramfs_commit_s": round(took, 1)}
