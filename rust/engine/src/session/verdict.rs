// SPDX-License-Identifier: GPL-2.0-only

//! What the status of a command means for it: one table for reads and for the commands of the identity check.

use imgstream_proto::iscsi::sense::{key, status, Sense};

use super::reason::{ReadError, Reason, Violation};

/// What to do with a command that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It succeeded, if every byte came.
    Good,
    /// Issue it again at once.
    Retry(Reason),
    /// The target is overloaded: issue it again later, and fewer at a time.
    Busy,
    /// The unit is not ready: issue it again after a pause.
    NotReady(Reason),
    /// It failed; try a few times, then tell the reader.
    Failed(ReadError),
    /// The connection is of no use any more.
    Drop(Reason),
}

/// Of a condition without a name.
const PASSING: Verdict = Verdict::Retry(Reason::Condition(Sense {
    key: 0,
    asc: 0,
    ascq: 0,
    deferred: false,
}));

/// Judges the service response of a SCSI Response (11.4.3); None if the command completed and its status counts.
pub(super) const fn judge_response(code: u8) -> Option<Verdict> {
    match code {
        0 => None,
        // Target failure, and what vendors add: the command was not carried out, and why is not told.
        1 | 0x80.. => Some(Verdict::Retry(Reason::TargetFailure(code))),
        _ => Some(Verdict::Drop(Reason::Protocol(Violation::Response(code)))),
    }
}

/// Judges a status that came in a Data-In: only GOOD may, of those that a read can have (11.7).
pub(super) const fn judge_in_data(code: u8) -> Verdict {
    match code {
        status::GOOD => Verdict::Good,
        _ => Verdict::Drop(Reason::Protocol(Violation::StatusInData(code))),
    }
}

/// Judges the status of a SCSI Response with its sense data.
pub(super) fn judge(code: u8, sense: Option<Sense>) -> Verdict {
    match code {
        status::GOOD => Verdict::Good,
        // 11.4.7: sense data comes with it.
        status::CHECK_CONDITION => sense.map_or(
            Verdict::Drop(Reason::Protocol(Violation::NoSense)),
            judge_sense,
        ),
        status::BUSY | status::TASK_SET_FULL => Verdict::Busy,
        status::RESERVATION_CONFLICT => Verdict::Drop(Reason::Reserved),
        status::TASK_ABORTED | status::ACA_ACTIVE => PASSING,
        other => Verdict::Drop(Reason::Protocol(Violation::Status(other))),
    }
}

/// Judges CHECK CONDITION's sense data.
pub(super) fn judge_sense(sense: Sense) -> Verdict {
    if sense.deferred {
        // It belongs to an earlier command; this one was not executed (SPC).
        return Verdict::Retry(Reason::Condition(sense));
    }
    match sense.key {
        // RECOVERED ERROR: the command succeeded and its data is good.
        key::RECOVERED => Verdict::Good,
        key::NOT_READY => judge_not_ready(sense),
        key::MEDIUM => Verdict::Failed(ReadError::Medium(sense)),
        key::HARDWARE => Verdict::Failed(ReadError::Hardware(sense)),
        key::ILLEGAL_REQUEST => judge_illegal(sense),
        key::UNIT_ATTENTION => judge_attention(sense),
        key::NO_SENSE | key::ABORTED => Verdict::Retry(Reason::Condition(sense)),
        _ => Verdict::Failed(ReadError::Refused(sense)),
    }
}

fn judge_not_ready(sense: Sense) -> Verdict {
    match (sense.asc, sense.ascq) {
        // 04/0B: this target port is in the standby state, 04/0C: in the unavailable state (SPC-4, asymmetric access).
        // It stays so until somebody decides otherwise, and another portal may lead to a port that is not.
        (0x04, 0x0b | 0x0c) => Verdict::Drop(Reason::NotReady(sense)),
        // 04/01 becoming ready, 04/0A in transition to another state of access, ...: that passes.
        _ => Verdict::NotReady(Reason::NotReady(sense)),
    }
}

fn judge_illegal(sense: Sense) -> Verdict {
    match sense.asc {
        // 25: LOGICAL UNIT NOT SUPPORTED: gone, perhaps on its way to another place; who is there tells. 21: LOGICAL
        // BLOCK ADDRESS OUT OF RANGE, for an address below the size that was reported: the size changed.
        0x21 | 0x25 => Verdict::Drop(Reason::Changed(sense)),
        _ => Verdict::Failed(ReadError::Refused(sense)),
    }
}

fn judge_attention(sense: Sense) -> Verdict {
    match (sense.asc, sense.ascq) {
        // 29/xx: power on or reset. 2A/01: mode parameters changed. 2A/06: asymmetric access state changed; the next
        // answer tells to which. Nothing that we rely on.
        (0x29, _) | (0x2a, 0x01 | 0x06) => Verdict::Retry(Reason::Condition(sense)),
        // 28/00 medium may have changed, 2A/09 capacity changed, 3F/03 INQUIRY data changed, 3F/0E LUNs changed, ...
        _ => Verdict::Drop(Reason::Changed(sense)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sense(key: u8, asc: u8, ascq: u8) -> Option<Sense> {
        Some(Sense {
            key,
            asc,
            ascq,
            deferred: false,
        })
    }

    #[test]
    fn every_kind_of_status_has_its_verdict() {
        let check = |s: Option<Sense>| judge(status::CHECK_CONDITION, s);
        assert_eq!(judge(status::GOOD, sense(3, 0, 0)), Verdict::Good);
        assert_eq!(judge(status::BUSY, None), Verdict::Busy);
        assert_eq!(judge(status::TASK_SET_FULL, None), Verdict::Busy);
        assert_eq!(
            judge(status::RESERVATION_CONFLICT, None),
            Verdict::Drop(Reason::Reserved)
        );
        assert!(matches!(
            judge(status::TASK_ABORTED, None),
            Verdict::Retry(_)
        ));
        assert_eq!(
            judge(0x77, None),
            Verdict::Drop(Reason::Protocol(Violation::Status(0x77)))
        );
        assert_eq!(
            check(None),
            Verdict::Drop(Reason::Protocol(Violation::NoSense))
        );
        assert_eq!(check(sense(1, 0x17, 1)), Verdict::Good);
        assert!(matches!(check(sense(2, 4, 1)), Verdict::NotReady(_)));
        assert!(matches!(
            check(sense(3, 0x11, 0)),
            Verdict::Failed(ReadError::Medium(_))
        ));
        assert!(matches!(
            check(sense(4, 0x44, 0)),
            Verdict::Failed(ReadError::Hardware(_))
        ));
        for (asc, ascq) in [(4, 0), (4, 2), (4, 0x0a), (0x3a, 0)] {
            assert!(matches!(check(sense(2, asc, ascq)), Verdict::NotReady(_)));
        }
        for ascq in [0x0b, 0x0c] {
            assert!(matches!(
                check(sense(2, 4, ascq)),
                Verdict::Drop(Reason::NotReady(_))
            ));
        }
        for asc in [0x21, 0x25] {
            assert!(matches!(
                check(sense(5, asc, 0)),
                Verdict::Drop(Reason::Changed(_))
            ));
        }
        assert!(matches!(
            check(sense(5, 0x24, 0)),
            Verdict::Failed(ReadError::Refused(_))
        ));
        assert!(matches!(check(sense(6, 0x29, 1)), Verdict::Retry(_)));
        assert!(matches!(check(sense(6, 0x2a, 1)), Verdict::Retry(_)));
        assert!(matches!(check(sense(6, 0x2a, 6)), Verdict::Retry(_)));
        for (asc, ascq) in [(0x28, 0), (0x2a, 9), (0x3f, 3), (0x3f, 0xe)] {
            assert!(matches!(
                check(sense(6, asc, ascq)),
                Verdict::Drop(Reason::Changed(_))
            ));
        }
        assert!(matches!(check(sense(0xb, 0x4e, 0)), Verdict::Retry(_)));
        assert!(matches!(
            check(sense(7, 0x27, 0)),
            Verdict::Failed(ReadError::Refused(_))
        ));
    }

    #[test]
    fn a_status_in_a_data_in_can_only_be_good() {
        assert_eq!(judge_in_data(status::GOOD), Verdict::Good);
        for code in 1..=u8::MAX {
            let wrong = Violation::StatusInData(code);
            assert_eq!(judge_in_data(code), Verdict::Drop(Reason::Protocol(wrong)));
        }
    }

    #[test]
    fn a_failure_of_the_target_is_no_broken_rule_and_reserved_responses_are() {
        assert_eq!(judge_response(0), None);
        for code in [0x01, 0x80, 0xff] {
            let again = Verdict::Retry(Reason::TargetFailure(code));
            assert_eq!(judge_response(code), Some(again));
        }
        for code in [0x02, 0x7f] {
            let wrong = Verdict::Drop(Reason::Protocol(Violation::Response(code)));
            assert_eq!(judge_response(code), Some(wrong));
        }
    }

    #[test]
    fn a_deferred_error_is_not_about_this_command() {
        let deferred = Some(Sense {
            key: 3,
            asc: 0x11,
            ascq: 0,
            deferred: true,
        });
        assert!(matches!(
            judge(status::CHECK_CONDITION, deferred),
            Verdict::Retry(_)
        ));
    }
}
