// SPDX-License-Identifier: GPL-2.0-only

//! Errors of the network and of reads, as people and as the block layer know them.

use super::status::Line;
use crate::kapi::errno::Errno;
use imgstream_engine::session::ReadError;
use kernel::prelude::*;

/// An error of the network as a person knows it.
pub(super) fn reason_of(error: Error) -> Line {
    let sentence = match Errno::from_error(error) {
        Some(Errno::ConnectionRefused) => "connection refused",
        Some(Errno::ConnectionReset) => "connection reset",
        Some(Errno::HostUnreachable) => "no route to host",
        Some(Errno::NetworkUnreachable) => "network is unreachable",
        Some(Errno::NetworkDown) => "network is down",
        _ if error == ETIMEDOUT => "no answer",
        _ if error == EPIPE => "connection closed",
        _ if error == ENOMEM => "this computer has not enough memory",
        _ => return Line::of(format_args!("network error {}", error.to_errno())),
    };
    Line::of(sentence)
}

/// Whether nothing was sent to anybody, because there is no interface, no route or no memory.
pub(super) fn is_local(error: Error) -> bool {
    matches!(
        Errno::from_error(error),
        Some(Errno::NetworkUnreachable | Errno::NetworkDown)
    ) || error == ENOMEM
}

/// Whether a fetch ended so because the target refused the read. Every other error passes: it is this computer's.
pub(crate) fn is_refusal(error: Error) -> bool {
    matches!(
        Errno::from_error(error),
        Some(Errno::NoData | Errno::RemoteIo)
    )
}

/// What a reader gets. The block layer makes ENODATA a medium error, EREMOTEIO a target error.
pub(super) fn errno_of(error: ReadError) -> Error {
    match error {
        ReadError::Medium(_) => Errno::NoData.into(),
        _ => Errno::RemoteIo.into(),
    }
}
