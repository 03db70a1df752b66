#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# CHAP with tgt: nothing is read without the right names and secrets, one-way and mutual, also after the target was killed and
# came back, for which no module of the kernel is asked for. What keeps the module out is said; the secrets are said nowhere.
# tgt knows MD5, and no other algorithm that we do.
# needs-own-boot: the tgt of a boot has one list of accounts, for all tests in it
# needs-file: image 32M lun image
# needs-file: disk 192M
# needs-target: image
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh
# shellcheck source=selftests/guest/chap.sh
. /tests/chap.sh

# refused: a secret that CHAP cannot be done with keeps the disk out, and why is said.
refused() {
	! attach_with "$user" short 2>/dev/null && dmesg | grep -q "CHAP cannot be done: a secret has 12 to 255 bytes; this one has 5"
}

# watch_requests: from now on, /tmp/asked has what the kernel asks modprobe for.
watch_requests() {
	printf '#!/bin/sh\necho "$@" >>/tmp/asked\n' >/tmp/modprobe
	chmod +x /tmp/modprobe
	echo /tmp/modprobe >/proc/sys/kernel/modprobe
	: >/tmp/asked
}
# is_noted: it has, of a file system that nobody knows.
is_noted() {
	! mount -t nowhere none /mnt 2>/dev/null && grep -q "fs-nowhere" /tmp/asked
}

plan 20
lay_out "$(disk disk)" >/tmp/places || bail "the disk cannot be laid out"

target_chap $user $secret
check "the module attaches a disk without credentials" attach_with
check "it is kept out, and says why" eventually kept_out "authentication"
unload

check "with its secret" attach_with $user $secret
check "it gets in" eventually ready
check "and reads what the target has" right 1000
# The disk that modules are on may be the one that waits for the target.
watch_requests
target_stop
check "the target is gone" eventually kept_out .
target_start
check "it comes back, and the module gets in again" eventually ready
check "and reads" right 2000
equal "for which no module is asked for" "" "$(cat /tmp/asked)"
check "what is asked for is noted" is_noted
unload

check "with a wrong secret" attach_with $user $wrong
check "it is kept out" eventually kept_out "authentication failed"
unload

target_chap $user $secret $target_user $target_secret
prove_both 3000

check "a target that does not know its secret" attach_with $user $secret $target_user $wrong
check "is left" eventually kept_out "does not know its secret"
unload

check "a secret that is too short is refused" refused

target_chap $user $secret
attach_with $user $secret $target_user $target_secret
check "tgt lets nobody in who asks for a proof that it has not" eventually kept_out "authentication failed"
unload
finish
