// SPDX-License-Identifier: GPL-2.0-only
//! Reading a published image: trailer, manifest, boot blocks. Where the bytes
//! come from (a file, a portal) is the caller's matter.

use imgstream_proto::disk::trailer::{Trailer, TRAILER_LEN};

use super::manifest::{Manifest, FORMAT, MAX_BYTES};
use crate::disk::{Disk, BLOCK_BYTES};
use crate::error::Result;
use crate::refusal::Refusal;

/// Something that a published image can be read from.
pub trait ReadAt {
    /// How messages name it.
    fn place(&self) -> String;
    /// Size of the LUN or file.
    fn lun_bytes(&self) -> u64;
    /// Fills `buffer` from `offset_bytes`.
    fn read_at(&mut self, offset_bytes: u64, buffer: &mut [u8]) -> Result<()>;
}

impl ReadAt for Disk {
    fn place(&self) -> String {
        self.path().display().to_string()
    }
    fn lun_bytes(&self) -> u64 {
        self.size_bytes()
    }
    fn read_at(&mut self, offset_bytes: u64, buffer: &mut [u8]) -> Result<()> {
        self.read(offset_bytes, buffer)
    }
}

/// Trailer and manifest of a published image, checked against each other.
#[derive(Clone, Debug)]
pub struct Published {
    /// The trailer in the LUN's last 4 KiB.
    pub trailer: Trailer,
    /// CRC-32C over the LUN's last 4 KiB: the superblock keeps it, the module
    /// compares it on every connect.
    pub trailer_crc32c: u32,
    /// The manifest.
    pub manifest: Manifest,
}

impl Published {
    /// Reads and checks trailer and manifest.
    pub fn read(from: &mut dyn ReadAt) -> Result<Published> {
        let place = from.place();
        let (trailer, trailer_crc32c) = read_trailer(from)?;
        let manifest = read_manifest(from, &trailer)?;
        let agrees = manifest.image_bytes == trailer.image_bytes
            && manifest.image_uuid == uuid::Uuid::from_bytes(trailer.image_uuid).to_string();
        if let Some(what) = manifest.fault() {
            return Err(not_published(&place, what.into()).into());
        }
        if !agrees {
            return Err(not_published(&place, "trailer and manifest disagree".into()).into());
        }
        Ok(Published {
            trailer,
            trailer_crc32c,
            manifest,
        })
    }
}

/// What the module compares on every connect.
pub fn trailer_crc32c(from: &mut dyn ReadAt) -> Result<u32> {
    Ok(read_trailer(from)?.1)
}

fn read_trailer(from: &mut dyn ReadAt) -> Result<(Trailer, u32)> {
    let (place, lun_bytes) = (from.place(), from.lun_bytes());
    let Some(at) = Trailer::location_bytes(lun_bytes).filter(|at| at % BLOCK_BYTES == 0) else {
        return Err(not_published(&place, format!("it has {lun_bytes} bytes")).into());
    };
    let mut bytes = [0; TRAILER_LEN];
    from.read_at(at, &mut bytes)?;
    match Trailer::decode(lun_bytes, &bytes, crc32c::crc32c) {
        Ok(trailer) => Ok((trailer, crc32c::crc32c(&bytes))),
        Err(error) => Err(trailer_refusal(&place, error).into()),
    }
}

fn trailer_refusal(place: &str, error: imgstream_proto::disk::Error) -> Refusal {
    use imgstream_proto::disk::Error;
    match error {
        Error::Version { found, .. } => Refusal::NewerImage {
            place: place.to_string(),
            found: found.into(),
            known: FORMAT,
        },
        Error::Magic { .. } => not_published(
            place,
            "no valid trailer in its last 4 KiB; `imgstreamctl prepare` makes published images"
                .into(),
        ),
        other => not_published(
            place,
            format!("no valid trailer in its last 4 KiB ({other})"),
        ),
    }
}

fn read_manifest(from: &mut dyn ReadAt, trailer: &Trailer) -> Result<Manifest> {
    let place = from.place();
    let len = trailer.manifest.len_bytes;
    let bad = |what: String| not_published(&place, what);
    let len_in_memory = usize::try_from(len)
        .ok()
        .filter(|_| len <= MAX_BYTES)
        .ok_or_else(|| bad(format!("its manifest has {len} bytes")))?;
    let mut bytes = vec![0; len_in_memory];
    from.read_at(trailer.manifest.start_bytes, &mut bytes)?;
    if crc32c::crc32c(&bytes) != trailer.manifest_crc32c {
        return Err(bad("its manifest is damaged".into()).into());
    }
    check_format(&place, &bytes)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| bad(format!("its manifest is not understood ({e})")).into())
}

/// The format comes first: the rest of a newer manifest may look different.
fn check_format(place: &str, bytes: &[u8]) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct Head {
        format: u32,
    }
    match serde_json::from_slice::<Head>(bytes) {
        Ok(head) if head.format > FORMAT => Err(Refusal::NewerImage {
            place: place.to_string(),
            found: head.format,
            known: FORMAT,
        }
        .into()),
        Ok(_) => Ok(()),
        Err(e) => Err(not_published(place, format!("its manifest is no JSON ({e})")).into()),
    }
}

fn not_published(place: &str, what: String) -> Refusal {
    Refusal::NotPublished {
        place: place.to_string(),
        what,
    }
}
