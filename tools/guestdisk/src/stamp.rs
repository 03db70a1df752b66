// SPDX-License-Identifier: GPL-2.0-only

//! Blocks that say who they are. The same contents as selftests/recipes/stamp writes.

use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{bail, Context, Result};
use imgstream_proto::disk::{BLOCK_BYTES, BLOCK_LEN};

use crate::direct::{self, Access, Aligned};

/// Contents of a block.
pub(crate) fn block(word: &str, number: u64) -> [u8; BLOCK_LEN] {
    let line = format!("{word} {number:012}\n");
    let mut block = [0; BLOCK_LEN];
    for (to, from) in block.iter_mut().zip(line.bytes().cycle()) {
        *to = from;
    }
    block
}

/// What a block that is not the expected one says.
fn says(block: &[u8]) -> String {
    if block.iter().all(|byte| *byte == 0) {
        return "zeroes".into();
    }
    let line = block.split(|byte| *byte == b'\n').next().unwrap_or(&[]);
    String::from_utf8_lossy(line.get(..line.len().min(60)).unwrap_or(&[])).into_owned()
}

/// Checks blocks; "zero" means zeroes.
pub(crate) fn verify(device: &Path, word: &str, start: u64, blocks: Option<u64>) -> Result<()> {
    let file = direct::open(device, Access::Read)?;
    let mut number = start;
    let mut memory = Aligned::new(BLOCK_LEN);
    while blocks.is_none_or(|blocks| number - start < blocks) {
        let found = memory.bytes(BLOCK_LEN);
        if let Err(error) = file.read_exact_at(found, number * BLOCK_BYTES) {
            if blocks.is_none() && error.kind() == std::io::ErrorKind::UnexpectedEof {
                break;
            }
            return Err(error).with_context(|| format!("reading block {number}"));
        }
        let expected = match word {
            "zero" => [0; BLOCK_LEN],
            word => block(word, number),
        };
        if *found != expected {
            bail!("block {number} should say {word:?}, says {:?}", says(found));
        }
        number += 1;
    }
    println!("{} blocks say {word:?}", number - start);
    Ok(())
}

/// Writes blocks.
pub(crate) fn write(
    device: &Path,
    word: &str,
    start: u64,
    blocks: u64,
    access: Access,
) -> Result<()> {
    let file = direct::open(device, access)?;
    let mut memory = Aligned::new(BLOCK_LEN);
    for number in start..start + blocks {
        let bytes = memory.bytes(BLOCK_LEN);
        bytes.copy_from_slice(&block(word, number));
        file.write_all_at(bytes, number * BLOCK_BYTES)?;
    }
    file.sync_data()?;
    Ok(())
}
