// SPDX-License-Identifier: GPL-2.0-only

//! Framing: header, data segment, padding; and where each byte goes.

use core::ops::DerefMut;

use imgstream_proto::iscsi::bhs::{AnyHeader, BHS_BYTES};

use super::reason::{Reason, Violation};
use super::{Session, Stage, Want, AUX_BYTES, INPUT_BYTES};

/// Where a data segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sink {
    /// The caller's buffer of a read; the part of it that its current command fills starts at `offset`.
    Read { index: usize, offset: u32 },
    /// Our input area, from here on.
    Input(usize),
    /// Our small area for everything else.
    Aux,
    /// Nowhere.
    Discard,
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Header { have: usize },
    Data { sink: Sink, at: u32, left: u32 },
    Padding { left: usize },
}

/// The PDU that is being received.
#[derive(Debug)]
pub(super) struct Receive {
    header: [u8; BHS_BYTES],
    part: Part,
    padding: [u8; 3],
}

impl Receive {
    pub(super) const fn new() -> Self {
        Self {
            header: [0; BHS_BYTES],
            part: Part::Header { have: 0 },
            padding: [0; 3],
        }
    }

    /// The header that was received last.
    pub(super) const fn header(&self) -> &[u8; BHS_BYTES] {
        &self.header
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
        match self.receive.part {
            Part::Header { have } => control(self.receive.header.get_mut(have..)),
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
        let aux = rest.get_mut(..AUX_BYTES)?;
        let (area, start) = match sink {
            Sink::Input(from) => (input, from.checked_add(at)?),
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
            Part::Data { sink, at, left } => self.got_data(sink, at, left, bytes),
            Part::Padding { left } => match left.saturating_sub(bytes) {
                0 => self.got_all(),
                left => self.receive.part = Part::Padding { left },
            },
        }
    }

    fn got_header(&mut self, have: usize) {
        if have < BHS_BYTES {
            self.receive.part = Part::Header { have };
            return;
        }
        let header = self.receive.any();
        let len = header.data_len.bytes();
        match self.accept(&header) {
            Err(()) => {}
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
        // 7.7: no additional header is legal in what a target sends us.
        if header.ahs_words != 0 {
            self.end(Reason::Protocol(Violation::AdditionalHeaders));
            return Err(());
        }
        match self.stage {
            Stage::Down => Err(()),
            Stage::Login => self.accept_login(header),
            Stage::Identify | Stage::Ready | Stage::Logout => self.accept_full(header),
        }
    }

    fn got_data(&mut self, sink: Sink, at: u32, left: u32, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(left);
        if let Sink::Read { index, .. } = sink {
            self.progress(index);
        }
        if bytes < left {
            self.receive.part = Part::Data {
                sink,
                at: at.saturating_add(bytes),
                left: left.saturating_sub(bytes),
            };
            return;
        }
        // 11.2.4: segments are padded to four bytes. What the padding holds does not matter.
        match usize::try_from(self.receive.any().data_len.padding()).unwrap_or(0) {
            0 => self.got_all(),
            left => self.receive.part = Part::Padding { left },
        }
    }

    /// A whole PDU is there.
    fn got_all(&mut self) {
        self.receive.part = Part::Header { have: 0 };
        match self.stage {
            Stage::Down => {}
            Stage::Login => self.take_login(),
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
