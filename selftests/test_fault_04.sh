#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# I/O, and what the background and the sessions are told, with the first allocation of each call failing, with its second one
# and so on, until it has no more: I/O has reserves and does not fail; fill, commit and another session begin or fail for want of
# memory and nothing else. What leaks is found at the end of the boot.
# needs-kernel: debug
# needs-file: image 67117056 lun
# needs-target: image
# needs-file: disk 256M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl
# needs-own-boot: what it sets in debugfs is for the whole machine
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

whole=/dev/imgstream0

# no_failure TEXT STEP ARGUMENT...
no_failure() {
	want_text=$1
	shift
	sweep "$@" || { fail "$want_text" && return; }
	equal "$want_text" "" "$(printf '%s\n' "$sweep_output" | sed 1d)"
}

plan 25
check "faults can be ordered" faults_anywhere
check "the module loads" load
check "faults are ordered for it alone" faults_in_module
check "a disk is laid out" lay_out "$(disk disk)"
check "it gets settings" add_settings "$(disk disk)"
check "it attaches" imgstreamctl attach "$(disk disk)"
check "the fill is switched off" imgstreamctl fill off
no_failure "absent blocks are read" read $whole 1000
no_failure "and read again" read $whole 1000
no_failure "absent blocks are written in part" write $whole 2000
no_failure "present blocks are written in part" write $whole 1000
no_failure "what was written is made durable" sync $whole
check "it detaches" imgstreamctl detach
check "the disk has nothing wrong" imgstreamctl check "$(disk disk)"
check "it attaches again" imgstreamctl attach "$(disk disk)"
eventually ready
no_failure "the repository is looked for" reconnect
want_of_memory "there is another session" sessions
want_of_memory "the fill is switched on" fill
want_of_memory "a commit begins" commit || bail "no commit"
no_failure "it is resumed" resume
no_failure "it is paused" pause
check "it hurries" imgstreamctl commit --yes --now
eventually committed
pass "it ends"
check "everything else is the image's" $guestdisk verify $whole image --start 4000
check "the module is unloaded" unload
finish
