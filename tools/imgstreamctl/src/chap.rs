// SPDX-License-Identifier: GPL-2.0-only
//! The file with names and secrets for CHAP, which only its owner may read.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use imgstream_initiator::{random, Account, Credentials};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// Longest file that is read.
const MAX_BYTES: u64 = 64 << 10;
/// Random bytes of a new secret: what RFC 7143 section 9.2.1 wants to be possible. The file has two digits for each.
const SECRET_BYTES: usize = 16;
const KEYS: [&str; 4] = ["user", "secret", "target-user", "target-secret"];

/// Reads `path`, a line `key=value` each.
pub fn read(path: &Path) -> Result<Credentials> {
    let text = private(path)?;
    parse(&text).map_err(|why| Error::Other(format!("{}: {why}", path.display())))
}

/// Makes the file at `path`, which must not be there, with a new secret for each name.
pub fn create(path: &Path, user: &str, target_user: Option<&str>) -> Result<()> {
    // Room for all of it, as in `private`.
    let mut text = Zeroizing::new(String::with_capacity(MAX_BYTES as usize));
    new_account(&mut text, "", user)?;
    if let Some(name) = target_user {
        new_account(&mut text, "target-", name)?;
    }
    // A name that no login could have is said now, not when the file is used.
    let made = parse(&text).map_err(Error::Other)?;
    if made.ours().name != user || made.target().map(|target| target.name) != target_user {
        return Err(Error::Other("a name cannot have several lines".into()));
    }
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => Error::Other(format!("{} is there already", path.display())),
        _ => Error::io("writing", path)(e),
    })?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(Error::io("writing", path))
}

fn new_account(text: &mut String, whose: &str, name: &str) -> Result<()> {
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    random(&mut *secret)
        .map_err(|e| Error::Other(format!("the kernel gives no random numbers: {e}")))?;
    let _ = write!(text, "{whose}user={name}\n{whose}secret=");
    for byte in secret.iter() {
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\n');
    Ok(())
}

/// The text of a file that nobody else may read.
fn private(path: &Path) -> Result<Zeroizing<String>> {
    let io = |e| Error::io("reading", path)(e);
    let file = File::open(path).map_err(io)?;
    let found = file.metadata().map_err(io)?;
    let mine = [0, rustix::process::geteuid().as_raw()].contains(&found.uid());
    if !found.is_file() || !mine || found.mode() & 0o077 != 0 {
        return Err(Error::Other(format!(
            "{} holds secrets, but it is not a file that only its owner, root or you, may read; \
             \"chmod 600\" makes it one",
            path.display()
        )));
    }
    // Room for all of it, so that no part is left behind where a growing string was.
    let mut text = Zeroizing::new(String::with_capacity(MAX_BYTES as usize));
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(io)?;
    Ok(text)
}

fn parse(text: &str) -> Result<Credentials, String> {
    let mut found: [Option<&str>; KEYS.len()] = [None; KEYS.len()];
    let lines = text.lines().zip(1..);
    for (line, number) in lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#')) {
        let key = line.split_once('=');
        let known =
            key.and_then(|(key, value)| Some((KEYS.iter().position(|k| *k == key)?, value)));
        let (index, value) = known.ok_or_else(|| {
            format!("line {number} is none of user=, secret=, target-user=, target-secret=")
        })?;
        if found[index].replace(value).is_some() {
            return Err(format!("{} is there twice", KEYS[index]));
        }
    }
    let [user, secret, target_user, target_secret] = found;
    let ours = Account {
        name: user.ok_or("there is no user=")?,
        secret: secret.ok_or("there is no secret=")?.as_bytes(),
    };
    let target = match (target_user, target_secret) {
        (None, None) => None,
        (Some(name), Some(secret)) => Some(Account {
            name,
            secret: secret.as_bytes(),
        }),
        _ => return Err("target-user= and target-secret= go together".into()),
    };
    Credentials::new(ours, target).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    const OURS: &str = "user=me\nsecret=our own secret\n";

    #[test]
    fn one_way_and_mutual() {
        let one = parse(&format!("# comment\n\n{OURS}")).unwrap();
        assert_eq!(one.ours().name, "me");
        assert_eq!(one.ours().secret, b"our own secret");
        assert!(one.target().is_none());
        let both = parse(&format!(
            "{OURS}target-secret=x=y = twelve\ntarget-user=it\n"
        ))
        .unwrap();
        let target = both.target().unwrap();
        assert_eq!((target.name, target.secret), ("it", &b"x=y = twelve"[..]));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        let wrong = |text: &str, words: &str| {
            let why = parse(text).unwrap_err();
            assert!(why.contains(words) && !why.contains("hidden"), "{why}");
        };
        wrong("", "no user=");
        wrong("user=me\n", "no secret=");
        wrong(
            "user=me\nsecret=hidden\n",
            "12 to 255 bytes; this one has 6",
        );
        wrong("user=m e\nsecret=hidden hidden\n", "without spaces");
        wrong(&format!("{OURS}user=me\n"), "user is there twice");
        wrong(&format!("{OURS}hidden\n"), "line 3 is none of");
        wrong(&format!("{OURS}target-user=it\n"), "go together");
        wrong(
            &format!("{OURS}target-user=it\ntarget-secret=our own secret\n"),
            "another secret",
        );
        let long = "x".repeat(255);
        wrong(
            &format!(
                "{OURS}target-user={}\ntarget-secret={long}\nuser",
                &long[..100]
            ),
            "line 5",
        );
        let (name, secret) = (&long[..223], &long);
        wrong(&format!("user={name}\nsecret={secret}\ntarget-user=its-own-name-which-is-long\ntarget-secret=hidden hidden\n"), "too long");
    }

    #[test]
    fn a_new_file_has_random_secrets_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        create(&path("one"), "me", None).unwrap();
        create(&path("both"), "me", Some("it")).unwrap();
        let (one, both) = (read(&path("one")).unwrap(), read(&path("both")).unwrap());
        assert!(one.target().is_none());
        let target = both.target().unwrap();
        assert_eq!((both.ours().name, target.name), ("me", "it"));
        let secrets = [one.ours().secret, both.ours().secret, target.secret];
        for (i, secret) in secrets.iter().enumerate() {
            assert!(secret.len() == 32 && secret.iter().all(u8::is_ascii_hexdigit));
            assert!(!secrets[..i].contains(secret));
        }
        let mode = fs::metadata(path("one")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_new_file_takes_no_place_and_no_wrong_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chap");
        for name in ["", "two words", "me\nsecret=known to everybody", "me\n"] {
            assert!(create(&path, name, None).is_err(), "{name:?}");
            assert!(create(&path, "me", Some(name)).is_err(), "{name:?}");
        }
        assert!(!path.exists());
        fs::write(&path, "kept").unwrap();
        let why = create(&path, "me", None).unwrap_err().to_string();
        assert!(why.ends_with("is there already"), "{why}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chap");
        fs::write(&path, OURS).unwrap();
        for (mode, taken) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o620, false),
        ] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path).is_ok(), taken, "{mode:o}");
        }
        let why = read(&path).unwrap_err().to_string();
        if rustix::process::geteuid().is_root() {
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            std::os::unix::fs::chown(&path, Some(1), None).unwrap();
            assert!(read(&path).is_err(), "another user's file");
        }
        assert!(
            why.contains("holds secrets") && !why.contains('\n'),
            "{why}"
        );
        assert!(read(dir.path()).is_err() && read(&dir.path().join("none")).is_err());
    }
}
