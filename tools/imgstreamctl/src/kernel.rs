// SPDX-License-Identifier: GPL-2.0-only
//! What the header of an x86 kernel image says (Documentation/arch/x86/boot.rst
//! of Linux).

/// Facts of a bzImage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The release, as `uname -r` says it.
    pub release: String,
    /// The machine, as `uname -m` says it.
    pub machine: &'static str,
}

/// Enough of a kernel file for its header and release.
pub const HEAD_BYTES: usize = 64 << 10;

impl Kernel {
    /// Reads the header; `None` when `file` is no bzImage.
    pub fn read(file: &[u8]) -> Option<Kernel> {
        if file.get(0x202..0x206)? != b"HdrS" {
            return None;
        }
        let u16_at = |at: usize| Some(u16::from_le_bytes(file.get(at..at + 2)?.try_into().ok()?));
        let release_at = usize::from(u16_at(0x20e)?) + 0x200;
        let text = file.get(release_at..)?.split(|byte| *byte == 0).next()?;
        let release = std::str::from_utf8(text).ok()?.split_whitespace().next()?;
        // Bit 0 of xloadflags: the kernel has a 64-bit entry point.
        let machine = if u16_at(0x236)? & 1 == 1 {
            "x86_64"
        } else {
            "i686"
        };
        Some(Kernel {
            release: release.to_string(),
            machine,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least file that is a bzImage with this release.
    fn bzimage(release: &str) -> Vec<u8> {
        let mut file = vec![0; 0x1000];
        file[0x202..0x206].copy_from_slice(b"HdrS");
        file[0x20e..0x210].copy_from_slice(&0x400_u16.to_le_bytes());
        file[0x236] = 1;
        file[0x600..0x600 + release.len()].copy_from_slice(release.as_bytes());
        file
    }

    #[test]
    fn release_and_machine_are_read() {
        let kernel = Kernel::read(&bzimage("7.2.12+deb13-amd64 (debian) #1")).unwrap();
        assert_eq!(kernel.release, "7.2.12+deb13-amd64");
        assert_eq!(kernel.machine, "x86_64");
    }

    #[test]
    fn other_files_are_no_kernels() {
        assert_eq!(Kernel::read(b"short"), None);
        assert_eq!(Kernel::read(&[0; 0x1000]), None);
        assert_eq!(Kernel::read(&bzimage("")), None);
    }
}
