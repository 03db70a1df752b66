// SPDX-License-Identifier: GPL-2.0-only

//! A scripted iSCSI target for tests.
