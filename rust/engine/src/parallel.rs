// SPDX-License-Identifier: GPL-2.0-only

//! Parallel sessions to one image: how many there can be, and which of them a read goes to.
//!
//! Each of them is a [`Session`](crate::session::Session) of its own, over a connection of its own, under a name of its own
//! ([`isid::session`]). A read is asked for on one of them at a time.

use crate::session::isid;

/// Sessions to one image at most. What one more brings shrinks, and a target has them to share among its computers.
pub const MAX_SESSIONS: u8 = 8;
const _: () = assert!(MAX_SESSIONS <= isid::MAX_SESSIONS);

/// How many there are if nobody says otherwise; `Documentation/imgstream-protocol.rst` has the figures.
pub const DEFAULT_SESSIONS: u8 = 1;

/// How long a session may be silent, with reads under way, until others are preferred. It need not be dead; the session itself
/// finds that out, and much later.
pub const SILENT_MS: u64 = 1_000;

/// What a session that can take another read has under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Bytes that were asked for.
    pub bytes: u64,
    /// When a byte came last, or the first of these was asked for.
    pub heard_ms: u64,
}

impl Load {
    const fn is_silent(&self, now_ms: u64) -> bool {
        self.bytes != 0 && now_ms.saturating_sub(self.heard_ms) >= SILENT_MS
    }
}

/// Which session the next read goes to: the one with the least under way, the first of several, and a silent one only if all
/// are. `None` in place of a session: it cannot take one. `None` as the answer: nobody can.
pub fn choose(sessions: impl IntoIterator<Item = Option<Load>>, now_ms: u64) -> Option<usize> {
    let sessions = sessions.into_iter().enumerate();
    let able = sessions.filter_map(|(index, load)| Some((index, load?)));
    able.min_by_key(|(_, load)| (load.is_silent(now_ms), load.bytes))
        .map(|(index, _)| index)
}

/// A number of sessions that somebody asks for; `None` if there cannot be so many.
pub fn sessions(number: u32) -> Option<u8> {
    let number = u8::try_from(number).ok()?;
    (1..=MAX_SESSIONS).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 10 * SILENT_MS;

    /// Something came just now.
    fn load(bytes: u64) -> Option<Load> {
        Some(Load {
            bytes,
            heard_ms: NOW,
        })
    }

    /// Nothing has come for so long.
    fn silent(bytes: u64, ms: u64) -> Option<Load> {
        Some(Load {
            bytes,
            heard_ms: NOW - ms,
        })
    }

    #[test]
    fn the_one_with_the_least_under_way_is_chosen() {
        let table: [(&[Option<Load>], Option<usize>); 9] = [
            (&[], None),
            (&[None, None], None),
            (&[load(0)], Some(0)),
            (&[load(9), load(0)], Some(1)),
            (&[load(4096), load(8192), load(4096)], Some(0)),
            (&[load(1 << 40), load(1 << 20), load(1)], Some(2)),
            // Who cannot is not asked, however little it has.
            (&[None, load(7)], Some(1)),
            (&[load(7), None, load(6), None], Some(2)),
            (&[None, None, None, load(u64::MAX)], Some(3)),
        ];
        for (sessions, chosen) in table {
            assert_eq!(
                choose(sessions.iter().copied(), NOW),
                chosen,
                "{sessions:?}"
            );
        }
    }

    #[test]
    fn a_silent_one_is_the_last_resort() {
        let table = [
            ([silent(1, SILENT_MS), load(100)], 1),
            ([silent(1, SILENT_MS - 1), load(100)], 0),
            ([load(100), silent(1, 5 * SILENT_MS)], 0),
            ([silent(2, SILENT_MS), silent(1, SILENT_MS)], 1),
            // Who has nothing under way has nothing to hear.
            ([silent(0, 5 * SILENT_MS), load(1)], 0),
        ];
        for (sessions, chosen) in table {
            assert_eq!(choose(sessions, NOW), Some(chosen), "{sessions:?}");
        }
        let alone = [silent(1, 9 * SILENT_MS), None];
        assert_eq!(choose(alone, NOW), Some(0));
    }

    #[test]
    fn there_is_one_session_at_least_and_a_few_at_most() {
        assert_eq!(
            [0, 1, 8, 9, 257, u32::MAX].map(sessions),
            [None, Some(1), Some(8), None, None, None]
        );
        assert_eq!(sessions(DEFAULT_SESSIONS.into()), Some(DEFAULT_SESSIONS));
    }

    proptest! {
        #[test]
        fn who_can_is_chosen_and_nobody_who_can_has_less(
            sessions: [Option<(u16, u16)>; MAX_SESSIONS as usize],
        ) {
            let sessions = sessions.map(|some| some.map(|(bytes, ms)| Load {
                bytes: bytes.into(),
                heard_ms: NOW.saturating_sub(ms.into()),
            }));
            let chosen = choose(sessions, NOW);
            prop_assert_eq!(chosen.is_none(), sessions.iter().all(Option::is_none));
            if let Some(chosen) = chosen {
                let taken = sessions[chosen].unwrap();
                let rest = sessions.iter().flatten();
                let mut alike = rest.filter(|other| other.is_silent(NOW) == taken.is_silent(NOW));
                prop_assert!(alike.all(|other| other.bytes >= taken.bytes));
                let heard = sessions.iter().flatten().any(|other| !other.is_silent(NOW));
                prop_assert_eq!(taken.is_silent(NOW), !heard);
            }
        }
    }
}
