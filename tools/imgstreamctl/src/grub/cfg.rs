// SPDX-License-Identifier: GPL-2.0-only
//! Which files a GRUB script names. The script is not run: what any branch of
//! it could read counts.

use std::collections::HashMap;

/// A kernel that a script loads, and its initramfs archives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Path of the kernel.
    pub kernel: String,
    /// Paths of what `initrd` loads.
    pub initrds: Vec<String>,
}

/// The files that one script names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Kernels in the order of the menu, each pair once.
    pub entries: Vec<Entry>,
    /// Every other word that could be a path.
    pub files: Vec<String>,
    /// Scripts that this one reads.
    pub scripts: Vec<String>,
}

const LINUX: [&str; 4] = ["linux", "linux16", "linuxefi", "multiboot"];
const INITRD: [&str; 4] = ["initrd", "initrd16", "initrdefi", "module"];
const SCRIPT: [&str; 5] = [
    ".",
    "source",
    "configfile",
    "extract_entries_source",
    "normal",
];
/// Their words are titles and messages.
const TALK: [&str; 3] = ["menuentry", "submenu", "echo"];

/// What `text` names, with `prefix` as the directory of grub.cfg.
pub fn references(text: &str, prefix: &str) -> References {
    let mut found = References::default();
    let mut variables: HashMap<String, String> = HashMap::new();
    for name in ["prefix", "config_directory"] {
        variables.insert(name.to_string(), prefix.to_string());
    }
    for command in commands(text) {
        let words: Vec<String> = command.iter().map(|w| expand(w, &variables)).collect();
        remember(&words, &mut variables);
        found.command(&words);
    }
    found.entries.dedup();
    let mut unique: Vec<Entry> = Vec::new();
    for entry in found.entries {
        if !unique.contains(&entry) {
            unique.push(entry);
        }
    }
    found.entries = unique;
    found
}

impl References {
    fn command(&mut self, words: &[String]) {
        let keywords = ["if", "elif", "else", "then", "while", "until", "!", "do"];
        let start = words
            .iter()
            .position(|w| !keywords.contains(&w.as_str()))
            .unwrap_or(words.len());
        let Some((name, rest)) = words[start..].split_first() else {
            return;
        };
        let name = name.as_str();
        if TALK.contains(&name) {
            return;
        }
        if LINUX.contains(&name) {
            let kernel = rest.iter().find_map(|w| as_path(w));
            self.entries.extend(kernel.map(|kernel| Entry {
                kernel,
                initrds: Vec::new(),
            }));
        } else if INITRD.contains(&name) {
            if let Some(entry) = self.entries.last_mut() {
                entry.initrds.extend(rest.iter().filter_map(|w| as_path(w)));
            }
        } else if SCRIPT.contains(&name) {
            self.scripts.extend(rest.iter().filter_map(|w| as_path(w)));
        } else {
            self.files.extend(words.iter().filter_map(|w| as_path(w)));
        }
    }
}

/// The path in a word such as `/a`, `(hd0,gpt2)/a`, `font=/a`; `None` when the
/// word is none, or a variable in it is not known.
fn as_path(word: &str) -> Option<String> {
    let value = match word.split_once('=') {
        Some((name, value)) if !name.contains('/') => value,
        _ => word,
    };
    let path = match value.strip_prefix('(') {
        Some(device) => device.split_once(')')?.1,
        None => value,
    };
    (path.starts_with('/') && !path.contains('$')).then(|| path.to_string())
}

/// Remembers `set a=b` and `a=b`.
fn remember(words: &[String], variables: &mut HashMap<String, String>) {
    let word = match words {
        [set, word, ..] if set == "set" => word,
        [word] => word,
        _ => return,
    };
    if let Some((name, value)) = word.split_once('=') {
        // The prefix is what the walk goes by; a script that sets it to itself
        // (Debian's custom.cfg does) must not lose it.
        if name != "prefix" {
            variables.insert(name.to_string(), value.to_string());
        }
    }
}

/// Replaces `$name` and `${name}`; an unknown variable stays as it is.
fn expand(word: &str, variables: &HashMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let (name, tail) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').unwrap_or((braced, "")),
            None => {
                let end = after
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(after.len());
                after.split_at(end)
            }
        };
        match variables.get(name) {
            Some(value) => out.push_str(value),
            None => {
                out.push('$');
                out.push_str(name);
            }
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// Splits a script into commands and those into words, without quotes.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' => take_quoted(&mut chars, '\'', word.get_or_insert_default()),
            '"' => take_quoted(&mut chars, '"', word.get_or_insert_default()),
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(escaped) => word.get_or_insert_default().push(escaped),
            },
            '$' if chars.peek() == Some(&'{') => {
                take_braced(&mut chars, word.get_or_insert_default())
            }
            '#' if word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            ' ' | '\t' | '\n' | ';' | '{' | '}' => {
                let last = all.len() - 1;
                all[last].extend(word.take());
                if c != ' ' && c != '\t' && !all[last].is_empty() {
                    all.push(Vec::new());
                }
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    let last = all.len() - 1;
    all[last].extend(word);
    all.retain(|words| !words.is_empty());
    all
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn take_quoted(chars: &mut Chars<'_>, quote: char, word: &mut String) {
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return,
            '\\' if quote == '"' => word.extend(chars.next()),
            c => word.push(c),
        }
    }
}

fn take_braced(chars: &mut Chars<'_>, word: &mut String) {
    word.push('$');
    for c in chars.by_ref() {
        word.push(c);
        if c == '}' {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = r#"
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ x$feature_default_font_path = xy ] ; then
   font=unicode
else
search --no-floppy --fs-uuid --set=root  18b6c0d8-0df5-4e0f-a4a2-9c7f0f4b0f53
    font="/usr/share/grub/unicode.pf2"
fi
if loadfont $font ; then
  set gfxmode=auto
fi
insmod png
if background_image /usr/share/desktop-base/grub-16x9.png; then
  set color_normal=white/black
fi
set theme=($root)/usr/share/themes/it/theme.txt
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-18b6' {
	load_video
	echo	'Loading Linux /not/a/file ...'
	linux	/boot/vmlinuz-6.12 root=UUID=18b6 ro init=/bin/sh
	echo	'Loading initial ramdisk ...'
	initrd	/boot/intel-ucode.img /boot/initrd.img-6.12
}
submenu 'Advanced options' {
	menuentry 'Debian 6.1' {
		linux	/boot/vmlinuz-6.1 ro
		initrd	/boot/initrd.img-6.1
	}
	menuentry 'the same again' {
		linux	/boot/vmlinuz-6.12 ro single
		initrd	/boot/intel-ucode.img /boot/initrd.img-6.12
	}
}
if [ -f  ${config_directory}/custom.cfg ]; then
  source ${config_directory}/custom.cfg
elif [ -z "${config_directory}" -a -f  $prefix/custom.cfg ]; then
  source $prefix/custom.cfg
fi
"#;

    #[test]
    fn finds_what_debians_script_names() {
        let found = references(DEBIAN, "/boot/grub");
        let kernels: Vec<&str> = found.entries.iter().map(|e| e.kernel.as_str()).collect();
        assert_eq!(kernels, ["/boot/vmlinuz-6.12", "/boot/vmlinuz-6.1"]);
        assert_eq!(
            found.entries[0].initrds,
            ["/boot/intel-ucode.img", "/boot/initrd.img-6.12"]
        );
        assert_eq!(
            found.scripts,
            ["/boot/grub/custom.cfg", "/boot/grub/custom.cfg"]
        );
        for file in [
            "/usr/share/grub/unicode.pf2",
            "/usr/share/desktop-base/grub-16x9.png",
            "/usr/share/themes/it/theme.txt",
            "/boot/grub/grubenv",
        ] {
            assert!(found.files.iter().any(|f| f == file), "{file}: {found:?}");
        }
        let talk = |f: &String| f.starts_with("/not") || f.starts_with("/bin");
        assert!(!found.files.iter().any(talk), "{found:?}");
    }

    #[test]
    fn quotes_variables_and_devices_are_understood() {
        let found = references(
            "set d='/my dir'\nlinux \"(hd0,gpt2)${d}/k\"; initrd (hd0,2)$d/i\\ 1 # /x\n",
            "/grub",
        );
        assert_eq!(
            found.entries,
            [Entry {
                kernel: "/my dir/k".into(),
                initrds: vec!["/my dir/i 1".into()],
            }]
        );
        assert!(!found.files.contains(&"/x".to_string()));
    }

    #[test]
    fn unknown_variables_and_odd_ends_do_no_harm() {
        let found = references("linux $unknown/k\ninitrd '/open\nset a=${b", "/grub");
        assert_eq!(found, References::default());
    }
}
