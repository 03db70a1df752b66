// SPDX-License-Identifier: GPL-2.0-only

//! The caller's buffer, cut into reads.

use imgstream_engine::session::{ReadId, MAX_READS};

/// Bytes of one read: what a target with the usual MaxBurstLength sends for one command.
const CHUNK_BYTES: usize = 256 << 10;

/// A part of the buffer and where it comes from.
struct Chunk<'a> {
    offset: u64,
    area: &'a mut [u8],
}

/// What is still to be read, and what is on its way.
pub(crate) struct Chunks<'a> {
    rest: &'a mut [u8],
    offset: u64,
    in_flight: [Option<Chunk<'a>>; MAX_READS],
}

impl<'a> Chunks<'a> {
    pub(crate) fn new(offset: u64, rest: &'a mut [u8]) -> Self {
        Self {
            rest,
            offset,
            in_flight: [const { None }; MAX_READS],
        }
    }

    /// Nothing to read.
    pub(crate) fn none() -> Self {
        Self::new(0, &mut [])
    }

    /// Everything was read.
    pub(crate) fn is_done(&self) -> bool {
        self.rest.is_empty() && self.in_flight.iter().all(Option::is_none)
    }

    /// The next read, if there is one and room for it: its name, place and length.
    pub(crate) fn next(&mut self) -> Option<(ReadId, u64, u32)> {
        let index = self.in_flight.iter().position(Option::is_none)?;
        let len = self.rest.len().min(CHUNK_BYTES);
        if len == 0 {
            return None;
        }
        let (area, rest) = std::mem::take(&mut self.rest).split_at_mut(len);
        let offset = self.offset;
        self.rest = rest;
        self.offset += len as u64;
        self.in_flight[index] = Some(Chunk { offset, area });
        Some((ReadId(index as u16), offset, len as u32))
    }

    /// Where data of a read goes.
    pub(crate) fn area(&mut self, id: ReadId, offset: u32, len: u32) -> Option<&mut [u8]> {
        let chunk = self.in_flight.get_mut(usize::from(id.0))?.as_mut()?;
        chunk
            .area
            .get_mut(offset as usize..)?
            .get_mut(..len as usize)
    }

    /// A read has ended: where it started.
    pub(crate) fn end(&mut self, id: ReadId) -> Option<u64> {
        Some(self.in_flight.get_mut(usize::from(id.0))?.take()?.offset)
    }
}
