# SPDX-License-Identifier: GPL-2.0-only
"""Runs shell tests in virtual machines: see ../README.rst."""
