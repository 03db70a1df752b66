// SPDX-License-Identifier: GPL-2.0-only

//! Names of sessions: ISIDs (RFC 7143 section 11.12.5) of the type "random": 24 random bits and a qualifier of 16.
//!
//! A login with the initiator name and ISID of a session that the target still has ends that session (6.3.5). That is
//! wanted of a connection that is made again, and of nobody else. So an *installation* has one random part and the upper
//! byte of its qualifier, which the superblock keeps; the lower byte tells the sessions of its driver apart; and whoever else
//! asks in its name, as `imgstreamctl` does beside the driver, uses the other half of the qualifiers.
//!
//! Some targets stay busy with the session that a reinstatement should end. After three logins in a row that a target
//! refused as it would then, or did not answer, the next ones use a second name; after three more, the first one again. So
//! a target is left at most one session that nobody uses.

use super::reason::Reason;
use super::Stage;

/// Sessions of one driver.
pub const MAX_SESSIONS: u8 = 0x80;
/// The bit of the upper byte of the qualifier that the driver and others differ in.
const BESIDE: u8 = 0x80;
/// The bit of the lower byte that a session's two names differ in.
const SECOND: u8 = 0x80;
/// Logins that may fail before the other name is used.
const PATIENCE: u8 = 3;

/// An ISID of an installation: all that is `random` is kept for as long as it exists.
pub const fn installation(random: [u8; 4]) -> [u8; 6] {
    let [a, b, c, d] = random;
    [0x80, a, b, c, d, 0]
}

/// The ISID of one of an installation's sessions, counted from 0.
pub const fn session(installation: [u8; 6], number: u8) -> [u8; 6] {
    let [t, a, b, c, d, _] = installation;
    [t, a, b, c, d, number % MAX_SESSIONS]
}

/// An ISID that none of the installation's own sessions has. Whoever needs several draws `random` anew.
pub const fn beside(installation: [u8; 6], random: [u8; 2]) -> [u8; 6] {
    let [t, a, b, c, d, _] = installation;
    let [e, f] = random;
    [
        t,
        a,
        b,
        c,
        ((d ^ BESIDE) & BESIDE) | (e & !BESIDE),
        f % MAX_SESSIONS,
    ]
}

/// The names of one session.
#[derive(Debug)]
pub(super) struct SessionName {
    isid: [u8; 6],
    failures: u8,
}

impl SessionName {
    pub(super) const fn new(isid: [u8; 6]) -> Self {
        Self { isid, failures: 0 }
    }

    pub(super) const fn isid(&self) -> [u8; 6] {
        self.isid
    }

    /// A connection in this stage has ended.
    pub(super) fn ended(&mut self, stage: Stage, reason: &Reason) {
        self.failures = match stage {
            Stage::Login if is_stuck(reason) => self.failures.saturating_add(1),
            _ => 0,
        };
        if self.failures >= PATIENCE {
            let [t, a, b, c, d, e] = self.isid;
            *self = Self::new([t, a, b, c, d, e ^ SECOND]);
        }
    }
}

/// What a target says, or does not say, that is stuck with an old session. Where it tells who we may be, what we may have
/// or what it does not know, another name would change nothing.
const fn is_stuck(reason: &Reason) -> bool {
    match reason {
        Reason::LoginTimeout => true,
        Reason::Refused { class: 2, detail } => matches!(detail, 0x00 | 0x06 | 0x08 | 0x0a | 0x0b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sessions_of_an_installation_and_those_beside_it_never_meet(
            random: [u8; 4], number in 0..MAX_SESSIONS, other in 0..MAX_SESSIONS, beside_it: [u8; 2], flips in 0..9u8,
        ) {
            let base = installation(random);
            let mut name = SessionName::new(session(base, number));
            for _ in 0..flips {
                name.ended(Stage::Login, &Reason::LoginTimeout);
            }
            prop_assert_eq!(&name.isid()[..4], &base[..4]);
            prop_assert_eq!(name.isid() == session(base, other), number == other && flips % 6 < 3);
            // The nearest that chance can bring, too.
            let nearest = beside(base, [random[3], number]);
            prop_assert_ne!(nearest, session(base, number));
            let mut stranger = SessionName::new(beside(base, beside_it));
            for _ in 0..flips {
                prop_assert_ne!(stranger.isid(), name.isid());
                stranger.ended(Stage::Login, &Reason::LoginTimeout);
            }
            prop_assert_eq!(stranger.isid()[0] >> 6, 2, "type: random");
        }
    }

    #[test]
    fn the_other_name_is_used_after_three_failures_in_a_row() {
        let first = [0x80, 1, 2, 3, 4, 5];
        let mut name = SessionName::new(first);
        let stuck = Reason::Refused {
            class: 2,
            detail: 0,
        };
        for reason in [stuck, Reason::LoginTimeout, Reason::Lost, stuck, stuck] {
            name.ended(Stage::Login, &reason);
            assert_eq!(name.isid(), first, "{reason:?}");
        }
        name.ended(Stage::Ready, &Reason::Silent);
        name.ended(Stage::Login, &stuck);
        name.ended(Stage::Login, &stuck);
        assert_eq!(name.isid(), first);
        name.ended(Stage::Login, &stuck);
        assert_eq!(name.isid(), [0x80, 1, 2, 3, 4, 0x85]);
        for detail in [1, 2, 3, 4, 5, 7, 9] {
            for class in [2, 3] {
                let mut name = SessionName::new(first);
                for _ in 0..9 {
                    name.ended(Stage::Login, &Reason::Refused { class, detail });
                }
                assert_eq!(name.isid(), first, "{class} {detail}");
            }
        }
    }
}
