// SPDX-License-Identifier: GPL-2.0-only
//! Restarting the computer, and what the kernel command line asks for.

use std::fs;

use rustix::system::{reboot, RebootCommand};

use crate::error::{Error, Result};
use crate::switch::payload::After;

/// What imgstream finds on the kernel command line. Its words do not begin with `imgstream.`: those are parameters of the
/// module, to which modprobe passes them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cmdline {
    /// `root=`.
    pub root: Option<String>,
    /// `imgstreamctl.commit=now`: commit in the initramfs, root never mounted.
    pub commit_now: bool,
    /// `imgstreamctl.after=`: what to do when the work of this boot is done.
    pub after: Option<After>,
    /// `elfcorehdr=`: this kernel saves the dump of another one that crashed (kdump), where that word is how it knows.
    pub saves_dump: bool,
}

impl Cmdline {
    /// Of the running kernel.
    pub fn read() -> Self {
        Self::parse(&fs::read_to_string("/proc/cmdline").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some(("root", root)) => found.root = Some(root.to_string()),
                Some(("elfcorehdr", _)) => found.saves_dump = true,
                Some(("imgstreamctl.commit", "now")) => found.commit_now = true,
                Some(("imgstreamctl.after", "reboot")) => found.after = Some(After::Reboot),
                Some(("imgstreamctl.after", "poweroff")) => found.after = Some(After::Poweroff),
                _ => {}
            }
        }
        found
    }
}

/// Writes everything out and restarts or switches off at once: only where
/// nothing is mounted that has to be left in order.
pub fn leave_now(after: After) -> Result<()> {
    rustix::fs::sync();
    leave_at_once(after)
}

/// The same without writing anything out, which may wait for a repository that is gone.
pub fn leave_at_once(after: After) -> Result<()> {
    let command = match after {
        After::Reboot => RebootCommand::Restart,
        After::Poweroff => RebootCommand::PowerOff,
    };
    reboot(command).map_err(|e| Error::Other(format!("the computer does not restart: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_command_line() {
        let text = "BOOT_IMAGE=/x root=UUID=6b29 ro quiet imgstreamctl.commit=now \
                    imgstreamctl.after=poweroff\n";
        let found = Cmdline::parse(text);
        assert_eq!(found.root.as_deref(), Some("UUID=6b29"));
        assert!(found.commit_now);
        assert_eq!(found.after, Some(After::Poweroff));
        assert!(!found.saves_dump);
        assert!(Cmdline::parse("root=/dev/vda1 elfcorehdr=0x2f000000").saves_dump);
        let none = Cmdline::default();
        assert_eq!(Cmdline::parse("imgstreamctl.commit=later"), none);
        let of_the_module = "imgstream.commit=now imgstream.after=reboot";
        assert_eq!(Cmdline::parse(of_the_module), none);
    }
}
