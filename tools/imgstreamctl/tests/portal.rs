// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl plan` through a portal, against the scripted target.

mod common;

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{imgstreamctl, make, prepare, published, Recipe, MIB};
use imgstream_proto::disk::settings::{Method, Network};
use imgstream_proto::disk::State;
use imgstream_proto::iscsi::digest::Policy;
use imgstream_testtarget::{Account, Chap, Fault, LoginFault, Plan, Server, Target, Willing};
use imgstreamctl::medium::DiskMedium;
use imgstreamctl::plan::Survey;
use imgstreamctl::publish::ReadAt;
use imgstreamctl::repository::{Address, Remote};
use imgstreamctl::stage::control_area;
use imgstreamctl::switch::arm;
use imgstreamctl::Exit;

const NAME: &str = "iqn.2026-11.test.imgstream:image";

fn source() -> common::Made {
    make(&Recipe {
        disk_bytes: 256 * MIB,
        root_bytes: 230 * MIB,
        ..Recipe::default()
    })
}

fn serve(lun: Vec<u8>, change: impl FnOnce(&mut Target)) -> Server {
    serve_at(SocketAddr::from(([127, 0, 0, 1], 0)), lun, change)
}

fn serve_at(at: SocketAddr, lun: Vec<u8>, change: impl FnOnce(&mut Target)) -> Server {
    let mut target = Target::new(Arc::new(lun));
    change(&mut target);
    Server::start(target, at).unwrap()
}

fn plan(source: &common::Made, portal: &str, target: &str) -> (i32, String, String) {
    let disk = source.image.to_str().unwrap();
    imgstreamctl(&[
        "plan", "--json", "--disk", disk, "--portal", portal, "--target", target,
    ])
}

#[test]
fn the_portal_gives_the_same_plan_as_the_file() {
    let made = make(&Recipe::default());
    let (lun, _, _) = prepare(&made, &[]);
    let source = source();
    let server = serve(std::fs::read(&lun).unwrap(), |_| {});
    let (code, through_portal, stderr) = plan(&source, &server.address().to_string(), NAME);
    assert_eq!(code, 0, "{stderr}");
    let disk = source.image.to_str().unwrap();
    let file = lun.to_str().unwrap();
    let from_file = imgstreamctl(&["plan", "--json", "--disk", disk, "--image", file]);
    assert_eq!(from_file.0, 0, "{}", from_file.2);
    assert_eq!(through_portal, from_file.1);
}

fn refused(server: &Server, target: &str, exit: Exit, sentence: &str) {
    let (code, stdout, stderr) = plan(&source(), &server.address().to_string(), target);
    assert_eq!(code, i32::from(exit.code()), "{stderr}");
    assert!(stderr.contains(sentence), "{stderr}");
    let facts: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert!(facts["image_bytes"].is_null(), "{stdout}");
    assert_eq!(facts["disk_bytes"], 256 * MIB, "the disk was looked at");
}

#[test]
fn a_lun_that_is_no_published_image() {
    let server = serve(vec![7; 2 << 20], |_| {});
    refused(&server, NAME, Exit::NotPublished, "no valid trailer");
}

#[test]
fn a_lun_with_blocks_of_4_kib() {
    let server = serve(vec![0; 2 << 20], |target| {
        target.settings.block_bytes = 4096
    });
    refused(
        &server,
        NAME,
        Exit::BlockSize,
        "logical blocks of 4096 bytes",
    );
}

#[test]
fn a_target_that_is_not_there() {
    let not_found = Fault::Login(LoginFault::Status(2, 3));
    let server = serve(vec![0; 2 << 20], |target| {
        target.plans.push(Plan::always(not_found));
    });
    let sentence = "nothing can be read from";
    refused(&server, NAME, Exit::PortalUnreachable, sentence);
}

/// What `discover` prints can be used, and is checked.
#[test]
fn l10_the_portal_group_of_a_discovery_has_to_be_there() {
    let made = make(&Recipe::default());
    let (lun, _, _) = prepare(&made, &[]);
    let server = serve(fs::read(lun).unwrap(), |_| {});
    let source = source();
    let plan_in = |group: u16| plan(&source, &format!("{},{group}", server.address()), NAME);
    let (code, _, stderr) = plan_in(1);
    assert_eq!(code, 0, "{stderr}");
    let (code, _, stderr) = plan_in(2);
    assert_eq!(code, i32::from(Exit::PortalUnreachable.code()), "{stderr}");
    let sentence = "the portal is of group 1, not of 2 as discovery said";
    assert!(stderr.contains(sentence), "{stderr}");
}

/// What `plan --digest POLICY` says through a portal that knows digests, or not.
fn plan_with_digests(policy: &str, willing: Willing) -> (i32, String) {
    let made = make(&Recipe::default());
    let (lun, _, _) = prepare(&made, &[]);
    let server = serve(fs::read(lun).unwrap(), |target| {
        target.settings.header_digest = willing;
        target.settings.data_digest = willing;
    });
    let source = source();
    let (code, _, stderr) = imgstreamctl(&[
        "plan",
        "--disk",
        source.image.to_str().unwrap(),
        "--portal",
        &server.address().to_string(),
        "--target",
        NAME,
        "--digest",
        policy,
    ]);
    assert_eq!(server.target().violations, Vec::<String>::new());
    (code, stderr)
}

#[test]
fn the_policy_of_digests_is_kept_and_unprotected_data_is_warned_of() {
    let unreachable = i32::from(Exit::PortalUnreachable.code());
    let table = [
        ("prefer", Willing::Offer, 0, ""),
        ("prefer", Willing::Never, 0, "data travels unprotected"),
        ("require", Willing::Offer, 0, ""),
        (
            "require",
            Willing::Never,
            unreachable,
            "HeaderDigest is required",
        ),
        ("off", Willing::Offer, 0, "data travels unprotected"),
    ];
    for (policy, willing, exit, words) in table {
        let (code, stderr) = plan_with_digests(policy, willing);
        assert_eq!(code, exit, "{policy} {willing:?}: {stderr}");
        assert!(stderr.contains(words), "{policy} {willing:?}: {stderr}");
        assert_eq!(stderr.is_empty(), words.is_empty(), "{stderr}");
    }
}

/// Two images of the same size, which one target could offer under one name.
struct Pair {
    made: common::Made,
    first: Vec<u8>,
    second: Vec<u8>,
}

impl Pair {
    fn new() -> Pair {
        let made = make(&Recipe::default());
        let lun = |name| {
            let (lun, _, _) = prepare(&made, &["--name", name]);
            fs::read(lun).unwrap()
        };
        let (second, first) = (lun("two"), lun("one"));
        assert_eq!(first.len(), second.len());
        Pair {
            made,
            first,
            second,
        }
    }

    /// The file with the first.
    fn lun(&self) -> std::path::PathBuf {
        self.made.path("published.lun")
    }
}

fn address(server: &Server) -> Address {
    Address {
        portal: Some(server.address().to_string()),
        target: Some(NAME.into()),
        lun: 1,
        digest: Policy::Prefer,
        chap_file: None,
        image: None,
    }
}

fn is_wrong_image(result: imgstreamctl::Result<()>) {
    let error = result.unwrap_err();
    assert_eq!(error.exit(), Exit::WrongImage, "{error}");
    let sentence = error.to_string();
    assert!(
        sentence.starts_with("another image is behind "),
        "{sentence}"
    );
    assert!(
        sentence.ends_with("its trailer is another one"),
        "{sentence}"
    );
}

/// While `migrate` fetches boot blocks, the portal goes away and comes back
/// with another image; or the image is replaced below the same connection.
#[test]
fn another_image_while_boot_blocks_are_fetched() {
    let pair = Pair::new();
    let server = serve(pair.first.clone(), |_| {});
    let at = server.address();
    let image = published(&pair.lun());
    let connect = |server: &Server| -> Remote { address(server).connect().unwrap() };
    let mut remote = connect(&server);
    remote.expect(&image);
    let mut block = [0; 4096];
    remote.read_at(0, &mut block).unwrap();
    remote.refuse_other(&image).unwrap();
    drop(server);
    let server = serve_at(at, pair.second, |_| {});
    is_wrong_image(remote.read_at(4096, &mut block));
    is_wrong_image(connect(&server).refuse_other(&image));
}

/// Puts a migration to the image at `server` on the disk, as if it streamed.
fn streaming(disk: &Path, address: &Address) {
    let plan = Survey::of(address, Some(disk), None).plan.unwrap();
    let network = Network {
        mac: [2; 6],
        method: Method::Dhcp,
        dns: [None; 2],
        mtu: 0,
        vlan: 0,
        hostname: Default::default(),
    };
    let mut control = arm::control(&plan, &address.connect().unwrap(), network).unwrap();
    control.superblock.state = State::Streaming;
    control_area::create(&mut DiskMedium::open_alone(disk).unwrap(), &control).unwrap();
}

#[test]
fn attaching_to_another_image() {
    let pair = Pair::new();
    let source = source();
    let disk = source.image.to_str().unwrap();
    let server = serve(pair.first.clone(), |_| {});
    let at = server.address();
    streaming(&source.image, &address(&server));
    let before = fs::read(&source.image).unwrap();
    let attach = || imgstreamctl(&["attach", disk]);
    // There is no module here: whoever asks for it has let the image pass.
    let (code, _, stderr) = attach();
    assert_eq!(code, i32::from(Exit::ToolMissing.code()), "{stderr}");
    drop(server);
    let _server = serve_at(at, pair.second, |_| {});
    let (code, _, stderr) = attach();
    assert_eq!(code, i32::from(Exit::WrongImage.code()), "{stderr}");
    assert_eq!(
        stderr,
        format!(
            "imgstreamctl attach: another image is behind {NAME} than the one this migration \
             began with: its trailer is another one\n"
        )
    );
    assert!(
        fs::read(&source.image).unwrap() == before,
        "the disk was changed"
    );
}

const SECRET: &str = "what only this computer knows";
const THEIRS: &str = "what only the target knows";

fn asks_for_chap(target: &mut Target) {
    let known = Account::new("the-target", THEIRS);
    target.settings.chap = Some(Chap::new(
        Account::new("this-computer", SECRET),
        Some(known),
    ));
}

fn chap_file(made: &common::Made, secret: &str, theirs: &str) -> PathBuf {
    let path = made.path("chap");
    let text = format!(
        "user=this-computer\nsecret={secret}\ntarget-user=the-target\ntarget-secret={theirs}\n"
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

fn tells_no_secret(said: &str) {
    assert!(!said.contains(SECRET) && !said.contains(THEIRS), "{said}");
}

#[test]
fn a_plan_needs_the_right_names_and_secrets() {
    let made = make(&Recipe::default());
    let (lun, _, _) = prepare(&made, &[]);
    let source = source();
    let server = serve(fs::read(&lun).unwrap(), asks_for_chap);
    let portal = server.address().to_string();
    let disk = source.image.to_str().unwrap();
    let at = [
        "plan", "--json", "--disk", disk, "--portal", &portal, "--target", NAME,
    ];
    let plan = |more: &[&str]| {
        let (code, said, stderr) = imgstreamctl(&[&at[..], more].concat());
        tells_no_secret(&said);
        tells_no_secret(&stderr);
        (code, stderr)
    };
    let with = |secret, theirs| {
        let file = chap_file(&made, secret, theirs);
        plan(&["--chap-file", file.to_str().unwrap()])
    };
    assert_eq!(with(SECRET, THEIRS).0, 0);
    for ((code, stderr), words) in [
        (plan(&[]), "authentication"),
        (
            with("not what it should be", THEIRS),
            "authentication failed",
        ),
        (
            with(SECRET, "not what it should be"),
            "does not know its secret",
        ),
    ] {
        assert_eq!(code, i32::from(Exit::PortalUnreachable.code()), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    }
}

#[test]
fn names_and_secrets_go_into_the_superblock_and_are_used_from_there() {
    let pair = Pair::new();
    let source = source();
    let server = serve(pair.first.clone(), asks_for_chap);
    let at = server.address();
    let file = chap_file(&pair.made, SECRET, THEIRS);
    let address = Address {
        chap_file: Some(file.clone()),
        ..address(&server)
    };
    streaming(&source.image, &address);
    fs::remove_file(file).unwrap();
    drop(server);
    let _server = serve_at(at, pair.second, asks_for_chap);
    let disk = source.image.to_str().unwrap();
    let (code, _, stderr) = imgstreamctl(&["attach", disk]);
    // Who does not get in cannot tell that it is another image.
    assert_eq!(code, i32::from(Exit::WrongImage.code()), "{stderr}");
    let (_, said, _) = imgstreamctl(&["dump", disk]);
    assert!(said.contains("authentication: mutual CHAP\n"), "{said}");
    for words in [
        &["dump", disk][..],
        &["dump", "--json", disk],
        &["check", disk],
    ] {
        let (_, said, stderr) = imgstreamctl(words);
        tells_no_secret(&said);
        tells_no_secret(&stderr);
    }
}
