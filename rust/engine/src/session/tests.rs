// SPDX-License-Identifier: GPL-2.0-only

use super::*;
use proptest::prelude::*;

fn numbers(cmd: u32, exp: u32, max: u32) -> Numbers {
    Numbers {
        cmd_sn: Sna(cmd),
        exp_cmd_sn: Sna(exp),
        max_cmd_sn: Sna(max),
        exp_stat_sn: Sna(0),
    }
}

#[test]
fn the_window_opens_closes_and_wraps() {
    assert!(numbers(5, 5, 5).window_open());
    assert!(!numbers(6, 5, 5).window_open());
    assert!(numbers(0xffff_fffe, 0xffff_fffe, 3).window_open());
    assert!(!numbers(4, 0xffff_fffe, 3).window_open());
    // Closed: MaxCmdSN = ExpCmdSN - 1.
    assert!(!numbers(0, 0, 0xffff_ffff).window_open());
}

#[test]
fn the_window_never_goes_back() {
    let mut n = numbers(5, 5, 10);
    n.update_window(Sna(4), Sna(8));
    assert_eq!((n.exp_cmd_sn, n.max_cmd_sn), (Sna(5), Sna(10)));
    n.update_window(Sna(6), Sna(12));
    assert_eq!((n.exp_cmd_sn, n.max_cmd_sn), (Sna(6), Sna(12)));
    // MaxCmdSN before ExpCmdSN - 1 contradicts itself: both are ignored.
    n.update_window(Sna(9), Sna(7));
    assert_eq!((n.exp_cmd_sn, n.max_cmd_sn), (Sna(6), Sna(12)));
    // ExpCmdSN - 1 is a closed window, which is legal.
    n.update_window(Sna(13), Sna(12));
    assert_eq!((n.exp_cmd_sn, n.max_cmd_sn), (Sna(13), Sna(12)));
}

#[test]
fn every_status_comes_once_in_order_also_over_the_wrap() {
    let mut n = Numbers {
        exp_stat_sn: Sna(0xffff_ffff),
        ..Numbers::default()
    };
    assert_eq!(n.take_status(0xffff_ffff), Ok(()));
    assert_eq!(n.take_status(0), Ok(()));
    assert!(n.take_status(0).is_err());
    assert!(n.take_status(2).is_err());
    assert_eq!(n.take_status(1), Ok(()));
}

proptest! {
    #[test]
    fn what_a_target_says_only_moves_the_window_on(exp: u32, max: u32, new_exp: u32, new_max: u32) {
        let mut n = numbers(0, exp, max);
        n.update_window(Sna(new_exp), Sna(new_max));
        prop_assert!(!n.exp_cmd_sn.before(Sna(exp)));
        prop_assert!(!n.max_cmd_sn.before(Sna(max)));
    }
}
