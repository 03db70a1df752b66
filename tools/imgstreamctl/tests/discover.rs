// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl discover` against the scripted target.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use common::imgstreamctl;
use imgstream_testtarget::{
    Account, Chap, Damage, Fault, LoginFault, Phase, Plan, Server, Target, TextFault,
};
use imgstreamctl::Exit;

fn serve(plans: Vec<Plan>) -> Server {
    let mut target = Target::new(Arc::new(vec![0; 1 << 20]));
    target.plans = plans;
    let addresses = ["192.0.2.1:3260,1", "[2001:db8::1]:860,2"];
    target.settings.targets = vec![
        (
            "iqn.2026-11.example:one".into(),
            addresses.map(String::from).to_vec(),
        ),
        ("iqn.2026-11.example:two".into(), vec![]),
    ];
    Server::start(target, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
}

fn discover(server: &Server, json: bool) -> (i32, String, String) {
    let portal = server.address().to_string();
    let mut words = vec!["discover", &portal];
    if json {
        words.push("--json");
    }
    imgstreamctl(&words)
}

#[test]
fn targets_are_listed_with_their_portals() {
    let server = serve(vec![]);
    let (code, said, stderr) = discover(&server, false);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let portal = server.address();
    let expected = format!(
        "192.0.2.1:3260,1 iqn.2026-11.example:one\n[2001:db8::1]:860,2 iqn.2026-11.example:one\n\
         {portal} iqn.2026-11.example:two\n"
    );
    assert_eq!(said, expected);
    let (code, said, _) = discover(&server, true);
    let facts: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(code, 0);
    let portals = serde_json::json!([
        { "address": "192.0.2.1:3260", "portal_group": 1 },
        { "address": "[2001:db8::1]:860", "portal_group": 2 },
    ]);
    assert_eq!(facts["targets"][0]["portals"], portals);
    assert_eq!(facts["targets"][1]["name"], "iqn.2026-11.example:two");
    assert_eq!(server.target().violations, Vec::<String>::new());
    assert_eq!(server.target().logouts, 2);
    server.target().settings.targets.clear();
    let (code, said, stderr) = discover(&server, false);
    let none = format!("{portal} offers no targets to this computer\n");
    assert_eq!((code, said, stderr), (0, String::new(), none));
    let (code, said, stderr) = discover(&server, true);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let facts: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(facts, serde_json::json!({ "targets": [] }));
}

#[test]
fn a_portal_that_sends_us_on_is_followed() {
    let last = serve(vec![]);
    let redirect = LoginFault::Redirect(1, vec![last.address().to_string()]);
    let first = serve(vec![Plan::always(Fault::Login(redirect))]);
    let (code, said, stderr) = discover(&first, false);
    assert_eq!(code, 0, "{stderr}");
    assert!(said.contains(",1 iqn.2026-11.example:one\n"), "{said}");
}

/// One sentence, nothing else, and the exit code.
fn fails(portal: &str, words: &str) -> String {
    let (code, said, stderr) = imgstreamctl(&["discover", portal, "--json"]);
    let expected = i32::from(Exit::PortalUnreachable.code());
    assert_eq!((code, said.as_str()), (expected, ""), "{stderr}");
    assert!(stderr.contains(words), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}

#[test]
fn a_target_that_wants_a_password_says_so() {
    let server = serve(vec![]);
    server.target().settings.chap = Some(Chap::new(
        Account::new("us", "a secret of some length"),
        None,
    ));
    fails(&server.address().to_string(), "wants authentication");
}

const SECRET: &str = "a secret of some length";

/// As [`discover`], with a file of names and secrets.
fn discover_as(server: &Server, secret: &str, target_secret: &str) -> (i32, String, String) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let lines =
        format!("user=us\nsecret={secret}\ntarget-user=it\ntarget-secret={target_secret}\n");
    file.write_all(lines.as_bytes()).unwrap();
    let path = file.path().to_str().unwrap();
    let portal = server.address().to_string();
    let (code, said, stderr) = imgstreamctl(&["discover", &portal, "--chap-file", path]);
    for secret in [secret, target_secret] {
        assert!(!said.contains(secret) && !stderr.contains(secret));
    }
    (code, said, stderr)
}

fn with_chap() -> Server {
    let server = serve(vec![]);
    let target = Account::new("it", "another secret of some length");
    server.target().settings.chap = Some(Chap::new(Account::new("us", SECRET), Some(target)));
    server
}

#[test]
fn with_the_password_a_target_lists_what_it_has() {
    let right = "another secret of some length";
    for as_tgt in [false, true] {
        let server = with_chap();
        if as_tgt {
            let mut target = server.target();
            let chap = target.settings.chap.as_mut().unwrap();
            (chap.seven_is_sha1, chap.algorithms) = (true, vec![7, 5]);
        }
        let (code, said, stderr) = discover_as(&server, SECRET, right);
        assert_eq!((code, stderr.as_str()), (0, ""));
        assert!(said.contains(",1 iqn.2026-11.example:one\n"), "{said}");
        assert_eq!(
            server.target().chap.responses.len(),
            1 + usize::from(as_tgt)
        );
    }
    let refused = |server: &Server, secret, target_secret, words: &str| {
        let (code, said, stderr) = discover_as(server, secret, target_secret);
        let expected = i32::from(Exit::PortalUnreachable.code());
        assert_eq!((code, said.as_str()), (expected, ""), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    };
    let server = with_chap();
    refused(
        &server,
        "not what it is at all",
        right,
        "authentication failed",
    );
    refused(
        &server,
        SECRET,
        "not what it is at all",
        "does not know its secret",
    );
    // Who has a password shows nobody a list who does not ask for it.
    server.target().settings.chap = None;
    refused(&server, SECRET, right, "without it");
}

#[test]
fn who_speaks_something_else_is_no_iscsi_portal() {
    for greeting in [
        "SSH-2.0-OpenSSH_10.0p2 Debian-7+deb13u1, and a line that is longer\r\n",
        "HTTP/1.1 400 Bad Request\r\nServer: nginx\r\nContent-Length: 0\r\n\r\n",
    ] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let portal = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            socket.write_all(greeting.as_bytes()).unwrap();
            let _ = socket.read_to_end(&mut Vec::new());
        });
        fails(
            &portal,
            &format!("what listens at {portal} does not answer as an iSCSI portal: "),
        );
        server.join().unwrap();
    }
}

#[test]
fn every_trouble_is_one_sentence_and_one_exit_code() {
    let wire = |damage| Fault::Wire(Phase::Full, damage);
    for (fault, words) in [
        (
            Fault::Login(LoginFault::Status(2, 2)),
            "this initiator may not use the target",
        ),
        (
            Fault::Login(LoginFault::Status(2, 9)),
            "this type of session is not supported",
        ),
        (
            Fault::Text(TextFault::Text(b"nothing\0".to_vec())),
            "text is malformed",
        ),
        (
            Fault::Text(TextFault::Endless(b"x".to_vec())),
            "does not come to an end",
        ),
        (wire(Damage::Close(10)), "closes the connection"),
    ] {
        let server = serve(vec![Plan::always(fault)]);
        let stderr = fails(&server.address().to_string(), words);
        assert!(!stderr.contains("what listens"), "{stderr}");
    }
    fails("no-such-host.invalid", "its address is not known");
    let gone = serve(vec![]).address().to_string();
    let stderr = fails(&gone, "refuses connections");
    let expected = format!(
        "imgstreamctl discover: nothing can be read from {gone}: the portal {gone} refuses connections\n"
    );
    assert_eq!(stderr, expected);
    for portal in [
        "two words",
        "",
        "192.0.2.1:0",
        "192.0.2.1,x",
        "iscsi://192.0.2.1",
    ] {
        let (code, _, stderr) = imgstreamctl(&["discover", portal]);
        assert_eq!(code, i32::from(Exit::Usage.code()), "{stderr}");
    }
}

/// Says nothing where this computer leaves no core file of anybody.
#[test]
fn no_core_file_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let portal = listener.local_addr().unwrap();
    let program = env!("CARGO_BIN_EXE_imgstreamctl");
    let script = format!("ulimit -c unlimited; exec {program} discover {portal}");
    let mut shell = Command::new("sh");
    shell.current_dir(&directory).args(["-c", &script]);
    let mut child = shell.spawn().unwrap();
    let _waits_for_us = listener.accept().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::ABORT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(6));
    assert!(!status.core_dumped(), "{status}");
}
