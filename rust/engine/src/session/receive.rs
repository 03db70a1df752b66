// SPDX-License-Identifier: GPL-2.0-only

//! Framing: header, data segment, padding, their digests; and where each byte goes.

use core::ops::DerefMut;

use imgstream_proto::iscsi::bhs::{opcode, AnyHeader, BHS_BYTES};
use imgstream_proto::iscsi::digest::{encode, DIGEST_BYTES};

use super::reason::{Reason, Violation};
use super::{Session, Stage, Want, AUX_BYTES, INPUT_BYTES, SCRATCH_BYTES};

/// Where a data segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sink {
    /// The caller's buffer of a read; the part of it that its current command fills starts at `offset`.
    Read { index: usize, offset: u32 },
    /// Our input area, from here on.
    Input(usize),
    /// The list of targets, from here on.
    List(usize),
    /// Our small area for everything else.
    Aux,
    /// Nowhere.
    Discard,
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Header { have: usize },
    HeaderDigest { have: usize },
    Data { sink: Sink, at: u32, left: u32 },
    Padding { left: usize },
    DataDigest { have: usize },
}

/// The PDU that is being received.
#[derive(Debug)]
pub(super) struct Receive {
    header: [u8; BHS_BYTES],
    part: Part,
    padding: [u8; 3],
    digest: [u8; DIGEST_BYTES],
    /// CRC-32C of what has come of the data segment and its padding.
    crc: u32,
}

impl Receive {
    pub(super) const fn new() -> Self {
        Self {
            header: [0; BHS_BYTES],
            part: Part::Header { have: 0 },
            padding: [0; 3],
            digest: [0; DIGEST_BYTES],
            crc: 0,
        }
    }

    /// The header that was received last.
    pub(super) const fn header(&self) -> &[u8; BHS_BYTES] {
        &self.header
    }

    pub(super) const fn set_crc(&mut self, crc: u32) {
        self.crc = crc;
    }

    fn any(&self) -> AnyHeader {
        AnyHeader::decode(&self.header)
    }
}

impl<B: DerefMut<Target = [u8]>> Session<B> {
    /// What to receive next.
    pub fn want(&mut self) -> Want<'_> {
        if self.stage == Stage::Down {
            return Want::Nothing;
        }
        let crc = self.digests().data.then_some(self.receive.crc);
        match self.receive.part {
            Part::Header { have } => control(self.receive.header.get_mut(have..)),
            Part::HeaderDigest { have } | Part::DataDigest { have } => {
                control(self.receive.digest.get_mut(have..))
            }
            Part::Padding { left } => control(self.receive.padding.get_mut(..left)),
            Part::Data {
                sink: Sink::Read { index, offset },
                at,
                left,
            } => match self.reads.slot(index) {
                Some(slot) => Want::Data {
                    id: slot.id,
                    offset: offset.saturating_add(at),
                    len: left,
                    crc,
                },
                None => Want::Nothing,
            },
            Part::Data { sink, at, left } => control(self.area(sink, at, left)),
        }
    }

    /// Where the rest of a data segment goes that is not a caller's.
    fn area(&mut self, sink: Sink, at: u32, left: u32) -> Option<&mut [u8]> {
        let at = usize::try_from(at).ok()?;
        let left = usize::try_from(left).ok()?;
        let (input, rest) = self.scratch.split_at_mut_checked(INPUT_BYTES)?;
        let (own, list) = rest.split_at_mut_checked(SCRATCH_BYTES.saturating_sub(INPUT_BYTES))?;
        let aux = own.get_mut(..AUX_BYTES)?;
        let (area, start) = match sink {
            Sink::Input(from) => (input, from.checked_add(at)?),
            Sink::List(from) => (list, from.checked_add(at)?),
            Sink::Aux => (aux, at),
            Sink::Discard | Sink::Read { .. } => (aux, 0),
        };
        let tail = area.get_mut(start..)?;
        let len = left.min(tail.len());
        tail.get_mut(..len)
    }

    /// `bytes` bytes of what was wanted were received.
    pub fn got(&mut self, bytes: usize, now_ms: u64) {
        self.set_now(now_ms);
        if self.stage == Stage::Down || bytes == 0 {
            return;
        }
        self.clock.received(self.now);
        match self.receive.part {
            Part::Header { have } => self.got_header(have.saturating_add(bytes)),
            Part::HeaderDigest { have } => self.got_header_digest(have.saturating_add(bytes)),
            Part::Data { sink, at, left } => self.got_data(sink, at, left, bytes),
            Part::Padding { left } => self.got_padding(left, bytes),
            Part::DataDigest { have } => self.got_data_digest(have.saturating_add(bytes)),
        }
    }

    fn got_header(&mut self, have: usize) {
        if have < BHS_BYTES {
            self.receive.part = Part::Header { have };
            return;
        }
        // 11.2: nothing that a target sends us has additional headers, so there is nothing more that a digest covers.
        if self.receive.any().ahs_words != 0 {
            return self.end(Reason::Protocol(Violation::AdditionalHeaders));
        }
        if self.digests().header {
            self.receive.part = Part::HeaderDigest { have: 0 };
        } else {
            self.begin_segment();
        }
    }

    fn got_header_digest(&mut self, have: usize) {
        if have < DIGEST_BYTES {
            self.receive.part = Part::HeaderDigest { have };
        } else if self.header_is_right(self.receive.digest) {
            self.begin_segment();
        } else {
            self.end(Reason::Protocol(Violation::HeaderDigest));
        }
    }

    /// The header is there, and right: judges it, and goes on to its data.
    fn begin_segment(&mut self) {
        let header = self.receive.any();
        let len = header.data_len.bytes();
        self.receive.crc = 0;
        match self.accept(&header) {
            Err(()) => {}
            // 11.2.3: without data there is no data digest either.
            Ok(_) if len == 0 => self.got_all(),
            Ok(sink) => {
                self.receive.part = Part::Data {
                    sink,
                    at: 0,
                    left: len,
                }
            }
        }
    }

    /// Checks a header before any of its data is received. `Err` if the connection was ended.
    fn accept(&mut self, header: &AnyHeader) -> Result<Sink, ()> {
        match self.stage {
            Stage::Down => Err(()),
            Stage::Login => self.accept_login(header),
            Stage::Discover if header.opcode & opcode::MASK == opcode::TEXT_RESPONSE => {
                self.accept_text(header)
            }
            Stage::Identify | Stage::Ready | Stage::Discover | Stage::Logout => {
                self.accept_full(header)
            }
        }
    }

    fn got_data(&mut self, sink: Sink, at: u32, left: u32, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(left);
        match sink {
            Sink::Read { index, .. } => self.progress(index, bytes),
            _ => self.digest_area(sink, at, bytes),
        }
        if bytes < left {
            self.receive.part = Part::Data {
                sink,
                at: at.saturating_add(bytes),
                left: left.saturating_sub(bytes),
            };
            return;
        }
        // 11.2.4: segments are padded to four bytes. What the padding holds does not matter, but its digest does.
        match usize::try_from(self.receive.any().data_len.padding()).unwrap_or(0) {
            0 => self.end_segment(),
            left => self.receive.part = Part::Padding { left },
        }
    }

    /// Goes on with the checksum over data that came into an area of ours.
    fn digest_area(&mut self, sink: Sink, at: u32, bytes: u32) {
        if self.digests().data {
            let (crc, crc32c) = (self.receive.crc, self.config.crc32c);
            let area = self.area(sink, at, bytes).unwrap_or(&mut []);
            self.receive.crc = crc32c(crc, area);
        }
    }

    fn got_padding(&mut self, left: usize, bytes: usize) {
        // 13.1: padding is covered by the digest.
        if self.digests().data {
            let padding = self.receive.padding.get(..bytes.min(left)).unwrap_or(&[]);
            self.receive.crc = (self.config.crc32c)(self.receive.crc, padding);
        }
        match left.saturating_sub(bytes) {
            0 => self.end_segment(),
            left => self.receive.part = Part::Padding { left },
        }
    }

    fn end_segment(&mut self) {
        if self.digests().data {
            self.receive.part = Part::DataDigest { have: 0 };
        } else {
            self.got_all();
        }
    }

    fn got_data_digest(&mut self, have: usize) {
        if have < DIGEST_BYTES {
            self.receive.part = Part::DataDigest { have };
        } else if encode(self.receive.crc) == self.receive.digest {
            self.got_all();
        } else {
            self.data_is_wrong();
        }
    }

    /// A whole PDU is there.
    fn got_all(&mut self) {
        self.receive.part = Part::Header { have: 0 };
        match self.stage {
            Stage::Down => {}
            Stage::Login => self.take_login(),
            Stage::Discover => self.take_discover(),
            Stage::Identify | Stage::Ready | Stage::Logout => self.take_full(),
        }
    }

    /// The data segment of the PDU at hand, where it went to the small area.
    pub(super) fn aux(&self) -> &[u8] {
        let len = usize::try_from(self.receive.any().data_len.bytes()).unwrap_or(0);
        let end = INPUT_BYTES.saturating_add(len.min(AUX_BYTES));
        self.scratch.get(INPUT_BYTES..end).unwrap_or(&[])
    }
}

fn control(area: Option<&mut [u8]>) -> Want<'_> {
    match area {
        Some(area) if !area.is_empty() => Want::Control(area),
        _ => Want::Nothing,
    }
}
