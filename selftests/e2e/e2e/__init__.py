# SPDX-License-Identifier: GPL-2.0-only
"""End-to-end runs of imgstream with two real Debian systems in QEMU."""
