# SPDX-License-Identifier: GPL-2.0-only
"""The runs: commit, roll back, commit from the initramfs. The small tier makes the first two harder: the repository is gone
at boot, the module cannot be loaded, the power is cut."""

import json
import re

from . import chap, check, network, source, vm
from .check import expect
from .cut import Cut
from .job import LEAVE_OUT_SOURCE, LEAVE_OUT_TARGET, LISTED, REMOVED, Job
from .timeline import Timeline, mib

FINISH_UNIT = "/usr/lib/systemd/system/imgstream-finish.service"
NO_SUPERBLOCK = 30  # an exit code of imgstreamctl


def local_boot(pair, work):
    """The same image installed on a disk: what a boot costs without imgstream."""
    time = Timeline("local", "The target's image, installed on a disk", work / "local.json")
    disk = vm.overlay(pair.target.disk, work / "local.qcow2")
    with vm.Vm(disk, work, pair.memory_mib, name="local") as machine:
        time.say("machine", "power on")
        machine.login(pair.target_system.hostname)
        took = time.say(pair.target_system.hostname, "login prompt")
        machine.open_shell(pair.target_system.hostname)
        machine.power_off()
    disk.unlink()
    return {"local_boot_s": round(took, 1)}


def migrate_and_commit(pair, work, harder=False):
    """Run 1: migrate, work while it streams, commit, and boot the plain disk without a network."""
    with Job("commit", "Run 1: migrate, work, commit, boot without a network", pair, work) as job:
        job.start_source()
        job.begin_migrate()
        if harder:
            repository_gone(job)
        ready, fetched = job.await_target()
        job.root_is_imgstream()
        check.carry_lists(job.machine, pair.target.files, job.work, LISTED, LEAVE_OUT_TARGET)
        job.work_while_streaming()
        if harder:
            commit_paused_and_cut(job)
            took = commit_cut_at_its_end(job)
        else:
            took = job.commit()
            job.work_is_there()
            job.power_off()
        count = _plain_boot(job)
        if pair.target_system.table == "gpt":
            check.gpt_is_whole(job.ends())
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
    check.plain_disk(job.machine, job.pair.target_system)
    job.say(target, "root is the disk's own partition, imgstream.ko is not loaded")
    job.work_is_there()
    count = check.every_file(job.machine, LISTED)
    _await_finished(job)
    check.healthy(job.machine)
    job.say(target, f"{count} files agree with the image's list; file system clean")
    expect(job.repository.relay.connections == before, "the repository was contacted after the commit")
    job.power_off()
    return count


def repository_gone(job):
    """Network and repository are away when the target boots: it waits for each, says so, and goes on by itself."""
    console = job.machine.console
    console.await_text(r"imgstream: .*done; the computer starts again", job.mark, 600, job.machine.alive)
    job.repository.stop()
    job.machine.cable(False)
    job.say("repository", "stopped, and the machine's cable is out")
    mark = begin = console.mark()
    console.await_text(r"imgstream: .*(waiting for the repository|the network is waited for)", mark, 300, job.machine.alive)
    expect("login:" not in console.text[mark:], "the target started without its network")
    job.machine.cable(True)
    job.say("machine", "its cable is in")
    console.await_text(r"imgstream: .*network: the interface is up now", mark, 300, job.machine.alive)
    mark = console.mark()
    console.await_text(r"imgstream: no connection to the repository at .*reads wait", mark, 300, job.machine.alive)
    _console_is_asked(job, begin)
    expect("login:" not in console.text[mark:], "the target started without its repository: nothing was tested")
    job.repository.start()
    job.say("repository", "back")


def _console_is_asked(job, mark):
    """What to do, while nothing else happens."""
    console, alive = job.machine.console, job.machine.alive
    mark = console.await_text("type s for a shell, r to roll back", mark, 120, alive).end()
    console.type("s\n")
    mark = console.await_text("a shell; `exit` leaves it", mark, 60, alive).end()
    console.type("imgstreamctl status; echo asked-$((40+2)); exit\n")
    mark = console.await_text("^asked-42", mark, 60, alive).end()
    console.await_text("type s for a shell, r to roll back", mark, 60, alive)
    job.say("console", "a shell was to be had, and the question came again")


def commit_paused_and_cut(job):
    """A slow commit is paused and goes on; then the power is cut, and the next start goes on with it."""
    target, machine = job.pair.target_system.hostname, job.machine
    machine.command("imgstreamctl commit --yes --min 4096 --max 4096")
    machine.command("until [ $(cat /sys/block/imgstream0/imgstream/copied) -gt 0 ]; do sleep 0.2; done")
    machine.command("imgstreamctl pause && until grep -qx paused /sys/block/imgstream0/imgstream/commit; do sleep 0.2; done")
    paused = job.status()["copied_bytes"]
    job.work_is_there()
    expect(job.status()["copied_bytes"] == paused, "the commit went on although it was paused")
    machine.command("imgstreamctl resume")
    job.say(target, f"the commit was paused at {mib(paused)} and goes on")
    cut = Cut(job, "commit")
    cut.write_and_cut(20, beyond=paused)
    job.power_on(target)
    status = job.status()
    expect(status["state"] in ("committing", "committed") and status["copied_bytes"] >= cut.home,
           f"the commit did not go on at {cut.home}: {status}")
    job.say(target, f"still {status['state']}, {mib(status['copied_bytes'])} are home")
    cut.all_there()


def commit_cut_at_its_end(job):
    """The power fails while the initramfs is made anew: the next start does what is left."""
    target, machine = job.pair.target_system.hostname, job.machine
    began = job.say(target, "$ imgstreamctl commit --now --wait --yes")
    machine.command("sync; imgstreamctl commit --now --wait --yes > /run/commit.log 2>&1 &")
    _, half = machine.command(
        f"until ls /boot/initrd.img-*.new 2>/dev/null || ! test -e {FINISH_UNIT}; do sleep 0.2; done", seconds=900)
    expect(half, "the initramfs was made before anybody looked: nothing was tested")
    took = job.say(target, f"every block is home; {half} is being made") - began
    job.cut_power()
    return took


def roll_back(pair, work, harder=False):
    """Run 2: migrate and go back; the source is as it was."""
    with Job("rollback", "Run 2: migrate, then roll back", pair, work, more_mib=64 if harder else 0) as job:
        job.start_source()
        if harder:
            source.widen(job)
        network.fix(job)
        check.carry_lists(job.machine, pair.source.files, job.work, LISTED, LEAVE_OUT_SOURCE + (network.FILE,))
        job.machine.command("sync")
        size = source.blocks(job.machine)
        if harder:
            chap.want(job)
            source.cancel(job)
        job.begin_migrate("--hash-source")
        job.await_target()
        job.root_is_imgstream()
        if harder:
            job.watch_and_fill()
            chap.told_nobody(job)
        network.is_kept(job)
        job.work_while_streaming()
        if harder:
            _switched_off_without_the_repository(job)
            _cut_while_streaming(job)
        facts = json.loads(job.machine.command("imgstreamctl dump --json /dev/vda")[1])
        moved = pair.blocks_to_move(facts["source_bytes"])
        expect(moved > 0, "the shrink had no block to move: this source proves nothing")
        job.say("disk", f"the shrink moved {moved} blocks that stood beyond S, byte {facts['source_bytes']}")
        began = job.say(pair.target_system.hostname, "$ imgstreamctl rollback --yes")
        _back_to_the_source(job)
        took = job.time.now() - began
        took -= _compare_shrunk_source(job, facts)
        took += job.power_on(pair.source_system.hostname)
        source.await_cleaned_up(job, size)
        network.is_back(job)
        count = _source_again(job)
        job.power_off()
        if harder:
            _no_secret_is_left(job)
    return {"rollback_s": round(took, 1), "source_identical": True, "source_files_checked": count}


def _switched_off_without_the_repository(job):
    """The repository is gone and somebody waits for it: an orderly shutdown ends all the same."""
    target, machine = job.pair.target_system.hostname, job.machine
    expect(not job.status()["independent"], "everything is here already: nothing was tested")
    machine.command("until journalctl -b -u imgstream-finish | grep 'are on the disk now'; do sleep 1; done")
    job.repository.stop()
    # Programs may not be here any more: only what the shell itself has.
    machine.command("cat /dev/imgstream0 > /dev/null & until read -r n < /sys/block/imgstream0/imgstream/fetches_inflight &&"
                    " [ $n -gt 0 ]; do :; done")
    began = job.say("repository", "stopped, and a program waits for it")
    machine.power_off(600)
    took = job.say("machine", "power off all the same") - began
    job.say("machine", f"that took {took:.0f} s")
    job.repository.start()
    job.power_on(target)
    job.root_is_imgstream()
    job.work_is_there()


def _cut_while_streaming(job):
    """The power is cut; a start that cannot load the module stops with a sentence; the next one has every file."""
    target = job.pair.target_system.hostname
    cut = Cut(job, "streaming")
    expect(not job.status()["independent"], "everything is here already: nothing was tested")
    cut.write_and_cut(40)
    job.switch_on()
    _stops_without_the_module(job)
    job.await_login(target)
    expect(job.status()["state"] == "streaming", "the target does not stream any more")
    job.root_is_imgstream()
    network.is_kept(job)
    cut.all_there()
    job.work_is_there()


def _stops_without_the_module(job):
    """Nothing is mounted: the raw disk would show a file system with holes."""
    console = job.machine.console
    _pick(job, "Debian, the module cannot be loaded", "n", 0)
    console.await_text("imgstream: this system cannot be started yet", 0, 300, job.machine.alive)
    mark = console.mark()
    # Of this shell only the builtins are there for sure.
    console.type("\nwhile read -r _ on _; do echo \"on:$on\"; done < /proc/mounts; echo asked-$((40+2))\n")
    end = console.await_text(r"^asked-42", mark, 60, job.machine.alive).start()
    mounted = re.findall(r"^on:(\S+)", console.text[mark:end], re.M)
    expect("/proc" in mounted and "/root" not in mounted, f"mounted without the module: {mounted}")
    job.say(job.pair.target_system.hostname, "without its module it stops, and nothing is mounted")
    job.machine.reset()


def _back_to_the_source(job):
    """The target's initramfs puts the source back; then the machine is switched off to be looked at."""
    mark = job.machine.console.mark()
    job.machine.port.type("imgstreamctl rollback --yes\n")
    _pick(job, "Debian, power off after a roll back", "p", mark)
    job.machine.await_off(600)
    said = job.machine.console.text[mark:]
    expect("no connection to the repository" not in said, "the network was gone before the last read or write")
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
    if job.options:
        chap.on_disk(raw, there=True)  # in the stage, which this system overwrites and removes when it starts
    raw.unlink()
    expect(found == facts["source_hash"], "the shrunk source differs from what it was right after the shrink")
    return job.say("disk", f"[0, S), {mib(facts['source_bytes'])}, is as it was right after the shrink") - began


def _no_secret_is_left(job):
    raw = job.raw()
    chap.on_disk(raw, there=False)
    raw.unlink()
    job.say("disk", "no secret is left anywhere")


def _source_again(job):
    check.plain_disk(job.machine, job.pair.source_system)
    count = check.every_file(job.machine, LISTED)
    check.healthy(job.machine)
    job.say(job.pair.source_system.hostname, f"{count} files are as before migrate; file system clean")
    return count


def commit_in_initramfs(pair, work):
    """Run 3: commit with root never mounted; the host compares the powered-off disk. That the target's next start then
    takes imgstream out of its boot path is seen in commit_cut_at_its_end()."""
    with Job("initramfs", "Run 3: commit from the initramfs, root never mounted", pair, work) as job:
        job.start_source()
        job.begin_migrate()
        began = _pick(job, "Debian, commit from the initramfs", "x", job.mark)
        job.machine.await_off(900)
        took = job.say("machine", "committed and powered off") - began
        raw = job.raw()
        check.same_bytes(raw, pair.target.published, pair.image_bytes)
        raw.unlink()
        job.say("disk", f"all bytes of [0, T), {mib(pair.image_bytes)}, equal the image")
    return {"commit_verified": True, "initramfs_commit_s": round(took, 1)}


def _await_finished(job):
    """imgstream-finish.service has nothing left to do: no hook, no control area, an initramfs like any other."""
    machine = job.machine
    machine.command(f"while test -e {FINISH_UNIT}; do sleep 1; done", seconds=600)
    check.gone(machine, REMOVED)
    code, said = machine.command("imgstreamctl check /dev/vda", check=False)
    expect(code == NO_SUPERBLOCK, f"the control area is still there: {said}")
    _, said = machine.command("lsinitramfs /boot/initrd.img-$(uname -r) > /run/listed; grep -c imgstream /run/listed; grep -c . /run/listed", check=False)
    ours, all_files = map(int, said.split())
    expect(ours == 0 and all_files > 100, f"of {all_files} files in the initramfs {ours} are imgstream's")
    job.say(job.pair.target_system.hostname, "nothing of imgstream is in the boot path")
