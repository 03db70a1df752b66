// SPDX-License-Identifier: GPL-2.0-only

//! Bindings to what `kernel::bindings` lacks, and all of `kernel::bindings`.
//!
//! Generated from `bindings_helper.h` by the rules of `bindgen_parameters`; every type that the kernel crate has is
//! the kernel crate's. Only `kapi` may use this module.

#![allow(
    clippy::all,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    rustdoc::all,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unused_imports
)]

use kernel::ffi;

include!(concat!(
    env!("IMGSTREAM_OBJTREE"),
    "/rust/bindings_generated.rs"
));
