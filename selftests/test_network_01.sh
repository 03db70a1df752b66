#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The network that a disk's settings describe, set up on the stock kernel: fixed addresses of both families, routers, MTU,
# VLAN, name servers; and once more, which changes nothing.
# needs-file: disk 192M
# needs-disk: disk
# needs-module: 8021q
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget /usr/bin/ip
# needs-own-boot: sets up the interface of the machine
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

disk=$(disk disk)
mac=$(cat /sys/class/net/eth0/address)
# busybox has an ip of its own, which is found first here as in an initramfs.
ip() {
	/usr/bin/ip "$@"
}
# As the kernel finds it; eth0 has what init gave it.
untouched() {
	ip link del eth0.5 2>/dev/null
	ip link set dev eth0 down
	ip addr flush dev eth0
	ip link set dev eth0 mtu 1500
	rm -f /etc/resolv.conf
}
# is_up NAME: the settings are applied, to an interface that is then called NAME.
is_up() {
	imgstreamctl attach --network "$disk" >/tmp/said 2>&1 && imgstreamctl detach
	cat /tmp/said
	grep -q "network: $1 is up" /tmp/said
}
# recorded OPTION...: the settings of the disk.
recorded() {
	$guestdisk network "$disk" --mac "$mac" "$@"
}
# Whether an address of the kernel's own is free is found out a moment later.
settled() {
	[ -z "$(ip -6 -o addr show tentative)" ]
}
everything() {
	eventually settled
	cat /etc/resolv.conf 2>/dev/null
	ip -j -d link show
	ip -j addr show
	ip -j route show table all
	ip -j -6 route show table all
}
twice() {
	everything >/tmp/once
	is_up "$1" && everything >/tmp/twice && diff /tmp/once /tmp/twice
}
mtu() {
	cat "/sys/class/net/$1/mtu"
}
# has WORDS COMMAND...: COMMAND says WORDS.
has() {
	has_words=$1
	shift
	has_output=$("$@")
	echo "$has_output"
	echo "$has_output" | grep -qF "$has_words"
}

plan 30
echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_ra
make_image
serve /tmp/image
check "a disk is laid out" lay_out_own "$disk"
check "the module loads" load

untouched
recorded --address 10.0.2.77/24 --gateway 10.0.2.2 --mtu 1400 --dns 10.0.2.3 --dns 2001:db8::53
check "a fixed address" is_up eth0
check "is the interface's" has '"local":"10.0.2.77","prefixlen":24' ip -j addr show dev eth0
equal "and its only one" 1 "$(ip -4 -o addr show dev eth0 | wc -l)"
check "with its router" has '"dst":"default","gateway":"10.0.2.2","dev":"eth0","prefsrc":"10.0.2.77"' ip -j route
check "who answers" ping -c 1 10.0.2.2
equal "and MTU" 1400 "$(mtu eth0)"
equal "and name servers" "nameserver 10.0.2.3 nameserver 2001:db8::53" "$(paste -s -d ' ' /etc/resolv.conf)"
check "it is kept from others" grep -qx eth0 /run/imgstream/interface
check "set up twice nothing changes" twice eth0

untouched
recorded --address 192.0.2.7/32 --gateway 198.51.100.1 --vlan 5 --mtu 9000
check "an address on a VLAN, with large frames" is_up eth0.5
check "is the VLAN's" has '"local":"192.0.2.7","prefixlen":32' ip -j addr show dev eth0.5
equal "and not that of what it is on" "" "$(ip -4 -o addr show dev eth0)"
check "which is eth0" has '"link":"eth0","ifname":"eth0.5"' ip -j link show dev eth0.5
check "by its number" has '"info_kind":"vlan","info_data":{"protocol":"802.1Q","id":5,' ip -j -d link show dev eth0.5
equal "the frames are large" "9000 9000" "$(mtu eth0) $(mtu eth0.5)"
check "a router outside of the prefix is on the VLAN" has '"dst":"198.51.100.1","dev":"eth0.5"' ip -j route
check "and the way out" has '"dst":"default","gateway":"198.51.100.1","dev":"eth0.5","prefsrc":"192.0.2.7"' ip -j route
refuse "without name servers there is no file" ls /etc/resolv.conf
check "set up twice nothing changes" twice eth0.5

untouched
recorded --address 192.0.2.7/24 --vlan 5 --mtu 1400
check "small frames on a VLAN" is_up eth0.5
equal "leave what it is on alone" "1500 1400" "$(mtu eth0) $(mtu eth0.5)"

untouched
recorded --address 2001:db8::7/64 --gateway 2001:db8:1::1 --mtu 1300
check "a fixed IPv6 address" is_up eth0
check "is the interface's" has '"local":"2001:db8::7","prefixlen":64' ip -j -6 addr show dev eth0
equal "at once" "" "$(ip -o -6 addr show dev eth0 tentative to 2001:db8::/64)"
check "with its router" has '"dst":"default","gateway":"2001:db8:1::1","dev":"eth0","prefsrc":"2001:db8::7"' ip -j -6 route
equal "and MTU" 1300 "$(mtu eth0)"
check "set up twice nothing changes" twice eth0

check "the module goes" unload
stop_serving
finish
