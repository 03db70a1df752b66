# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh disable=SC2034,SC2154
# A network of two machines inside of one: "near" is the machine itself, "far" a network namespace with the target, and a
# pair of virtual Ethernet devices between them. Nothing of it leaves the machine. Needs veth, imgstream-testtarget and
# /usr/bin/ip.

near_address=192.0.2.1 far_address=192.0.2.2
far_portal=$far_address:3260

# busybox has both of its own, which its shell takes first.
ip() {
	/usr/bin/ip "$@"
}
tc() {
	/usr/sbin/tc "$@"
}

# Without the wire there is no way to the target, neither through the machine's own card.
network() {
	ip route add unreachable 192.0.2.0/24 metric 9999
	mkdir -p /var/run /run/netns && ln -sfn /run/netns /var/run/netns &&
		ip netns add far && ip link add near0 type veth peer name far0 netns far &&
		ip addr add $near_address/24 dev near0 && ip link set near0 up &&
		ip -n far addr add $far_address/24 dev far0 && ip -n far link set far0 up
}

# The wire goes first: what is in a namespace goes some time after it.
network_away() {
	ip link del near0 && ip netns del far && ip route del unreachable 192.0.2.0/24 metric 9999
}

# serve_at PORTAL FILE [OPTION...]: as serve, over there, at one of its addresses. serve_far FILE [OPTION...]: at the usual one;
# stop_serving ends it.
serve_at() {
	listen=$1
	shift
	rm -f /tmp/served
	nsenter --net=/run/netns/far imgstream-testtarget "$@" --listen "$listen" --target-name "$own_target" \
		>/tmp/served 2>&1 &
	served=$!
	eventually grep -qs ' at ' /tmp/served
	may_wait 120
}
serve_far() {
	serve_at $far_portal "$@"
}

# local_reads: so many blocks are right; they are here afterwards.
local_reads() {
	$guestdisk verify /dev/imgstream0 image --start 16 --blocks 500
}

# lay_out_far DEVICE [OPTION...]: as lay_out, of that target.
lay_out_far() {
	$guestdisk disk "$@" --portal $far_portal --target "$own_target"
}

# attach_far: three results: the network is made, a disk of that target's image is laid out, and attached; nothing is fetched by
# itself.
attach_far() {
	check "there is a network" network
	serve_far /tmp/image
	check "a disk is laid out" lay_out_far "$(disk disk)"
	check "the module attaches it" load disk="$(disk disk)"
	imgstreamctl fill off
}

# worsen NETEM...: what the wire does to packets from now on, both ways, as tc-netem(8) has it. Needs sch_netem and tc.
worsen() {
	tc qdisc replace dev near0 root netem "$@" && tc -n far qdisc replace dev far0 root netem "$@"
}

# mend: it is a good one again.
mend() {
	tc qdisc del dev near0 root && tc -n far qdisc del dev far0 root
}

# connection_says TEXT: part of what the status has of it.
connection_says() {
	case $(value connection) in *"$1"*) true ;; *) false ;; esac
}

# read_later BLOCK: begins to read it, from the repository; $reader is who does. read_right BLOCK: what was read is that.
read_later() {
	(into=/tmp/read be_reader "$1") &
	reader=$!
}
read_right() {
	cmp -n 4096 /tmp/read /tmp/image 0 $(($1 * 4096))
}

# calm: nothing was lost on the way here but time.
calm() {
	equal "no reader has seen an error" "0 none" "$(value errors_read) $(value last_error)"
}
