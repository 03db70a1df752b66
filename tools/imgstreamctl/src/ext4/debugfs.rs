// SPDX-License-Identifier: GPL-2.0-only
//! Questions to `debugfs`: inodes, directories, contents.

use std::io::Write;
use std::process::Output;

use super::{facts, Ext4};
use crate::error::{Error, Result};
use crate::program;

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, pipe or socket.
    Special,
}

/// An inode and every block that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Its number.
    pub number: u32,
    /// What it is.
    pub kind: FileKind,
    /// Size of its content.
    pub size_bytes: u64,
    /// Target, when it is a symbolic link.
    pub target: Option<String>,
    /// The block of the inode table that holds it.
    pub table_block: u64,
    /// Its data, directory, indirect and extent-tree blocks.
    pub blocks: Vec<u64>,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Inode number.
    pub inode: u32,
    /// What it is.
    pub kind: FileKind,
    /// Its name.
    pub name: String,
}

impl Ext4 {
    /// Reads several inodes with one run of debugfs.
    pub fn inodes(&self, numbers: &[u32]) -> Result<Vec<Inode>> {
        let commands: Vec<String> = numbers
            .iter()
            .flat_map(|n| {
                [
                    format!("stat <{n}>"),
                    format!("imap <{n}>"),
                    format!("blocks <{n}>"),
                ]
            })
            .collect();
        let answers = self.ask(&commands)?;
        let mut inodes = Vec::with_capacity(numbers.len());
        for (number, answers) in numbers.iter().zip(answers.chunks_exact(3)) {
            let mut inode = parse_inode(*number, answers)
                .filter(|inode| inode.blocks.iter().all(|block| *block < self.facts.blocks))
                .ok_or_else(|| unexpected(&format!("stat <{number}>"), &answers.join("")))?;
            if inode.kind == FileKind::Symlink && inode.target.is_none() {
                inode.target = Some(self.slow_target(*number)?);
            }
            inodes.push(inode);
        }
        Ok(inodes)
    }

    /// The names in directory `number`, without `.` and `..`.
    pub fn list(&self, number: u32) -> Result<Vec<DirEntry>> {
        let command = format!("ls -p <{number}>");
        let answer = self.ask(std::slice::from_ref(&command))?.concat();
        answer
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| parse_entry(line).ok_or_else(|| unexpected(&command, line)))
            .filter(|entry| !matches!(entry, Ok(e) if e.name == "." || e.name == ".."))
            .collect()
    }

    /// The content of file `number`.
    pub fn content(&self, number: u32) -> Result<Vec<u8>> {
        let command = format!("cat <{number}>");
        let output = debugfs(&["-R", &command, &self.name])?;
        if !output.status.success() {
            return Err(program::failed("debugfs", &output).into());
        }
        Ok(output.stdout)
    }

    /// The block with block `logical` of file `number`.
    pub(super) fn map_block(&self, number: u32, logical: u64) -> Result<u64> {
        let command = format!("bmap <{number}> {logical}");
        let answer = self.ask(std::slice::from_ref(&command))?.concat();
        let word = answer.split_whitespace().next().unwrap_or_default();
        word.parse().map_err(|_| unexpected(&command, &answer))
    }

    /// Where a symbolic link points whose target does not fit its inode.
    fn slow_target(&self, number: u32) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.content(number)?).into_owned())
    }

    /// Runs `commands` and returns what each printed. debugfs repeats every
    /// command of a file in front of its answer.
    fn ask(&self, commands: &[String]) -> Result<Vec<String>> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut file = tempfile::NamedTempFile::new()
            .map_err(Error::io("making a file in", &std::env::temp_dir()))?;
        let all = commands.join("\n") + "\n";
        file.write_all(all.as_bytes())
            .map_err(Error::io("writing", file.path()))?;
        let path = file.path().to_string_lossy().into_owned();
        let output = debugfs(&["-f", &path, &self.name])?;
        let said = program::text("debugfs", output)?;
        split_answers(&said, commands).ok_or_else(|| unexpected(&commands.join("; "), &said))
    }
}

/// Runs debugfs without the bitmaps (`-c`): nothing here needs them, and one of
/// a mounted file system may be read between its change and that of its
/// checksum; debugfs 1.47.0 then opens nothing, and says so with success.
pub(super) fn debugfs(arguments: &[&str]) -> Result<Output, program::Error> {
    program::e2fs("debugfs", &[&["-c"], arguments].concat())
}

fn split_answers(said: &str, commands: &[String]) -> Option<Vec<String>> {
    let mut rest = said;
    let mut answers = Vec::with_capacity(commands.len());
    for (i, command) in commands.iter().enumerate() {
        rest = rest.strip_prefix(&format!("debugfs: {command}\n"))?;
        let end = match commands.get(i + 1) {
            Some(next) => rest.find(&format!("debugfs: {next}\n"))?,
            None => rest.len(),
        };
        let (answer, after) = rest.split_at(end);
        answers.push(answer.to_string());
        rest = after;
    }
    Some(answers)
}

fn parse_inode(number: u32, answers: &[String]) -> Option<Inode> {
    let [stat, imap, blocks] = answers else {
        return None;
    };
    let after = |text: &str, key: &str| {
        let (_, rest) = text.split_once(key)?;
        rest.split_whitespace().next().map(str::to_string)
    };
    let kind = match after(stat, "Type: ")?.as_str() {
        "regular" => FileKind::Regular,
        "directory" => FileKind::Directory,
        "symlink" => FileKind::Symlink,
        _ => FileKind::Special,
    };
    let target = facts::field(stat, "Fast link dest:").map(|t| t.trim_matches('"').to_string());
    // Where a link's target or a device number stands in the inode, debugfs
    // prints that as block numbers.
    let has_blocks = target.is_none() && kind != FileKind::Special;
    let blocks = if has_blocks { blocks.as_str() } else { "" };
    Some(Inode {
        number,
        kind,
        size_bytes: after(stat, "Size: ")?.parse().ok()?,
        target,
        table_block: after(imap, "located at block ")?
            .trim_end_matches(',')
            .parse()
            .ok()?,
        blocks: blocks
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?,
    })
}

/// A line of `ls -p`: `/inode/mode/uid/gid/name/size/`.
fn parse_entry(line: &str) -> Option<DirEntry> {
    let mut fields = line.strip_prefix('/')?.split('/');
    let inode = fields.next()?.parse().ok()?;
    let mode = u32::from_str_radix(fields.next()?, 8).ok()?;
    let name = fields.nth(2)?.to_string();
    let kind = match mode & 0o170_000 {
        0o100_000 => FileKind::Regular,
        0o040_000 => FileKind::Directory,
        0o120_000 => FileKind::Symlink,
        _ => FileKind::Special,
    };
    Some(DirEntry { inode, kind, name })
}

fn unexpected(asked: &str, said: &str) -> Error {
    program::Error::Answer {
        program: "debugfs",
        asked: asked.chars().take(200).collect(),
        said: said.chars().take(400).collect(),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of which the bitmaps of most groups cannot be read.
    #[test]
    fn bitmaps_are_not_needed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let name = file.path().to_str().unwrap();
        let asked = [
            "-q", "-F", "-t", "ext4", "-b", "1024", "-O", "^flex_bg", name, "64M",
        ];
        let made = program::run("mke2fs", "e2fsprogs", &asked).unwrap();
        assert!(made.status.success());
        file.as_file().set_len(12 << 20).unwrap();
        let fs = Ext4::open_device(file.path(), 0).unwrap();
        assert_eq!(fs.facts().blocks, 64 << 10);
        let root = fs.list(2).unwrap();
        assert!(root.iter().any(|entry| entry.name == "lost+found"));
    }

    #[test]
    fn answers_are_told_apart() {
        let commands = ["a".to_string(), "b".to_string(), "c".to_string()];
        let said = "debugfs: a\n1\n2\ndebugfs: b\ndebugfs: c\n3\n";
        assert_eq!(
            split_answers(said, &commands).unwrap(),
            ["1\n2\n", "", "3\n"]
        );
        assert_eq!(split_answers("debugfs: b\n", &commands), None);
    }

    #[test]
    fn entries_keep_odd_names() {
        let entry = parse_entry("/15/120777/0/0/a b:c/100/").unwrap();
        assert_eq!((entry.inode, entry.kind), (15, FileKind::Symlink));
        assert_eq!(entry.name, "a b:c");
        assert_eq!(parse_entry("no entry"), None);
    }
}
