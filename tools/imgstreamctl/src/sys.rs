// SPDX-License-Identifier: GPL-2.0-only
//! The ioctls that imgstreamctl needs, as safe functions. The only file with
//! unsafe code.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::ioctl::{ioctl, opcode, NoArg, Setter, Updater};
use zerocopy::{FromBytes, IntoBytes};

/// `BLKRRPART`: read the partition table again.
const BLKRRPART: u32 = opcode::none(0x12, 95);
/// `BLKFLSBUF`: write out and drop the page cache of a disk.
const BLKFLSBUF: u32 = opcode::none(0x12, 97);
/// `BLKPG`: add or remove one partition.
const BLKPG: u32 = opcode::none(0x12, 105);
/// `BLKPG_DEL_PARTITION`.
const BLKPG_DEL_PARTITION: c_int = 2;

/// `struct blkpg_partition` of include/uapi/linux/blkpg.h.
#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    pno: c_int,
    devname: [u8; 64],
    volname: [u8; 64],
}

/// `struct blkpg_ioctl_arg` of include/uapi/linux/blkpg.h.
#[repr(C)]
struct BlkpgArg {
    op: c_int,
    flags: c_int,
    datalen: c_int,
    data: *mut c_void,
}

/// Calls an ioctl of `/dev/imgstream-control`: `NUMBER` carries the size of
/// `T`, which is checked when this is compiled.
pub fn control<const NUMBER: u32, T: FromBytes + IntoBytes>(
    file: &File,
    argument: &mut T,
) -> io::Result<()> {
    const { assert!(((NUMBER >> 16) & 0x3fff) as usize == size_of::<T>()) };
    // SAFETY: the number says that the kernel reads and writes exactly size_of::<T>() bytes (asserted above), and any
    // bytes are a valid T (FromBytes), so whatever the kernel writes there is one.
    unsafe { ioctl(file.as_fd(), Updater::<NUMBER, T>::new(argument)) }?;
    Ok(())
}

/// Writes out and drops the page cache of a block device.
pub fn drop_page_cache(disk: &File) -> io::Result<()> {
    // SAFETY: BLKFLSBUF takes no argument and touches no memory of this process.
    unsafe { ioctl(disk.as_fd(), NoArg::<BLKFLSBUF>::new()) }?;
    Ok(())
}

/// Reads the partition table of a disk again; fails while a partition is used.
pub fn reread_partitions(disk: &File) -> io::Result<()> {
    // SAFETY: BLKRRPART takes no argument and touches no memory of this process.
    unsafe { ioctl(disk.as_fd(), NoArg::<BLKRRPART>::new()) }?;
    Ok(())
}

/// Makes the kernel forget one partition of a disk; the disk itself is not
/// changed.
pub fn forget_partition(disk: &File, number: i32) -> io::Result<()> {
    let mut partition = BlkpgPartition {
        start: 0,
        length: 0,
        pno: number,
        devname: [0; 64],
        volname: [0; 64],
    };
    let argument = BlkpgArg {
        op: BLKPG_DEL_PARTITION,
        flags: 0,
        datalen: size_of::<BlkpgPartition>() as c_int,
        data: (&raw mut partition).cast(),
    };
    // SAFETY: BLKPG reads one blkpg_ioctl_arg, whose `data` points to a blkpg_partition of `datalen` bytes; both live
    // until the call has returned.
    unsafe { ioctl(disk.as_fd(), Setter::<BLKPG, BlkpgArg>::new(argument)) }?;
    Ok(())
}
