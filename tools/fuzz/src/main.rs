// SPDX-License-Identifier: GPL-2.0-only

//! Runs one of the targets under libFuzzer: `imgstream-fuzz TARGET [LIBFUZZER-ARGUMENT...]`. `imgstream-fuzz seeds DIR`
//! writes the inputs to begin with to a directory for each target, and prints the targets.

use std::ffi::{c_char, c_int, CString};
use std::fs;
use std::io;
use std::path::Path;
use std::process::exit;
use std::sync::OnceLock;

use imgstream_fuzz::{find, Target, TARGETS};

/// What libFuzzer calls with an input; 0 if the input may be kept.
type Body = unsafe extern "C" fn(*const u8, usize) -> c_int;

#[link(name = "clang_rt.fuzzer_no_main-x86_64", kind = "static")]
#[link(name = "stdc++")]
extern "C" {
    /// libFuzzer's main function. It may replace the arguments.
    fn LLVMFuzzerRunDriver(argc: *mut c_int, argv: *mut *mut *mut c_char, body: Body) -> c_int;
}

/// Names the target for the processes that libFuzzer starts from this program, with its own arguments only.
const AGAIN: &str = "IMGSTREAM_FUZZ_TARGET";

/// The target that runs.
static RUNNING: OnceLock<&Target> = OnceLock::new();

/// One input.
///
/// # Safety
///
/// `data` points to `len` bytes, or `len` is 0.
unsafe extern "C" fn run(data: *const u8, len: usize) -> c_int {
    let bytes = if len == 0 {
        &[]
    } else {
        // SAFETY: the caller promises it, and the bytes stay until this returns.
        unsafe { std::slice::from_raw_parts(data, len) }
    };
    if let Some(target) = RUNNING.get() {
        (target.body)(bytes);
    }
    0
}

fn main() {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    if let Ok(name) = std::env::var(AGAIN) {
        return fuzz(&program, &name, arguments);
    }
    match (arguments.next().as_deref(), arguments.len()) {
        (Some("seeds"), 1) => {
            let dir = arguments.next().unwrap_or_default();
            write_seeds(Path::new(&dir)).expect("the seeds could not be written");
        }
        (Some(name), _) => fuzz(&program, name, arguments),
        _ => exit(2),
    }
}

fn write_seeds(dir: &Path) -> io::Result<()> {
    for target in &TARGETS {
        let dir = dir.join(target.name);
        fs::create_dir_all(&dir)?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            fs::write(dir.join(format!("seed-{number}")), seed)?;
        }
        println!("{}", target.name);
    }
    Ok(())
}

fn fuzz(program: &str, name: &str, arguments: std::env::Args) {
    let Some(target) = find(name) else {
        eprintln!("{program}: there is no target {name}");
        exit(2);
    };
    RUNNING.get_or_init(|| target);
    std::env::set_var(AGAIN, name);
    let own = [program.to_owned(), format!("-max_len={}", target.max_len)];
    let all = own.into_iter().chain(arguments);
    // An argument that came from a command line holds no zero byte.
    let all: Vec<CString> = all.filter_map(|a| CString::new(a).ok()).collect();
    let mut pointers: Vec<*mut c_char> = all.iter().map(|a| a.as_ptr().cast_mut()).collect();
    let mut argc = pointers.len() as c_int;
    pointers.push(std::ptr::null_mut());
    let mut argv = pointers.as_mut_ptr();
    // SAFETY: `argc` and `argv` are as `main` of C gets them, and live until the end; libFuzzer copies the arguments
    // and writes to none. `run` asks for what libFuzzer gives.
    exit(unsafe { LLVMFuzzerRunDriver(&mut argc, &mut argv, run) });
}
