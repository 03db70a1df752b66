# SPDX-License-Identifier: GPL-2.0-only
# Everything here runs in a build root that is made on first use: see Documentation/development.rst.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
IN_ROOT := scripts/in-root

.PHONY: help
help:
	@echo 'Build'
	@echo '  module       imgstream.ko for the stock kernel of Debian trixie-backports  -> build/module'
	@echo '               KERNEL=debug: for the debug kernel, which it builds          -> build/module-debug'
	@echo '  tools        imgstreamctl, one static program for any Debian               -> build/tools'
	@echo '  install      puts both and the initramfs hooks under DESTDIR: the root of an image'
	@echo 'See it work'
	@echo '  demo         a Debian moves to another image in virtual machines, and back'
	@echo 'Test'
	@echo '  check        what has to pass before every merge: all of these, and a part of them on the debug kernel'
	@echo '  check-long   everything in check, with many more random cases and the long tests, and the demo'
	@echo '  test-unit    cargo test, and the tests of the test runner'
	@echo '  fuzz         arbitrary bytes, chosen by libFuzzer, for everything that reads what a target or a disk says'
	@echo '  selftest     the module in virtual machines; TESTS="test_module_01 ..." for some'
	@echo '               KERNEL=debug: on the debug kernel, where every detector is on'
	@echo '  kunit        tests inside of the debug kernel'
	@echo '  e2e          a small migrate, commit and roll back with real Debian disks'
	@echo '  lint         format, clippy, sparse, checkpatch, shellcheck, licences, documentation'
	@echo '  format       formats the Rust code'
	@echo 'Other'
	@echo '  root         a shell in the build root'
	@echo '  clean        removes build/'
	@echo '  clean-cache  removes build roots and kernels of older versions from the cache'
	@echo 'Times are in Documentation/development.rst.'
	@echo 'Variables: IMGSTREAM_CACHE (default ~/.cache/imgstream), IMGSTREAM_BUILD (build), IMGSTREAM_MIRROR,'
	@echo '  IMGSTREAM_KERNEL (a series of scripts/kernel-series), IMGSTREAM_ACCEL (for QEMU), NATIVE=1 (no build root),'
	@echo '  DESTDIR and KVER (for install), TESTS (for selftest), KERNEL (stock, debug or debug-long),'
	@echo '  IMGSTREAM_JOBS (virtual machines, and other work, at a time; default: the processors and one)'

.PHONY: module tools test-unit fuzz selftest kunit e2e demo lint format
module selftest: export IMGSTREAM_FLAVOR := $(or $(KERNEL),stock)
kunit: export IMGSTREAM_FLAVOR := debug
e2e demo: export IMGSTREAM_FLAVOR := stock

module:
	@$(IN_ROOT) scripts/module

tools:
	@$(IN_ROOT) scripts/tools

test-unit:
	@$(IN_ROOT) scripts/test-unit

fuzz:
	@$(IN_ROOT) scripts/fuzz

selftest: module tools
	@$(IN_ROOT) selftests/run $(TESTS)

kunit: module tools
	@$(IN_ROOT) selftests/run test_kunit_01

e2e demo: module tools
	@$(IN_ROOT) scripts/e2e $@

lint:
	@$(IN_ROOT) scripts/lint

format:
	@$(IN_ROOT) scripts/rust-files --format

.PHONY: check check-long
check:
	@scripts/check

check-long:
	@scripts/check long

.PHONY: install root clean clean-cache
install:
	@DESTDIR='$(DESTDIR)' KVER='$(KVER)' scripts/install

root:
	@$(IN_ROOT) bash

clean:
	@scripts/clean

clean-cache:
	@scripts/clean cache
