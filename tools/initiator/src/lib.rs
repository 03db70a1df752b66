// SPDX-License-Identifier: GPL-2.0-only

//! The session of imgstream_engine over std::net.
