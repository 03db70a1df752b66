// SPDX-License-Identifier: GPL-2.0-only

//! Errors of the network and of reads, as people and as the block layer know them.

use super::status::Line;
use crate::kapi::errno::Errno;
use imgstream_engine::session::ReadError;
use kernel::prelude::*;

/// An error of the network as a person knows it.
pub(super) fn reason_of(error: Error) -> Line {
    let sentence = match Errno::from_error(error) {
        Some(Errno::AddressNotAvailable) => "this computer has no address to connect from",
        Some(Errno::ConnectionAborted) => "this computer has given the connection up",
        Some(Errno::ConnectionRefused) => "connection refused",
        Some(Errno::ConnectionReset) => "connection reset",
        Some(Errno::HostUnreachable) => "no route to host",
        Some(Errno::NetworkUnreachable) => "network is unreachable",
        Some(Errno::NetworkDown) => "network is down",
        _ if error == ETIMEDOUT => "no answer",
        _ if error == EPIPE => "connection closed",
        _ if error == EACCES || error == EPERM => "forbidden by this computer's routes or rules",
        _ if is_want_of_memory(error) => "this computer has not enough memory",
        _ => return Line::of(format_args!("network error {}", error.to_errno())),
    };
    Line::of(sentence)
}

/// Whether nothing was sent to anybody, because there is no interface, no route, no address, no permission or no memory.
pub(super) fn is_local(error: Error) -> bool {
    matches!(
        Errno::from_error(error),
        Some(Errno::AddressNotAvailable | Errno::NetworkUnreachable | Errno::NetworkDown)
    ) || [EACCES, EPERM].contains(&error)
        || is_want_of_memory(error)
}

/// Whether there was no memory for something: ENFILE is that of a socket's inode, ENOBUFS that of routes, ports and packets.
fn is_want_of_memory(error: Error) -> bool {
    [ENOMEM, ENFILE, Errno::NoBuffers.into()].contains(&error)
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

#[kunit_tests(imgstream_errors)]
mod tests {
    use super::*;
    use crate::kapi::{
        blk::BlkStatus,
        testing::every, //
    };
    use imgstream_engine::session::ReadError::{
        Protocol,
        Range, //
    };

    #[test]
    fn every_error_of_the_network_has_a_sentence() {
        let table = [
            (
                Errno::AddressNotAvailable.into(),
                "this computer has no address to connect from",
            ),
            (
                Errno::ConnectionAborted.into(),
                "this computer has given the connection up",
            ),
            (EACCES, "forbidden by this computer's routes or rules"),
            (EPERM, "forbidden by this computer's routes or rules"),
            (Errno::ConnectionRefused.into(), "connection refused"),
            (Errno::ConnectionReset.into(), "connection reset"),
            (Errno::HostUnreachable.into(), "no route to host"),
            (Errno::NetworkUnreachable.into(), "network is unreachable"),
            (Errno::NetworkDown.into(), "network is down"),
            (ETIMEDOUT, "no answer"),
            (EPIPE, "connection closed"),
            (ENOMEM, "this computer has not enough memory"),
            (ENFILE, "this computer has not enough memory"),
            (
                Errno::NoBuffers.into(),
                "this computer has not enough memory",
            ),
            (EINVAL, "network error -22"),
            (Errno::Protocol.into(), "network error -71"),
        ];
        assert!(every(table, |&(error, sentence)| {
            reason_of(error).as_str() == sentence
        }));
    }

    fn numbers(are: fn(Error) -> bool) -> Result<KVec<i32>> {
        let mut found = KVec::new();
        for number in 1..4096 {
            if are(Error::from_errno(-number)) {
                found.push(number, GFP_KERNEL)?;
            }
        }
        Ok(found)
    }

    #[test]
    fn only_what_this_computer_lacks_is_local() -> Result {
        // EPERM, ENOMEM, EACCES, ENFILE, EADDRNOTAVAIL, ENETDOWN, ENETUNREACH and ENOBUFS.
        assert_eq!(*numbers(is_local)?, [1, 12, 13, 23, 99, 100, 101, 105]);
        Ok(())
    }

    #[test]
    fn only_the_targets_own_errors_are_refusals() -> Result {
        // ENODATA and EREMOTEIO.
        assert_eq!(*numbers(is_refusal)?, [61, 121]);
        Ok(())
    }

    #[test]
    fn what_the_target_cannot_read_stays_a_refusal_through_the_block_layer() {
        assert!(every([Range, Protocol], |&error| {
            let status = BlkStatus::from(errno_of(error));
            status.to_result().is_err_and(is_refusal)
        }));
    }
}
