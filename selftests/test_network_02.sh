#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Debian's ifupdown, as the drop-in of its service has it run, leaves the interface alone that the root file system arrives
# through, whatever /etc/network/interfaces says of it, and still does its work with all others.
# needs-file: disk 192M
# needs-disk: disk
# needs-module: dummy
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget /usr/bin/ip
# needs-program: /sbin/ifup /sbin/ifdown /usr/sbin/ifup /usr/sbin/ifdown /usr/lib/systemd/system/networking.service
# needs-own-boot: sets up the interface of the machine
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

unit=/usr/lib/systemd/system/networking.service
drop_in=/run/systemd/system/networking.service.d/imgstream.conf
disk=$(disk disk)
# busybox has an ip of its own, which its shell takes first.
ip() {
	/usr/bin/ip "$@"
}

# run_unit KEY FILE: what systemd runs for ExecStart or ExecStop of FILE.
run_unit() {
	sed -n "s/^$1=-*//p" "$2" >/tmp/commands
	while read -r command; do
		[ -z "$command" ] || sh -c "$command" || return
	done </tmp/commands
}
# What the unit runs, in the words of the drop-in without what is left out.
commands() {
	grep -E '^Exec(Start|Stop)=.' "$1" | sed 's| --exclude=eth0||; s|/usr/sbin/|/sbin/|'
}
addresses() {
	ip -4 -o addr show dev "$1" | sed 's/.* inet \([^ ]*\) .*/\1/' | paste -s -d ' '
}
interface() {
	ip -j addr show dev eth0
	ip -j route show default
}

plan 15
mkdir -p /etc/network /run/network
cat >/etc/network/interfaces <<'END'
auto lo eth0
iface lo inet loopback
allow-hotplug eth0
iface eth0 inet static
	address 10.0.2.99/24
auto dummy0
iface dummy0 inet static
	address 192.0.2.1/24
allow-hotplug dummy1
iface dummy1 inet static
	address 192.0.2.2/24
END
# udev's part of allow-hotplug.
touch /run/network/restart-hotplug
ip link del dummy0 2>/dev/null
ip link add dummy0 type dummy
ip link add dummy1 type dummy
ip addr flush dev eth0
make_image
serve /tmp/image
check "a disk is laid out" lay_out_own "$disk"
$guestdisk network "$disk" --mac "$(cat /sys/class/net/eth0/address)" --address 10.0.2.77/24 --gateway 10.0.2.2
check "the module loads" load
check "the disk is attached, with its network" imgstreamctl attach --network "$disk"
equal "the interface is set up" 10.0.2.77/24 "$(addresses eth0)"
before=$(interface)

equal "the drop-in is Debian's unit" "$(commands $unit)" "$(commands $drop_in)"
check "ifupdown starts" run_unit ExecStart $drop_in
equal "and brings up what it shall" "192.0.2.1/24 192.0.2.2/24" "$(addresses dummy0) $(addresses dummy1)"
equal "but not the interface" "$before" "$(interface)"
check "ifupdown stops" run_unit ExecStop $drop_in
equal "and takes the others down" " " "$(addresses dummy0) $(addresses dummy1)"
equal "but not the interface" "$before" "$(interface)"

# Else the above would say nothing.
run_unit ExecStart $unit >/tmp/started 2>&1
refuse "without the drop-in it would touch it" [ "$before" = "$(interface)" ]
check "and take it down" run_unit ExecStop $unit
equal "at its stop" "" "$(addresses eth0)"

imgstreamctl detach
check "the module goes" unload
stop_serving
finish
