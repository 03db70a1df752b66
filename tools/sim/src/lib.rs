// SPDX-License-Identifier: GPL-2.0-only

//! Crash simulator: the engine on a disk that loses, reorders and tears unflushed sectors.
