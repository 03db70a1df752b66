// SPDX-License-Identifier: GPL-2.0-only

//! The ioctls: each reads its structure, has it done, and puts the reason into the structure if it was refused.

use super::{
    errno,
    Manager, //
};
use crate::{
    device::Rates,
    kapi::misc::{
        may_administer,
        Argument,
        Control, //
    }, //
};
use imgstream_engine::parallel;
use imgstream_proto::{
    abi::{
        self,
        ioctl::{
            self,
            Attach,
            Commit,
            Fill,
            Plain,
            Sessions,
            SourceView,
            Version, //
        },
        refusal::Refusal, //
    },
    disk::header, //
};
use kernel::{
    prelude::*,
    str::CStr, //
};
use zerocopy::{
    FromBytes,
    IntoBytes, //
};

/// What an ioctl comes to.
type Outcome = core::result::Result<(), Refusal>;

impl Control for Manager {
    fn ioctl(&self, number: u32, argument: Argument) -> Result {
        if number == ioctl::GET_VERSION {
            return argument.write(version().as_bytes());
        }
        if !may_administer() {
            return Err(EPERM);
        }
        match number {
            ioctl::ATTACH => exchange(argument, |attach: &Attach| self.attach_named(attach)),
            ioctl::DETACH => plain(argument, || self.detach()),
            ioctl::FILL => exchange(argument, |fill: &Fill| self.fill(fill)),
            ioctl::COMMIT => exchange(argument, |commit: &Commit| self.commit(commit)),
            ioctl::PAUSE => plain(argument, || self.command(|device| device.pause())),
            ioctl::RESUME => plain(argument, || self.command(|device| device.resume())),
            ioctl::ROLLBACK => plain(argument, || self.command(|device| device.rollback())),
            ioctl::SOURCE_VIEW => exchange(argument, |view: &SourceView| self.source_view(view)),
            ioctl::RECONNECT => plain(argument, || self.command(|device| device.reconnect())),
            ioctl::SESSIONS => exchange(argument, |sessions: &Sessions| self.sessions(sessions)),
            _ => Err(ENOTTY),
        }
    }
}

impl Manager {
    fn attach_named(&self, attach: &Attach) -> Outcome {
        zero(attach.flags)?;
        let path = CStr::from_bytes_until_nul(&attach.path).map_err(|_| Refusal::Argument)?;
        if path.is_empty() {
            return Err(Refusal::Argument);
        }
        self.attach(path)
    }

    fn fill(&self, fill: &Fill) -> Outcome {
        let enable = switch(fill.enable)?;
        let rates = rates(fill.min_kib_per_s, fill.max_kib_per_s)?;
        self.command(|device| device.fill(enable, rates))
    }

    fn commit(&self, commit: &Commit) -> Outcome {
        zero(commit.flags & !ioctl::COMMIT_NOW)?;
        let now = commit.flags & ioctl::COMMIT_NOW != 0;
        let rates = rates(commit.min_kib_per_s, commit.max_kib_per_s)?;
        self.command(|device| device.commit(now, rates))
    }

    fn source_view(&self, view: &SourceView) -> Outcome {
        let open = switch(view.open)?;
        self.command(|device| device.source_view(open))
    }

    fn sessions(&self, sessions: &Sessions) -> Outcome {
        let count = parallel::sessions(sessions.count).ok_or(Refusal::Argument)?;
        self.command(|device| device.sessions(count))
    }
}

fn version() -> Version {
    Version {
        abi: abi::VERSION,
        format: u32::from(header::VERSION),
        features: 0,
    }
}

fn plain(argument: Argument, act: impl FnOnce() -> Outcome) -> Result {
    exchange(argument, |plain: &Plain| {
        zero(plain.reserved)?;
        act()
    })
}

/// Every structure begins with `refusal`; nothing else of it is written back.
fn exchange<T>(argument: Argument, act: impl FnOnce(&T) -> Outcome) -> Result
where
    T: FromBytes + IntoBytes,
{
    let mut value = T::new_zeroed();
    argument.read(value.as_mut_bytes())?;
    let outcome = act(&value);
    let refusal = outcome.err().map_or(0, |refusal| refusal as u32);
    argument.write(&refusal.to_ne_bytes())?;
    outcome.map_err(errno)
}

fn zero(reserved: u32) -> Outcome {
    if reserved == 0 {
        Ok(())
    } else {
        Err(Refusal::Argument)
    }
}

fn switch(value: u32) -> Result<bool, Refusal> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Refusal::Argument),
    }
}

fn rates(min_kib_per_s: u64, max_kib_per_s: u64) -> Result<Rates, Refusal> {
    if max_kib_per_s != 0 && min_kib_per_s > max_kib_per_s {
        return Err(Refusal::Argument);
    }
    Ok(Rates {
        min_kib_s: u32::try_from(min_kib_per_s).map_err(|_| Refusal::Argument)?,
        max_kib_s: u32::try_from(max_kib_per_s).map_err(|_| Refusal::Argument)?,
    })
}

#[kunit_tests(imgstream_ioctl)]
mod tests {
    use super::*;
    use crate::kapi::{
        errno::Errno,
        testing::every, //
    };

    #[test]
    fn what_is_reserved_is_zero_and_switches_are_two() {
        assert!(every([0, 1, 2, 1 << 31, u32::MAX], |&value| {
            let zero_is = (value == 0).then_some(()).ok_or(Refusal::Argument);
            let switch_is = (value < 2).then_some(value == 1).ok_or(Refusal::Argument);
            zero(value) == zero_is && switch(value) == switch_is
        }));
    }

    /// Least and greatest rate in KiB/s, and whether that makes sense. No greatest is 0.
    const RATES: [(u64, u64, bool); 9] = [
        (0, 0, true),
        (1, 0, true),
        (1, 1, true),
        (2, 1, false),
        (0, 1, true),
        (u32::MAX as u64, 0, true),
        (u32::MAX as u64, u32::MAX as u64, true),
        (0, 1 << 32, false),
        (u64::MAX, u64::MAX, false),
    ];

    #[test]
    fn rates_are_in_order_and_fit() {
        assert!(every(RATES, |&(min, max, is_one)| {
            match rates(min, max) {
                Ok(Rates {
                    min_kib_s,
                    max_kib_s,
                }) => is_one && (u64::from(min_kib_s), u64::from(max_kib_s)) == (min, max),
                Err(refusal) => !is_one && refusal == Refusal::Argument,
            }
        }));
    }

    #[test]
    fn every_refusal_has_an_errno_that_is_documented() {
        let documented = [
            EBUSY,
            ENODEV,
            ENXIO,
            ENOENT,
            ENOMEM,
            EIO,
            EPERM,
            Errno::NotSupported.into(),
            EINVAL,
        ];
        assert!(every(Refusal::ALL.iter().copied(), |&refusal| {
            documented.contains(&errno(refusal))
        }));
        assert_eq!(errno(Refusal::CrashKernel), EPERM);
        assert_eq!(errno(Refusal::NoSuperblock), ENOENT);
    }
}
