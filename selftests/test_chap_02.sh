#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# CHAP with LIO, which takes the first algorithm of ours that its kernel has: SHA3-256 while that module is there, else SHA-256;
# one-way and mutual.
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl /usr/sbin/nft
# needs-module: target_core_mod target_core_file iscsi_target_mod nf_tables sha3
# needs-kernel: stock
# needs-own-boot: LIO stays in the kernel
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh
# shellcheck source=selftests/guest/lio.sh
. /tests/lio.sh
# shellcheck source=selftests/guest/chap.sh
. /tests/chap.sh

# What LIO answers to our algorithms is the first thing behind a header: "CHAP_A=8", "CHAP_A=7".
count_choices() {
	nft -f - <<'END'
table inet seen {
	counter sha3 { }
	counter sha256 { }
	chain in {
		type filter hook input priority 0
		tcp sport 3260 @ih,384,64 0x434841505f413d38 counter name sha3
		tcp sport 3260 @ih,384,64 0x434841505f413d37 counter name sha256
	}
}
END
}

# choices: how often LIO chose SHA3-256, and how often SHA-256.
choices() {
	for counter in sha3 sha256; do
		nft list counter inet seen $counter | sed -n 's/.*packets \([0-9]*\).*/\1/p'
	done | xargs
}

make_image

plan 17
check "LIO serves the image" lio_start /tmp/image
check "a disk is laid out" lay_out_own "$(disk disk)"
check "LIO lets in who knows the secret" lio_chap $user $secret
check "the module attaches a disk without credentials" attach_with
check "LIO closes its connection without a word" eventually kept_out "the target closed the connection"
unload

count_choices
check "with its secret" attach_with $user $secret
check "it gets in" eventually ready
check "and reads what the target has" right 1000
unload
equal "by SHA3-256" "1 0" "$(choices)"

rmmod sha3
lio_chap $user $secret $target_user $target_secret
prove_both 2000
equal "by SHA-256, as it has no other now" "1 1" "$(choices)"

attach_with $user $secret $target_user $wrong
check "a target that does not know its secret is left" eventually kept_out "does not know its secret"
unload
attach_with $user $wrong
check "who does not know theirs is kept out" eventually kept_out "authentication failed"
unload
check "LIO goes" lio_stop
finish
