// SPDX-License-Identifier: GPL-2.0-only
//! Everything that is found out before the first write. `plan` prints it,
//! `migrate` goes on from it: neither knows or refuses more than the other.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use imgstream_proto::disk::settings::Network;

use super::{compute, refuse_drivers, Inspection, Plan, Refusals, Which};
use crate::disk;
use crate::error::{Error, Result};
use crate::network::capture::{Route, StaticAddress};
use crate::network::nic;
use crate::publish::Published;
use crate::repository::{Address, Remote};
use crate::root;
use crate::switch::running::{Kernel, Running};

/// What was found out; what is not there was refused or not asked for.
#[derive(Default)]
pub struct Survey {
    /// The connection to the portal.
    remote: Option<Remote>,
    /// The image.
    pub image: Option<Published>,
    /// The source's disk.
    pub disk: Option<PathBuf>,
    /// What is on it.
    pub inspection: Inspection,
    /// How the image and it fit together.
    pub plan: Option<Plan>,
    /// What the stage starts.
    kernel: Option<Kernel>,
    /// How the target reaches the portal.
    pub network: Option<Network>,
    /// What stands in the way.
    pub refusals: Refusals,
}

/// A migration that can begin.
pub struct Ready {
    /// The connection to the portal.
    pub remote: Remote,
    /// The plan.
    pub plan: Plan,
    /// What the stage starts.
    pub kernel: Kernel,
    /// How the target reaches the portal.
    pub network: Network,
}

impl Survey {
    /// Looks at the image, at `disk` (or the running system's), and, if that is
    /// what would be moved, at the running system. Whoever may not read the disk
    /// does not wait for the network first.
    pub fn of(address: &Address, disk: Option<&Path>, fixed: Option<&StaticAddress>) -> Survey {
        let mut survey = Survey::default();
        if survey.refusals.take(may_read(disk)).is_none() {
            return survey;
        }
        let portal = survey.look_at_image(address);
        if survey.look_at_disk(disk) {
            survey.look_at_system();
            if let Some(portal) = portal {
                survey.network = survey.look_at_network(portal, fixed);
            }
        }
        survey
    }

    /// The portal's address, even if nothing could be read there.
    fn look_at_image(&mut self, address: &Address) -> Option<IpAddr> {
        if address.image.is_some() {
            let image = address
                .open()
                .and_then(|mut file| Published::read(file.as_mut()));
            self.image = self.refusals.take(image);
            return None;
        }
        let Some(mut remote) = self.refusals.take(address.connect()) else {
            return address.portal_ip();
        };
        self.image = self.refusals.take(Published::read(&mut remote));
        if let Some(image) = &self.image {
            remote.expect(image);
        }
        let portal = remote.portal.ip();
        self.remote = Some(remote);
        Some(portal)
    }

    /// Whether the disk is the running system's.
    fn look_at_disk(&mut self, disk: Option<&Path>) -> bool {
        let Some(which) = self.refusals.take(Which::find(disk)) else {
            return disk.is_none();
        };
        self.inspection = Inspection::of(&which, &mut self.refusals);
        let (source, image) = (&self.inspection.source, &self.image);
        if let (Some(source), Some(image)) = (source, image) {
            self.plan = self.refusals.take(compute(source, image));
        }
        self.disk = Some(which.disk);
        which.mounted.is_some()
    }

    /// What the stage needs of the system that runs.
    fn look_at_system(&mut self) {
        let running = Running::here();
        let image = self.image.as_ref();
        let boot_bytes = image.map(|image| image.manifest.boot_region.bytes());
        self.kernel = running.look(boot_bytes, &mut self.refusals);
    }

    fn look_at_network(
        &mut self,
        portal: IpAddr,
        fixed: Option<&StaticAddress>,
    ) -> Option<Network> {
        let route = self.refusals.take(Route::to(portal))?;
        let drivers = self.refusals.take(nic::drivers(&route.dev));
        if let (Some(drivers), Some(image)) = (drivers, &self.image) {
            for refusal in refuse_drivers(image, &drivers) {
                self.refusals.take(Err::<(), _>(refusal));
            }
        }
        self.refusals.take(route.settings(portal, fixed))
    }

    /// Whether anything is known.
    pub fn is_empty(&self) -> bool {
        self.image.is_none() && self.inspection.disk_bytes.is_none() && self.network.is_none()
    }

    /// A migration that can begin, or everything that stands in its way.
    pub fn ready(self) -> Result<Ready> {
        self.refusals.end()?;
        match (self.remote, self.plan, self.kernel, self.network) {
            (Some(remote), Some(plan), Some(kernel), Some(network)) => Ok(Ready {
                remote,
                plan,
                kernel,
                network,
            }),
            // The target has to find the image by itself: a file will not do.
            _ => Err(Error::Other("name --portal and --target".into())),
        }
    }
}

/// The running system's disk is root's.
fn may_read(disk: Option<&Path>) -> Result<()> {
    match disk {
        None => Ok(root::required()?),
        Some(disk) => disk::open(disk).map(drop),
    }
}
