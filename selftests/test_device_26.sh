#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A commit waits for memory that fetches hold, and they wait for a dead network: the disk can be detached all the same, and
# the commit goes on when it is attached with the repository.
# needs-kernel: debug
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

# The module lives on its reserve of pages.
no_pages() {
	faults_anywhere && faults_in_module && fault_set fail_page_alloc times -1 &&
		fault_set fail_page_alloc probability 100
}
# One fetch has all of the reserve; the commit is about to begin the next one.
held_up() {
	waiting && commit_held_up
}

plan 7
check "a disk is laid out" lay_out "$(disk disk)"
target_stop
check "the module attaches it without a repository" load disk="$(disk disk)"
check "there are no pages" no_pages
check "a commit begins" imgstreamctl commit --yes --now
eventually held_up
check "it waits, and the disk is detached" imgstreamctl detach
fault_set fail_page_alloc probability 0
target_start
imgstreamctl attach "$(disk disk)"
eventually committed
pass "with the repository and memory it ends"
check "the module goes" unload
finish
