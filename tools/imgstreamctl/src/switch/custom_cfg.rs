// SPDX-License-Identifier: GPL-2.0-only
//! The stage's entry in GRUB's `custom.cfg`.
//!
//! Debian's `grub.cfg` sources `custom.cfg` at its end, so a block appended
//! there decides what is booted without touching any generated file. The block
//! stands between two marks; taking it out leaves the user's own lines as they
//! were, byte for byte.

const BEGIN: &str = "### BEGIN imgstream stage ###\n";
const BEGIN_NEW: &str = "### BEGIN imgstream stage (file made by imgstream) ###\n";
const BEGIN_UNENDED: &str = "\n### BEGIN imgstream stage (the line before has no end) ###\n";
const END: &str = "### END imgstream stage ###\n";

/// What the menu entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// UUID of the file system that holds the files below.
    pub boot_uuid: String,
    /// Kernel, as GRUB sees its path.
    pub kernel: String,
    /// Initramfs archives, loaded one after the other.
    pub initrds: Vec<String>,
    /// Kernel command line.
    pub cmdline: String,
}

impl Entry {
    /// The lines between the marks. The entry stays the default until the
    /// block is removed: a power cut in the stage boots the stage again.
    /// Unrestricted, for nobody may be there to type a password.
    fn lines(&self) -> String {
        format!(
            "set default=imgstream-stage\n\
             set timeout=0\n\
             menuentry 'imgstream: move to another image' --id imgstream-stage --unrestricted {{\n\
             \tsearch --no-floppy --fs-uuid --set=root {}\n\
             \techo 'imgstream: loading the stage environment'\n\
             \tlinux {} {}\n\
             \tinitrd {}\n\
             }}\n",
            self.boot_uuid,
            self.kernel,
            quoted(&self.cmdline),
            self.initrds.join(" ")
        )
    }
}

/// A kernel's command line so that GRUB's script gives it back as it is (GRUB
/// manual, "Shell-like scripting", quoting). GRUB puts quotes back itself.
fn quoted(cmdline: &str) -> String {
    let mut inside = false;
    let mut text = String::with_capacity(cmdline.len());
    for c in cmdline.chars() {
        inside ^= c == '"';
        if c == '$' || (!inside && ";&|#<>{}".contains(c)) {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

/// True if this `grub.cfg` sources `custom.cfg` from its own directory.
pub fn is_sourced_by(grub_cfg: &str) -> bool {
    grub_cfg.lines().map(str::trim).any(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next(), Some("source" | "." | "configfile"))
            && words.next().is_some_and(|path| {
                let path = path.trim_matches('"');
                path == "${config_directory}/custom.cfg" || path == "$prefix/custom.cfg"
            })
    })
}

/// `old` (none: there is no such file) with the entry in it, once.
pub fn with_entry(old: Option<&str>, entry: &Entry) -> String {
    let kept = old.and_then(without_entry);
    match kept.as_deref().or(old) {
        None => format!("{BEGIN_NEW}{}{END}", entry.lines()),
        // The block that was found was the whole file.
        Some("") if kept.is_some() => format!("{BEGIN_NEW}{}{END}", entry.lines()),
        Some(text) if text.is_empty() || text.ends_with('\n') => {
            format!("{text}{BEGIN}{}{END}", entry.lines())
        }
        Some(text) => format!("{text}{BEGIN_UNENDED}{}{END}", entry.lines()),
    }
}

/// True if the stage's block is in this text.
pub fn has_entry(text: &str) -> bool {
    find(text).is_some()
}

/// The text without the block, or all of them should there be several; `None`
/// if there is none. Empty means that the file was made by us and goes away,
/// see [`was_made_by_us`].
pub fn without_entry(text: &str) -> Option<String> {
    let (start, end) = find(text)?;
    let rest = format!("{}{}", &text[..start], &text[end..]);
    Some(without_entry(&rest).unwrap_or(rest))
}

/// True if nothing but our block was ever in this file.
pub fn was_made_by_us(text: &str) -> bool {
    text.starts_with(BEGIN_NEW) && without_entry(text).is_some_and(|rest| rest.is_empty())
}

/// Where the block begins and ends.
fn find(text: &str) -> Option<(usize, usize)> {
    let start = [BEGIN_UNENDED, BEGIN, BEGIN_NEW]
        .iter()
        .find_map(|mark| text.find(mark))?;
    let end = start + text[start..].find(END)? + END.len();
    Some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            boot_uuid: "6b29".into(),
            kernel: "/boot/vmlinuz-6.1".into(),
            initrds: vec![
                "/boot/initrd.img-6.1".into(),
                "/boot/imgstream-stage.img".into(),
            ],
            cmdline: "boot=imgstream-stage".into(),
        }
    }

    #[test]
    fn users_lines_come_back_unchanged() {
        for old in [
            "",
            "menuentry 'mine' {\n}\n",
            "set timeout=3\n",
            "# ends without newline",
        ] {
            let new = with_entry(Some(old), &entry());
            assert!(has_entry(&new));
            assert_eq!(without_entry(&new).unwrap(), old);
            assert!(!was_made_by_us(&new));
        }
    }

    #[test]
    fn a_last_line_without_newline_is_not_swallowed() {
        let new = with_entry(Some("# mine"), &entry());
        assert!(new.starts_with("# mine"), "{new}");
        assert!(has_entry(&new));
        assert!(new.lines().any(|line| line == "# mine"), "{new}");
        assert_eq!(without_entry(&new).unwrap(), "# mine");
    }

    #[test]
    fn a_file_of_our_own_goes_away() {
        let new = with_entry(None, &entry());
        assert!(was_made_by_us(&new));
        assert_eq!(without_entry(&new).unwrap(), "");
    }

    #[test]
    fn asking_twice_leaves_one_entry() {
        for old in [None, Some("set x=1\n")] {
            let once = with_entry(old, &entry());
            let twice = with_entry(Some(&once), &entry());
            assert_eq!(once, twice);
        }
    }

    #[test]
    fn of_two_entries_none_stays() {
        let one = with_entry(Some("set x=1\n"), &entry());
        let two = format!("{one}{}", with_entry(None, &entry()));
        assert_eq!(without_entry(&two).unwrap(), "set x=1\n");
    }

    #[test]
    fn the_entry_loads_all_of_it() {
        let text = with_entry(None, &entry());
        assert!(text.contains("\tlinux /boot/vmlinuz-6.1 boot=imgstream-stage\n"));
        assert!(text.contains("\tinitrd /boot/initrd.img-6.1 /boot/imgstream-stage.img\n"));
        assert!(text.contains("--fs-uuid --set=root 6b29\n"));
    }

    #[test]
    fn the_command_line_reaches_the_kernel_as_it_is() {
        for (running, written) in [
            ("memmap=64K$0x1869000", r"memmap=64K\$0x1869000"),
            ("a=1;2&3|4 #5", r"a=1\;2\&3\|4 \#5"),
            (r#""dyndbg=file a +p; b$c""#, r#""dyndbg=file a +p; b\$c""#),
            ("root=UUID=6b29 ro", "root=UUID=6b29 ro"),
        ] {
            assert_eq!(quoted(running), written);
        }
    }

    #[test]
    fn nobody_has_to_type_a_password() {
        let text = with_entry(None, &entry());
        assert!(text.contains(" --id imgstream-stage --unrestricted {"));
    }

    #[test]
    fn debians_grub_cfg_is_recognised() {
        let debian = "if [ -f  ${config_directory}/custom.cfg ]; then\n  \
                      source ${config_directory}/custom.cfg\nfi\n";
        assert!(is_sourced_by(debian));
        assert!(!is_sourced_by("# source ${config_directory}/custom.cfg\n"));
        assert!(!is_sourced_by(
            "if [ -f  ${config_directory}/custom.cfg ]; then\nfi\n"
        ));
        assert!(!is_sourced_by(""));
    }

    #[test]
    fn half_a_block_is_not_taken_for_one() {
        assert_eq!(without_entry(BEGIN), None);
        assert_eq!(without_entry(END), None);
    }
}
