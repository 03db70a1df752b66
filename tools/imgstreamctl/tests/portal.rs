// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl plan` through a portal, against the scripted target.

mod common;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use common::{imgstreamctl, make, prepare, Recipe, MIB};
use imgstream_testtarget::{Fault, LoginFault, Plan, Server, Target};
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
    let mut target = Target::new(Arc::new(lun));
    change(&mut target);
    Server::start(target, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
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
    assert_eq!(stdout, "");
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

#[test]
fn a_portal_that_is_not_there() {
    // A port that was free a moment ago.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let portal = listener.local_addr().unwrap().to_string();
    drop(listener);
    let (code, _, stderr) = plan(&source(), &portal, NAME);
    assert_eq!(code, i32::from(Exit::PortalUnreachable.code()), "{stderr}");
    assert!(stderr.contains("nothing can be read from"), "{stderr}");
}
