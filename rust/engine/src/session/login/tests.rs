// SPDX-License-Identifier: GPL-2.0-only

use std::string::ToString;

use super::*;
use proptest::prelude::*;

/// What a key settles, and every value that is no legal answer to ours, for any value of an honest target's own.
fn settle(rule: Rule, answer: u32) -> Result<Option<u32>, ()> {
    judge(rule, &answer.to_string())
}

fn boolean(value: bool) -> &'static str {
    if value {
        "Yes"
    } else {
        "No"
    }
}

proptest! {
    /// 6.2.2: each result function, with any value that the target may have of its own.
    #[test]
    fn l8_every_result_is_that_of_its_function(theirs: u32, yes: bool, nonsense in "[^\0]{0,20}") {
        for key in &KEYS {
            match key.rule {
                // OR or AND, whichever the key has: our proposal settles both (Yes or x = Yes, No and x = No).
                Rule::Boolean(ours) => {
                    let result = judge(key.rule, boolean(yes));
                    prop_assert_eq!(result, if boolean(yes) == ours { Ok(None) } else { Err(()) });
                }
                Rule::Minimum { ours, least } => {
                    let theirs = theirs.max(least);
                    prop_assert_eq!(settle(key.rule, theirs.min(ours)), Ok(Some(theirs.min(ours))));
                    prop_assert_eq!(settle(key.rule, theirs).is_ok(), theirs <= ours);
                    prop_assert!(least == 0 || settle(key.rule, least - 1).is_err());
                    prop_assert!(settle(key.rule, ours + 1).is_err());
                }
                Rule::Maximum { ours, most } => {
                    let theirs = theirs.min(most);
                    prop_assert_eq!(settle(key.rule, theirs.max(ours)), Ok(Some(theirs.max(ours))));
                    prop_assert!(settle(key.rule, most + 1).is_err());
                    prop_assert!(ours == 0 || settle(key.rule, ours - 1).is_err());
                }
                Rule::Declared { least, most, .. } => {
                    prop_assert_eq!(settle(key.rule, theirs).is_ok(), (least..=most).contains(&theirs));
                }
                Rule::Digest => {}
            }
            for word in ["Reject", "Irrelevant", "NotUnderstood"] {
                prop_assert!(matches!(key.rule, Rule::Digest) || judge(key.rule, word) == Ok(None));
            }
            let number = nonsense.parse::<u32>().is_ok() || nonsense.starts_with("0x");
            let word = ["Yes", "No", "Reject", "Irrelevant", "NotUnderstood"].contains(&&*nonsense);
            prop_assert!(number || word || judge(key.rule, &nonsense).is_err(), "{}={nonsense}", key.name);
        }
    }

    /// 6.2.1: of a list, the first of ours that the target has too; nothing else.
    #[test]
    fn l8_a_list_is_settled_by_one_of_its_values(value in "None|CRC32C|None,CRC32C|SHA|Reject|", policy in 0..3u8) {
        let policy = [Policy::Require, Policy::Prefer, Policy::Off][usize::from(policy)];
        let mut login = Login::new(policy);
        let taken = login.take_digest(HEADER_DIGEST, &value).is_ok();
        let offered = policy.proposal().split(',').any(|one| one == value);
        // What switches nothing on may be taken note of; what follows from it is decided at the end of the login.
        let harmless = ["None", "Reject"].contains(&&*value);
        prop_assert!(taken == offered || harmless && taken);
        prop_assert_eq!(login.agreed.digests.header, offered && value == "CRC32C");
    }
}
