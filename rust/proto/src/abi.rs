// SPDX-License-Identifier: GPL-2.0-only

//! What the module and `imgstreamctl` say to each other: the ioctls of `/dev/imgstream-control` and the files under
//! `/sys/block/imgstream0/imgstream/`.
//!
//! Numbers are never reused. Every structure of an ioctl has a `refusal` that the kernel fills in when it returns an
//! error, because an errno alone cannot say which of several rules was broken; reserved fields must be zero.

pub mod ioctl;
pub mod refusal;
pub mod status;

/// The character device that takes the ioctls.
pub const CONTROL_PATH: &str = "/dev/imgstream-control";

/// Name of the character device, as the module registers it.
pub const CONTROL_NAME: &str = "imgstream-control";

/// Name of the one disk of this version.
pub const DISK_NAME: &str = "imgstream0";

/// Version of this interface; raised when something is changed that an older `imgstreamctl` would misread.
pub const VERSION: u32 = 1;
