# SPDX-License-Identifier: GPL-2.0-only
"""The main job in steps: what a person does, typed into the machines by the driver."""

import json
import re

from . import check, payload, vm
from .repository import Repository, Shelf
from .timeline import Timeline, mib

# What the running systems change by themselves, and why it does not count.
LEAVE_OUT_SOURCE = (
    "/var/log/", "/var/lib/systemd/", "/var/cache/", "/var/tmp", "/tmp", "/root",  # logs, seeds, caches
    "/var/lib/dhcp/", "/etc/resolv.conf", "/run",  # the network's lease
    "/boot/grub/grubenv", "/boot/grub/custom.cfg",
    "/etc/adjtime", "/etc/mtab", "/dev", "/proc", "/sys", "/lost+found",
)
# What the end of a commit takes out of the target's boot path.
REMOVED = (
    "/etc/kernel/preinst.d/imgstream",
    "/usr/lib/systemd/system/imgstream-finish.service",
    "/usr/lib/systemd/system/multi-user.target.wants/imgstream-finish.service",
    "/usr/share/initramfs-tools/hooks/imgstream",
    "/usr/share/initramfs-tools/scripts/local-block/imgstream",
    "/usr/share/initramfs-tools/scripts/local-premount/imgstream",
    "/usr/share/initramfs-tools/scripts/local-top/imgstream",
)
LEAVE_OUT_TARGET = LEAVE_OUT_SOURCE + REMOVED + (
    "/var/lib/dpkg/",  # a package was installed
    "/boot/initrd.img-",  # made again without imgstream when it left the boot path
)

SAID = re.compile(r"imgstream: (?:\[ *[\d.]+ s\] )?(.*)")
NOISE = re.compile(r"taints? kernel|module verification|loading out-of-tree| of [\d.]+ [KMGT]iB|MiB/s|move to another image'")

STREAMED = "/root/written-while-streaming"
LISTED = "/root/files"


class Job:
    """One run over a fresh pair of overlays."""

    def __init__(self, name, title, pair, work, more_mib=0):
        self.name, self.pair = name, pair
        self.work = work / name
        self.work.mkdir(parents=True, exist_ok=True)
        for old in self.work.iterdir():
            if old.is_file():
                old.unlink()
        self.time = Timeline(name, title, self.work / "timeline.json")
        self.disk = vm.overlay(pair.source.disk, self.work / "disk.qcow2", more_mib)
        self.repository = Repository(pair.target.published, self.work, name)
        self.machine = None
        self.options = []  # of every migrate

    def __enter__(self):
        return self

    def __exit__(self, failure, *_):
        if self.machine:
            self.machine.kill()
        self.repository.__exit__()
        if not failure:
            self.disk.unlink()  # of a run that failed it is worth a look

    def say(self, who, what):
        return self.time.say(who, what)

    # --- power ----------------------------------------------------------------------------------

    def power_on(self, hostname, network=True, seconds=300):
        """Boots whatever is on the disk and waits for its login prompt; gives the seconds that took."""
        began = self.switch_on(network)
        return self.await_login(hostname, seconds) - began

    def switch_on(self, network=True):
        self.machine = vm.Vm(self.disk, self.work, self.pair.memory_mib, network, self.name)
        self.machine.console.on_line = self._tell
        return self.say("machine", "power on" + ("" if network else ", no network card"))

    def await_login(self, hostname, seconds=300):
        self.machine.login(hostname, seconds)
        at = self.say(hostname, "login prompt")
        self.machine.open_shell(hostname)
        return at

    def _tell(self, line):
        """What imgstream says on the console belongs to the story."""
        found = SAID.search(line)
        if found and not NOISE.search(line):
            self.say("console", found.group(1).strip())

    def power_off(self):
        self.machine.power_off()
        self.say("machine", "power off")

    def cut_power(self):
        """The machine is off at once, whatever it was doing."""
        self.machine.kill()
        self.say("machine", "the power is cut")

    # --- migrate --------------------------------------------------------------------------------

    def start_source(self):
        source = self.pair.source_system.hostname
        self.power_on(source)
        with Shelf(payload.imgstreamctl()) as shelf:
            shelf.carry_to(self.machine, "/usr/local/sbin/imgstreamctl", "0755")
        self.say(source, "imgstreamctl copied to /usr/local/sbin")

    def migrate_words(self, *options):
        """The command as a person types it."""
        repository = self.repository
        return " ".join(["imgstreamctl", "migrate", "--portal", repository.portal, "--target", repository.iqn,
                         "--yes", *self.options, *options])

    def begin_migrate(self, *options):
        """Types the one command; the machine reboots by itself."""
        words = self.migrate_words(*options)
        self.began = self.say(self.pair.source_system.hostname, "$ " + words)
        self.mark = self.machine.console.mark()
        self.machine.port.type(words + "; echo \"migrate-ended:$?\"\n")
        self.machine.refuse(self.machine.port, r"migrate-ended:[1-9]")
        self.machine.refuse(self.machine.console, r"imgstream: .*refused: .*\n")

    def await_target(self, seconds=600):
        """Stage and the target's boot; gives the seconds since `migrate` began."""
        target = self.pair.target_system.hostname
        self.machine.login(target, seconds, self.mark)
        ready = self.say(target, "login prompt") - self.began
        fetched = self.repository.relay.fetched
        self.say("repository", f"{mib(fetched)} fetched so far")
        self.machine.open_shell(target)
        return ready, fetched

    def status(self):
        return json.loads(self.machine.command("imgstreamctl status --json")[1])

    # --- in the target --------------------------------------------------------------------------

    def root_is_imgstream(self):
        _, root = self.machine.command("findmnt -no SOURCE /")
        check.expect(root.startswith("/dev/imgstream0"), f"root is {root}")
        check.raw_partitions_hidden(self.machine, self.pair.target_system)
        self.say(self.pair.target_system.hostname, f"root is {root}, the raw partitions are hidden")

    def watch_and_fill(self):
        """The commands that look on and that set the background fill, which is slow from then on."""
        for words, expected in (("on", "on 0 0"), ("off", "off 0 0"), ("on --min 64 --max 512", "on 64 512")):
            self.machine.command("imgstreamctl fill " + words)
            check.expect(self.status()["fill"] == expected, f"fill {words}: {self.status()['fill']}")
        self.machine.command("timeout 5 imgstreamctl watch --json > /run/watched", check=False)
        _, said = self.machine.command("cat /run/watched")
        seen = [json.loads(line) for line in said.splitlines()]
        check.expect(seen and all(line["state"] == "streaming" for line in seen), f"watch said:\n{said}")

    def work_while_streaming(self):
        """A package is installed and files are written with fsync while blocks are still absent."""
        target = self.pair.target_system.hostname
        deb, sums = payload.package(self.work)
        with Shelf(deb) as shelf:
            shelf.carry_to(self.machine, "/root/demo.deb")
        self.machine.command("dpkg -i /root/demo.deb")
        (self.work / "package.sums").write_text(sums)
        with Shelf(self.work / "package.sums") as shelf:
            shelf.carry_to(self.machine, "/root/demo.sums")
        self.machine.command(f"dd if=/dev/urandom of={STREAMED} bs=64k count=64 oflag=dsync status=none"
                             f" && sha256sum {STREAMED} > /root/written.sums && sync /root/written.sums")
        self.say(target, "package installed, 4 MiB written with O_DSYNC")

    def work_is_there(self):
        self.machine.command("sha256sum --quiet -c /root/demo.sums /root/written.sums && dpkg -s imgstream-demo")

    def commit(self, seconds=900):
        target = self.pair.target_system.hostname
        began = self.say(target, "$ imgstreamctl commit --now --wait --yes")
        self.machine.command("imgstreamctl commit --now --wait --yes", seconds=seconds)
        took = self.say(target, "committed") - began
        return took

    # --- the disk, from outside -----------------------------------------------------------------

    def raw(self):
        return vm.raw_of(self.disk, self.work / "disk.raw")

    def ends(self):
        """A sparse file with only the first and the last MiB of the disk."""
        return vm.ends_of(self.disk, self.work / "ends.raw")
