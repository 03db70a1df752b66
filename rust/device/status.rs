// SPDX-License-Identifier: GPL-2.0-only

//! What `/sys/block/imgstream0/imgstream/` shows.

use crate::{
    device::{
        CommitMode,
        Device,
        Rates, //
    },
    kapi::{
        net::Address,
        time::now_ms, //
    },
    source::Sessions,
};
use core::{
    fmt::{
        Result,
        Write, //
    },
    sync::atomic::Ordering,
};
use imgstream_engine::{
    block::BlockState,
    fill::missing_blocks,
    health::Health, //
};
use imgstream_proto::{
    abi::status::{
        Attribute,
        Connection,
        COMMIT_STOPPED,
        NONE,
        UNKNOWN, //
    },
    disk::BLOCK_BYTES,
};

impl Device {
    /// Writes the value of one file, without the newline. Process context; may sleep.
    pub(crate) fn show(&self, attribute: Attribute, out: &mut impl Write) -> Result {
        let core = &self.core;
        let locator = core.tables.locator();
        let blocks = |state| core.tables.map().counts().get(state);
        let counters = &core.counters;
        let yes = |yes: bool| if yes { "yes" } else { "no" };
        match attribute {
            Attribute::State => out.write_str(self.store.state().name()),
            Attribute::Mode => out.write_str("repository"),
            Attribute::Uuid => uuid(&self.uuid, out),
            Attribute::Disk => out.write_str(core::str::from_utf8(&self.name).unwrap_or("?")),
            Attribute::ImageBytes => write!(out, "{}", core.tables.geometry().image_bytes),
            Attribute::Copied => write!(out, "{}", locator.counter().saturating_mul(BLOCK_BYTES)),
            Attribute::BlocksTotal => write!(out, "{}", core.tables.blocks()),
            Attribute::BlocksAbsent => write!(out, "{}", missing_blocks(&locator)),
            Attribute::BlocksClean => write!(out, "{}", blocks(BlockState::Clean)),
            Attribute::BlocksDirty => write!(out, "{}", blocks(BlockState::Dirty)),
            Attribute::BlocksZero => write!(out, "{}", blocks(BlockState::Zero)),
            Attribute::BlocksHome => write!(out, "{}", locator.home_blocks()),
            Attribute::StoredBytes => {
                write!(out, "{}", counters.stored_bytes.load(Ordering::Relaxed))
            }
            Attribute::Independent => out.write_str(yes(core.independent.load(Ordering::Relaxed))),
            Attribute::Fill => self.show_fill(out),
            Attribute::FillStuck => match self.background.look(|plan| plan.fill_stuck) {
                Some(trouble) => write!(out, "{trouble}"),
                None => out.write_str(NONE),
            },
            Attribute::Commit => self.show_commit(out),
            Attribute::ErrorsRead => {
                write!(out, "{}", counters.errors_read.load(Ordering::Relaxed))
            }
            Attribute::ErrorsWrite => {
                write!(out, "{}", counters.errors_write.load(Ordering::Relaxed))
            }
            Attribute::ErrorsJournal => {
                let failed = core.tables.health.get() != Health::Sound;
                write!(out, "{}", u32::from(failed))
            }
            Attribute::Inflight => write!(out, "{}", core.units.len()),
            Attribute::SourceView => out.write_str(yes(self.disks.lock().view.is_some())),
            Attribute::Partitions => out.write_str(match self.scan.done() {
                true => "known",
                false => "waiting",
            }),
            Attribute::LastError => self.show_last_error(out),
            Attribute::FetchedBytes
            | Attribute::Portal
            | Attribute::RedirectedBy
            | Attribute::Connection
            | Attribute::ConnectionSince
            | Attribute::Digests
            | Attribute::Reconnects
            | Attribute::Sessions
            | Attribute::FetchesInflight => self.show_connection(attribute, out),
        }
    }

    fn show_commit(&self, out: &mut impl Write) -> Result {
        match self.background.look(|plan| plan.commit) {
            CommitMode::Idle => out.write_str("idle"),
            CommitMode::Running => out.write_str("running"),
            CommitMode::Paused => out.write_str("paused"),
            CommitMode::Stopped(trouble) => write!(out, "{COMMIT_STOPPED}: {trouble}"),
            CommitMode::Done => out.write_str("done"),
        }
    }

    fn show_fill(&self, out: &mut impl Write) -> Result {
        let (
            on,
            Rates {
                min_kib_s,
                max_kib_s,
            },
        ) = self.background.look(|plan| (plan.fill, plan.fill_rates));
        let on = if on { "on" } else { "off" };
        write!(out, "{on} {min_kib_s} {max_kib_s}")
    }

    fn show_last_error(&self, out: &mut impl Write) -> Result {
        if self.core.tables.health.get() != Health::Sound {
            return out.write_str("writing the control area failed");
        }
        if let CommitMode::Stopped(trouble) = self.background.look(|plan| plan.commit) {
            return write!(out, "{trouble}");
        }
        if self.core.counters.errors_write.load(Ordering::Relaxed) != 0 {
            return out.write_str("a write to the disk failed");
        }
        if self.core.counters.errors_read.load(Ordering::Relaxed) != 0 {
            return out.write_str("a read failed");
        }
        out.write_str(NONE)
    }

    fn show_connection(&self, attribute: Attribute, out: &mut impl Write) -> Result {
        let Some(source) = &self.core.source else {
            return match attribute {
                Attribute::Portal | Attribute::RedirectedBy => out.write_str(NONE),
                Attribute::Connection => out.write_str(Connection::Closed.word()),
                Attribute::Digests => out.write_str(UNKNOWN),
                Attribute::Sessions => out.write_str("0 of 0"),
                _ => out.write_str("0"),
            };
        };
        let now = source.snapshot();
        let counters = source.counters();
        match attribute {
            Attribute::FetchedBytes => {
                write!(out, "{}", counters.fetched_bytes.load(Ordering::Relaxed))
            }
            Attribute::FetchesInflight => {
                write!(out, "{}", counters.fetches_inflight.load(Ordering::Relaxed))
            }
            Attribute::Reconnects => write!(out, "{}", counters.reconnects.load(Ordering::Relaxed)),
            Attribute::ConnectionSince => {
                write!(out, "{}", now_ms().saturating_sub(now.since_ms) / 1000)
            }
            Attribute::Digests => match now.digests {
                Some(digests) => write!(out, "{digests}"),
                None => out.write_str(UNKNOWN),
            },
            Attribute::Sessions => show_sessions(&source.sessions(), out),
            Attribute::Portal => address(now.portal, out),
            Attribute::RedirectedBy => address(now.redirected_by, out),
            _ => {
                out.write_str(now.connection.word())?;
                match now.reason.as_str() {
                    "" => Ok(()),
                    reason => write!(out, ": {reason}"),
                }
            }
        }
    }
}

fn address(address: Option<Address>, out: &mut impl Write) -> Result {
    match address {
        Some(address) => write!(out, "{}", address.0),
        None => out.write_str(NONE),
    }
}

fn show_sessions(sessions: &Sessions, out: &mut impl Write) -> Result {
    write!(out, "{} of {}", sessions.ready, sessions.wanted)?;
    match sessions.reason.as_str() {
        "" => Ok(()),
        reason => write!(out, ": {reason}"),
    }
}

fn uuid(uuid: &[u8; 16], out: &mut impl Write) -> Result {
    for (index, byte) in uuid.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.write_str("-")?;
        }
        write!(out, "{byte:02x}")?;
    }
    Ok(())
}
