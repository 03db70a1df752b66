// SPDX-License-Identifier: GPL-2.0-only

//! Asks a target what it is, so that the module can recognise it: the session up to its first `Ready`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, Context, Result};
use imgstream_engine::session::{
    isid, Config, Event, Facts, Name, Session, Timing, Want, SCRATCH_BYTES,
};
use imgstream_proto::iscsi::digest::Policy;

/// Our own name.
pub(crate) const INITIATOR: &str = "iqn.2026-11.net.imgstream:test";
/// Our session identifier: that of the first session of whoever uses the disk that is laid out, so that a second layout ends
/// that session, as another computer with a copy of the disk would.
pub(crate) const ISID: [u8; 6] = isid::installation([1, 2, 3, 0]);

/// Logs in to the first of the portals and returns what was found.
pub(crate) fn probe(portals: &[SocketAddr], target: &str) -> Result<Facts> {
    let config = Config {
        initiator_name: Name::new(INITIATOR).ok_or_else(|| anyhow!("initiator name"))?,
        target_name: Name::new(target).ok_or_else(|| anyhow!("target name"))?,
        lun: 1,
        isid: ISID,
        seed: 1,
        crc32c: crc32c::crc32c_append,
        digests: Policy::Prefer,
        identity: None,
        timing: Timing::DEFAULT,
    };
    let mut session = Session::new(config, vec![0; SCRATCH_BYTES]).map_err(|e| anyhow!("{e:?}"))?;
    let portal = portals.first().context("no portal")?;
    let mut socket =
        TcpStream::connect(portal).with_context(|| format!("connecting to {portal}"))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let start = Instant::now();
    let now = || start.elapsed().as_millis() as u64;
    session.connected(now());
    loop {
        loop {
            let out = session.out();
            if out.is_empty() {
                break;
            }
            let sent = socket.write(out)?;
            session.sent(sent);
        }
        while let Some(event) = session.event() {
            match event {
                Event::Ready(facts) => return Ok(facts),
                Event::Disconnect(reason) => bail!("{reason}"),
                Event::ReadDone { .. } | Event::Discovered => {}
            }
        }
        let got = match session.want() {
            Want::Control(buffer) => socket.read(buffer)?,
            _ => bail!("the session wants nothing"),
        };
        if got == 0 {
            bail!("the target closed the connection");
        }
        session.got(got, now());
    }
}
