// SPDX-License-Identifier: GPL-2.0-only

//! Logins that are refused, and those that lead somewhere else (RFC 7143 section 11.13.5).

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::ops::DerefMut;

use imgstream_proto::iscsi::address::{Host, TargetAddress};
use imgstream_proto::iscsi::bhs::LoginResponse;
use imgstream_proto::iscsi::text::Pairs;

use super::reason::{ChapFault, Reason};
use super::{Session, INPUT_BYTES};

/// Status class of a redirect; all that is known of one without a known detail is that it holds for now.
const REDIRECTION: u8 = 1;
/// Detail of a redirect that holds for good.
const PERMANENT: u8 = 2;

/// Where the target is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// There.
    pub address: SocketAddr,
    /// For good, or only for now.
    pub permanent: bool,
}

/// Why a redirect cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectError {
    /// No address was sent with it.
    Missing,
    /// What was sent is no address (13.8).
    Malformed,
    /// It names a host; there is no resolver here.
    HostName,
    /// An address that leads nowhere from here.
    Unusable,
    /// It leads to where we have just been.
    Loop,
    /// One after the other.
    TooMany,
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = if self.permanent {
            "for good"
        } else {
            "for now"
        };
        write!(f, "the target has moved to {} {time}", self.address)
    }
}

impl fmt::Display for RedirectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "does not say where",
            Self::Malformed => "what it says is no address",
            Self::HostName => "names a host instead of an address, which is not looked up",
            Self::Unusable => "to an address that cannot be used from here",
            Self::Loop => "in a circle",
            Self::TooMany => "too many times in a row",
        })
    }
}

impl<B: DerefMut<Target = [u8]>> Session<B> {
    /// Why a login is over whose answer has another status than success.
    pub(super) fn refusal(&mut self, header: &LoginResponse) -> Reason {
        let (class, detail) = (header.status_class, header.status_detail);
        if self
            .chap
            .as_mut()
            .is_some_and(|chap| chap.refused(class, detail))
        {
            return Reason::Chap(ChapFault::Misread);
        }
        if class != REDIRECTION {
            return Reason::Refused { class, detail };
        }
        let bytes = usize::try_from(header.data_len.bytes()).unwrap_or(0);
        let end = self.login.text_len().saturating_add(bytes);
        let text = self.scratch.get(..end.min(INPUT_BYTES)).unwrap_or(&[]);
        match find(text) {
            Ok(address) => Reason::Redirected(Redirect {
                address,
                permanent: detail == PERMANENT,
            }),
            Err(error) => Reason::BadRedirect(error),
        }
    }
}

/// The first of the addresses in a redirect's text that can be used; else what is wrong with the first.
fn find(text: &[u8]) -> Result<SocketAddr, RedirectError> {
    let mut first = Err(RedirectError::Missing);
    for pair in Pairs::new(text) {
        let (key, value) = pair.map_err(|_| RedirectError::Malformed)?;
        if key != "TargetAddress" {
            continue;
        }
        match read(value) {
            Ok(address) => return Ok(address),
            error if first == Err(RedirectError::Missing) => first = error,
            _ => {}
        }
    }
    first
}

/// 13.8. A portal group tag does not belong here, and says nothing that is needed.
fn read(value: &str) -> Result<SocketAddr, RedirectError> {
    let address = TargetAddress::parse(value).ok_or(RedirectError::Malformed)?;
    match address.host {
        Host::Name(_) => Err(RedirectError::HostName),
        Host::Ip(ip) if !leads_somewhere(ip) => Err(RedirectError::Unusable),
        Host::Ip(ip) => Ok(SocketAddr::new(ip, address.port)),
    }
}

/// Not `0.0.0.0`, which is this computer, no group of computers, and no address that needs an interface's name.
fn leads_somewhere(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let narrow = match ip {
        IpAddr::V4(v4) => v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(ip.is_unspecified() || ip.is_multicast() || narrow)
}
