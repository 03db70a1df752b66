#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The module is loaded, attached, detached and unloaded with the first allocation of each call failing, with its second one and
# so on, until it has no more: it fails for want of memory and nothing else, or succeeds all the same, and the next one finds
# everything as it was. What leaks is found at the end of the boot.
# needs-kernel: debug
# needs-file: image 67117056 lun
# needs-target: image
# needs-file: disk 256M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl
# needs-own-boot: what it sets in debugfs is for the whole machine
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

module=/modules/imgstream.ko

plan 16
check "faults can be ordered" faults_anywhere
check "for the module while it is being loaded" faults_in_init
want_of_memory "the module is loaded" insmod $module
check "it loads" load
check "faults are ordered for it alone" faults_in_module
check "a disk is laid out" lay_out "$(disk disk)"
want_of_memory "a disk is attached" attach "$(disk disk)"
check "it attaches" imgstreamctl attach "$(disk disk)"
want_of_memory "the source view is opened" source-view
want_of_memory "a disk is detached" detach "$(disk disk)"
check "it detaches" imgstreamctl detach
check "it gets settings" add_settings "$(disk disk)"
check "the disk has nothing wrong" imgstreamctl check "$(disk disk)"
check "it attaches again" imgstreamctl attach "$(disk disk)"
check "it detaches again" imgstreamctl detach
want_of_memory "the module is unloaded" rmmod $module
unload
finish
