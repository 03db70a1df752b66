// SPDX-License-Identifier: GPL-2.0-only

//! Names of the files under `/sys/block/imgstream0/imgstream/` and the fixed words in them. Each file is one value and
//! a newline; `Documentation/ABI/testing/sysfs-block-imgstream` describes them.

macro_rules! attributes {
    ($($(#[$doc:meta])* $name:ident = $file:literal;)*) => {
        /// One file.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Attribute {
            $($(#[$doc])* $name,)*
        }

        impl Attribute {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The file's name.
            pub const fn file(self) -> &'static str {
                match self {
                    $(Self::$name => $file,)*
                }
            }

            /// The file's name for C.
            pub const fn file_c(self) -> &'static core::ffi::CStr {
                match self {
                    $(Self::$name => match core::ffi::CStr::from_bytes_with_nul(
                        concat!($file, "\0").as_bytes(),
                    ) {
                        Ok(name) => name,
                        Err(_) => c"",
                    },)*
                }
            }
        }
    };
}

attributes! {
    /// State of the migration, a word of the on-disk format (`streaming`, `committing`, …).
    State = "state";
    /// `repository`, `cache` or `direct`.
    Mode = "mode";
    /// The migration's UUID.
    Uuid = "uuid";
    /// The attached disk, e.g. `vda`.
    Disk = "disk";
    /// T.
    ImageBytes = "image_bytes";
    /// Bytes of the image below the copy counter: they are home.
    Copied = "copied";
    /// Blocks of the image.
    BlocksTotal = "blocks_total";
    /// Blocks that have to be fetched yet.
    BlocksAbsent = "blocks_absent";
    /// Blocks that are here and equal the image.
    BlocksClean = "blocks_clean";
    /// Blocks written here.
    BlocksDirty = "blocks_dirty";
    /// Blocks that read as zeroes and are not stored.
    BlocksZero = "blocks_zero";
    /// Blocks at their final place.
    BlocksHome = "blocks_home";
    /// Bytes received from the repository since the disk was attached.
    FetchedBytes = "fetched_bytes";
    /// Bytes of fetched data that were stored since the disk was attached.
    StoredBytes = "stored_bytes";
    /// `yes`: nothing is absent and the repository is not contacted any more.
    Independent = "independent";
    /// The portal in use or tried last, e.g. `192.0.2.1:3260` or `[2001:db8::1]:3260`; `none`.
    Portal = "portal";
    /// The portal of the superblock that sent us to [`Attribute::Portal`]; [`NONE`].
    RedirectedBy = "redirected_by";
    /// `disconnected`, `connecting`, `login`, `ready` or `closed`, then a colon and the reason if there is one.
    Connection = "connection";
    /// Seconds since the connection entered that state.
    ConnectionSince = "connection_since";
    /// What the connection protects by digests, the last one if there is none: `header+data`, `header`, `data` or `none`;
    /// [`UNKNOWN`].
    Digests = "digests";
    /// Connections lost since the disk was attached.
    Reconnects = "reconnects";
    /// How many sessions are ready, ` of `, how many there are to be; then a colon and the reason why one is missing beside
    /// others, if there is one.
    Sessions = "sessions";
    /// `on` or `off`, then the minimum and the maximum rate in KiB/s.
    Fill = "fill";
    /// What the fill cannot have, in a sentence; [`NONE`].
    FillStuck = "fill_stuck";
    /// `idle`, `running`, `paused` or `done`; or [`COMMIT_STOPPED`], a colon, and the reason.
    Commit = "commit";
    /// Reads that failed.
    ErrorsRead = "errors_read";
    /// Writes that failed.
    ErrorsWrite = "errors_write";
    /// Journal and superblock writes that failed.
    ErrorsJournal = "errors_journal";
    /// Requests being worked on.
    Inflight = "inflight";
    /// Reads of the repository that are being waited for.
    FetchesInflight = "fetches_inflight";
    /// The last error in a sentence; [`NONE`].
    LastError = "last_error";
    /// `yes` while the read-only view of the source is open.
    SourceView = "source_view";
    /// `known`, or `waiting`: the partition table has not been read yet.
    Partitions = "partitions";
}

/// The directory of the files.
pub const DIRECTORY: &str = "/sys/block/imgstream0/imgstream";

/// The word of [`Attribute::FillStuck`], [`Attribute::LastError`] and [`Attribute::RedirectedBy`] if there is nothing to say.
pub const NONE: &str = "none";

/// The word of [`Attribute::Digests`] before the first connection.
pub const UNKNOWN: &str = "unknown";

/// The word of [`Attribute::Commit`] for a commit that cannot go on by itself.
pub const COMMIT_STOPPED: &str = "stopped";

/// How the reason of a [`Attribute::Connection`] begins if the portal offers another image than it should.
pub const WRONG_IMAGE: &str = "wrong image";

/// What a connection does, [`Attribute::Connection`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Connection {
    /// No connection; waiting for the next attempt.
    Disconnected = 0,
    /// Waiting for TCP.
    Connecting = 1,
    /// Login and identity check.
    Login = 2,
    /// Reads are answered.
    Ready = 3,
    /// Never connected again: independent or torn down.
    Closed = 4,
}

impl Connection {
    /// The word in the file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Connecting => "connecting",
            Self::Login => "login",
            Self::Ready => "ready",
            Self::Closed => "closed",
        }
    }

    /// The state whose word begins a file's contents.
    pub fn parse(contents: &str) -> Option<Self> {
        let word = contents.split([':', '\n']).next()?;
        [
            Self::Disconnected,
            Self::Connecting,
            Self::Login,
            Self::Ready,
            Self::Closed,
        ]
        .into_iter()
        .find(|state| state.word() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_file_names() {
        for attribute in Attribute::ALL {
            let file = attribute.file();
            assert!(
                file.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{file}"
            );
            assert_eq!(attribute.file_c().to_bytes(), file.as_bytes());
        }
    }

    #[test]
    fn connection_words_are_read_back() {
        assert_eq!(Connection::parse("ready\n"), Some(Connection::Ready));
        assert_eq!(
            Connection::parse("disconnected: no answer\n"),
            Some(Connection::Disconnected)
        );
        assert_eq!(Connection::parse("readying\n"), None);
        assert_eq!(Connection::parse(""), None);
    }
}
