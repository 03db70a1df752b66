// SPDX-License-Identifier: GPL-2.0-only

//! What a read from a socket comes to.

use std::io::{self, ErrorKind};

use imgstream_engine::session::Session;

/// Tells the session how many bytes have come, if any, and what time it is: also while bytes come, for what is waited for
/// may be something else.
pub(crate) fn received(
    session: &mut Session<Vec<u8>>,
    result: io::Result<usize>,
    now_ms: u64,
) -> io::Result<()> {
    match result {
        Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
        Ok(bytes) => session.got(bytes, now_ms),
        Err(e) if is_pause(e.kind()) => {}
        Err(e) => return Err(e),
    }
    session.tick(now_ms);
    Ok(())
}

/// Nothing has come for as long as the socket waits, or a signal.
fn is_pause(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use imgstream_engine::session::{Reason, Stage, Timing, SCRATCH_BYTES};

    fn session() -> Session<Vec<u8>> {
        let config = Options::new(&[([192, 0, 2, 1], 3260).into()], "iqn.x", 1, "iqn.y").config();
        let mut session = Session::new(config.unwrap(), vec![0; SCRATCH_BYTES]).unwrap();
        session.connected(0);
        session
    }

    #[test]
    fn time_passes_with_bytes_and_without() {
        let limit = Timing::DEFAULT.login;
        let pause = || Err(ErrorKind::WouldBlock.into());
        for last in [Ok(1), pause(), Err(ErrorKind::Interrupted.into())] {
            let mut session = session();
            received(&mut session, Ok(1), limit / 2).unwrap();
            received(&mut session, pause(), limit - 1).unwrap();
            assert_eq!(session.stage(), Stage::Login);
            received(&mut session, last, limit).unwrap();
            assert_eq!(session.last_reason(), Some(Reason::LoginTimeout));
        }
    }

    #[test]
    fn an_end_and_an_error_are_told() {
        let kind = |result| received(&mut session(), result, 1).unwrap_err().kind();
        assert_eq!(kind(Ok(0)), ErrorKind::UnexpectedEof);
        let reset = Err(ErrorKind::ConnectionReset.into());
        assert_eq!(kind(reset), ErrorKind::ConnectionReset);
    }
}
