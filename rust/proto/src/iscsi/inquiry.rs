// SPDX-License-Identifier: GPL-2.0-only

//! What INQUIRY and READ CAPACITY(16) answer: who the logical unit is, and how large.

/// Longest designator that is kept; longer ones are of no use as an identity here (SPC allows 255 bytes, targets use
/// 8 to 36).
pub const DESIGNATOR_BYTES: usize = 64;

/// Who a logical unit is, from page 0x83: the strongest designator that belongs to the unit itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Designator {
    kind: u8,
    len: u8,
    bytes: [u8; DESIGNATOR_BYTES],
}

impl Designator {
    /// No designator: page 0x83 is missing or names nothing usable.
    pub const NONE: Self = Self {
        kind: 0,
        len: 0,
        bytes: [0; DESIGNATOR_BYTES],
    };

    /// A designator of the given kind, or `None` if it is too long.
    pub fn new(kind: u8, value: &[u8]) -> Option<Self> {
        let mut bytes = [0; DESIGNATOR_BYTES];
        bytes.get_mut(..value.len())?.copy_from_slice(value);
        Some(Self {
            kind,
            len: u8::try_from(value.len()).ok()?,
            bytes,
        })
    }

    /// Designator type as in SPC: 1 T10 vendor, 2 EUI-64, 3 NAA, 8 SCSI name string.
    pub const fn kind(&self) -> u8 {
        self.kind
    }

    /// The value.
    pub fn value(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// Reads page 0x83 as INQUIRY returned it.
    ///
    /// Only designators of the unit itself count (association 0). NAA is preferred to EUI-64, that to a SCSI name, that
    /// to a T10 vendor string, as multipath tools do. A malformed page gives what was read up to the damage.
    pub fn from_page(page: &[u8]) -> Self {
        let Some((&[_, 0x83, high, low], rest)) = page.split_first_chunk::<4>() else {
            return Self::NONE;
        };
        let len = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
        let mut list = rest.get(..len).unwrap_or(&[]);
        let mut best = Self::NONE;
        while let Some((&[_, header, _, len], rest)) = list.split_first_chunk::<4>() {
            let Some(value) = rest.get(..usize::from(len)) else {
                break;
            };
            list = rest.get(usize::from(len)..).unwrap_or(&[]);
            if header & 0x30 != 0 || value.is_empty() {
                continue;
            }
            if let Some(found) = Self::new(header & 0x0f, value) {
                if found.strength() > best.strength() {
                    best = found;
                }
            }
        }
        best
    }

    fn strength(&self) -> u8 {
        match self.kind {
            3 => 4,
            2 => 3,
            8 => 2,
            1 => 1,
            _ => 0,
        }
    }
}

/// Whether standard INQUIRY data tells of a disk that is there (peripheral qualifier 0, type 0).
///
/// `None` if the data is too short to tell.
pub fn is_disk(data: &[u8]) -> Option<bool> {
    Some(*data.first()? == 0)
}

/// The greatest transfer of one command in logical blocks, from page 0xb0 (SBC: 0 means not limited).
pub fn max_transfer_blocks(page: &[u8]) -> Option<u32> {
    if *page.get(1)? != 0xb0 {
        return None;
    }
    let blocks = u32::from_be_bytes(*page.get(8..)?.first_chunk::<4>()?);
    (blocks != 0).then_some(blocks)
}

/// Size of a logical unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Number of logical blocks.
    pub blocks: u64,
    /// Bytes of a logical block: a power of two, 512 to 4096.
    pub block_bytes: u32,
}

impl Capacity {
    /// Reads what READ CAPACITY(16) returned. `None` for sizes that nothing here can work with: other block sizes, or
    /// more bytes than 64 bits count.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let (last, rest) = data.split_first_chunk::<8>()?;
        let block_bytes = u32::from_be_bytes(*rest.first_chunk::<4>()?);
        if !matches!(block_bytes, 512 | 1024 | 2048 | 4096) {
            return None;
        }
        let blocks = u64::from_be_bytes(*last).checked_add(1)?;
        blocks.checked_mul(u64::from(block_bytes))?;
        Some(Self {
            blocks,
            block_bytes,
        })
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.blocks.saturating_mul(u64::from(self.block_bytes))
    }
}

#[cfg(test)]
mod tests;
