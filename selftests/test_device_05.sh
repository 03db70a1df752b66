#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The view of the source, and what may not happen while it is open or after there is no way back.
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

plan 16
check "a disk is laid out" lay_out "$(disk disk)"
check "the module attaches it" load disk="$(disk disk)"
refuse "there is no view of the source before it is asked for" [ -b /dev/imgstream0-source ]
check "the view opens" imgstreamctl source-view on
check "it says what the source said, boot blocks too" $guestdisk verify /dev/imgstream0-source source
refuse "it cannot be written" $guestdisk stamp /dev/imgstream0-source mine --start 0 --blocks 1
refuse "no commit begins while it is open" imgstreamctl commit --yes --now
exec 7</dev/imgstream0-source
refuse "it stays while somebody reads it" imgstreamctl source-view off
exec 7<&-
check "it closes" imgstreamctl source-view off
check "a commit begins" imgstreamctl commit --yes --now
eventually committed
refuse "a roll back is refused then" imgstreamctl rollback --yes
refuse "and so is the view" imgstreamctl source-view on
check "the device goes" imgstreamctl detach
refuse "and is not attached again" imgstreamctl attach "$(disk disk)"
check "the disk is the image" $guestdisk verify "$(disk disk)" image --blocks 8192
check "the module goes" unload
finish
