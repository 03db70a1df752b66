// SPDX-License-Identifier: GPL-2.0-only
//! Reading archives in cpio's "newc" format, as the kernel does.

const HEADER_LEN: usize = 110;

/// A member of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member<'a> {
    /// Its name, without a leading `./` or `/`.
    pub name: &'a str,
    /// Its content.
    pub data: &'a [u8],
}

/// Whether an archive starts here.
pub(super) fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(b"070701") || bytes.starts_with(b"070702")
}

/// Calls `each` for every member of the archive at the start of `bytes` and
/// returns what follows its end; `None` when it is damaged.
pub(super) fn read<'a>(bytes: &'a [u8], mut each: impl FnMut(Member<'a>)) -> Option<&'a [u8]> {
    let mut at = 0;
    loop {
        let header = bytes.get(at..)?.get(..HEADER_LEN)?;
        if !is_archive(header) {
            return None;
        }
        let field = |index: usize| {
            let digits = header.get(6 + 8 * index..14 + 8 * index)?;
            usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
        };
        let (data_len, name_len) = (field(6)?, field(11)?);
        let name_at = at + HEADER_LEN;
        let name = bytes.get(name_at..name_at.checked_add(name_len)?)?;
        let name = std::str::from_utf8(name.strip_suffix(&[0])?).unwrap_or("");
        let data_at = (name_at + name_len).next_multiple_of(4);
        let data_end = data_at.checked_add(data_len)?;
        let data = bytes.get(data_at..data_end)?;
        if name == "TRAILER!!!" {
            return bytes.get(data_end..);
        }
        let name = name.trim_start_matches("./").trim_start_matches('/');
        each(Member { name, data });
        at = data_end.checked_next_multiple_of(4)?;
    }
}
