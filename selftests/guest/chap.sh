# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh disable=SC2034,SC2154
# Names and secrets for CHAP, and what comes of them. Needs imgstream-guestdisk, imgstreamctl, and the test's disk "disk".

user=host-1
secret='secret-of-the-host'
target_user=the-target
target_secret='secret-of-the-target'
wrong='secret-of-nobody'

# kept_out WORDS: the module does not get in, and says why.
kept_out() {
	gone && value connection | grep -q "$1"
}

# right BLOCK: a block that only the target has is what it is there.
right() {
	$guestdisk verify /dev/imgstream0 image --start "$1" --blocks 16
}

# attach_with [WORD...]: the module, with these names and secrets in the superblocks; it fetches nothing by itself.
attach_with() {
	[ $# = 0 ] || $guestdisk chap "$(disk disk)" "$@" || return
	load disk="$(disk disk)" && imgstreamctl fill off
}

# said_nowhere: where everybody may look, and where root does.
said_nowhere() {
	{
		dmesg
		cat /proc/cmdline /sys/block/imgstream0/imgstream/* /sys/module/imgstream/parameters/*
		imgstreamctl status
		imgstreamctl status --json
		imgstreamctl dump "$(disk disk)"
	} >/tmp/said 2>/dev/null
	grep -q "$user\|authentication" /tmp/said && ! grep -i "secret-of" /tmp/said
}

# prove_both BLOCK: four results: both sides prove who they are, what only the target has is read, and nothing is told.
prove_both() {
	check "the target has to prove who it is, too" attach_with $user $secret $target_user $target_secret
	check "and does" eventually ready
	check "what it has is read" right "$1"
	check "no secret is said" said_nowhere
	unload
}
