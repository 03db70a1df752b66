// SPDX-License-Identifier: GPL-2.0-only

//! Before the scripted target is believed: what another initiator says of it, libiscsi (Debian's libiscsi-bin, which the
//! build root has).

use std::process::{Command, Output};
use std::sync::Arc;

use imgstream_testtarget::{Server, Settings, Target};

/// The cases of `iscsi-test-cu --list` that a disk has to pass that cannot be written. Left out are those of
/// - commands that change the medium (COMPARE AND WRITE, EXTENDED COPY, ORWRITE, SANITIZE, UNMAP, all WRITEs, `Read10.Async`
///   and what else writes first): ReadOnly has each of them refused;
/// - optional commands that the target refuses by 5/20/00, so that the cases skip themselves (GET LBA STATUS, PRE-FETCH,
///   PREVENT ALLOW, PERSISTENT RESERVE, READ DEFECT DATA, RECEIVE COPY RESULTS, REPORT SUPPORTED OPCODES, RESERVE, START
///   STOP, VERIFY);
/// - `Inquiry.BlockLimits`, which is about thin provisioning;
/// - what libiscsi 1.20 does not know itself: continued login text (C), numbers of units above 255;
/// - `iSCSIResiduals.Read10Invalid`, the end of which sends a READ that says it is a write and wants it to be GOOD;
/// - iSCSITMF and iSCSIdatasn, which write; two paths (MultipathIO); discovery and CHAP.
const CASES: &[&str] = &[
    "Inquiry.Standard",
    "Inquiry.AllocLength",
    "Inquiry.EVPD",
    "Inquiry.MandatoryVPDSBC",
    "Inquiry.SupportedVPD",
    "Inquiry.VersionDescriptors",
    "Mandatory.MandatorySBC",
    "ModeSense6.AllPages",
    "ModeSense6.Control",
    "ModeSense6.Control-D_SENSE",
    "ModeSense6.Control-SWP",
    "ModeSense6.Residuals",
    "Read6.Simple",
    "Read6.BeyondEol",
    "Read10.Simple",
    "Read10.BeyondEol",
    "Read10.ZeroBlocks",
    "Read10.ReadProtect",
    "Read10.DpoFua",
    "Read12.Simple",
    "Read12.BeyondEol",
    "Read12.ZeroBlocks",
    "Read12.ReadProtect",
    "Read12.DpoFua",
    "Read16.Simple",
    "Read16.BeyondEol",
    "Read16.ZeroBlocks",
    "Read16.ReadProtect",
    "Read16.DpoFua",
    "ReadCapacity10.Simple",
    "ReadCapacity16.Simple",
    "ReadCapacity16.Alloclen",
    "ReadCapacity16.PI",
    "ReadCapacity16.Support",
    "ReadOnly.ReadOnlySBC",
    "TestUnitReady.Simple",
    "iSCSIcmdsn.iSCSICmdSnTooHigh",
    "iSCSIcmdsn.iSCSICmdSnTooLow",
    "iSCSIResiduals.Read10Residuals",
    "iSCSIResiduals.Read12Residuals",
    "iSCSIResiduals.Read16Residuals",
    "iSCSINop.Simple",
];

/// What the program says it leaves out on its own account, before and after each case.
const ASIDE: [&str; 2] = ["PERSISTENT RESERVE IN", "REPORT_SUPPORTED_OPCODES"];

const IMAGE_BYTES: usize = 8 << 20;

fn image() -> Vec<u8> {
    (0..IMAGE_BYTES)
        .map(|i| (i ^ (i >> 9) ^ (i >> 17)) as u8)
        .collect()
}

fn serve(settings: Settings) -> Server {
    let mut target = Target::new(Arc::new(image()));
    target.settings = settings;
    Server::start(target, "127.0.0.1:0".parse().unwrap()).unwrap()
}

fn address(server: &Server) -> String {
    let (name, lun) = {
        let target = server.target();
        (target.settings.target_name.clone(), target.settings.lun)
    };
    format!("iscsi://{}/{name}/{lun}", server.address())
}

fn run(program: &str, arguments: &[&str]) -> Output {
    // A program that waits for an answer for ever has failed as well.
    Command::new("timeout")
        .args(["60", program])
        .args(arguments)
        .output()
        .unwrap_or_else(|e| panic!("timeout has to be installed: {e}"))
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_ne!(
        output.status.code(),
        Some(127),
        "{program} has to be installed (Debian: libiscsi-bin), as it is in the build root"
    );
    text
}

/// Whether a case passed, and did not leave itself out.
fn passed(text: &str) -> bool {
    let skipped =
        |line: &str| line.contains("[SKIPPED]") && !ASIDE.iter().any(|a| line.contains(a));
    let run = text.split_once("Suite: ").map_or("", |(_, run)| run);
    let counted = run.lines().any(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        words == ["tests", "1", "1", "1", "0", "0"]
    });
    counted && !run.lines().any(skipped)
}

fn all_pass(server: &Server, cases: &[&str]) {
    let url = address(server);
    let wrong: Vec<_> = cases
        .iter()
        .map(|case| (case, format!("ALL.{case}")))
        .map(|(case, test)| {
            (
                case,
                said("iscsi-test-cu", &["-d", "-v", "-t", &test, &url]),
            )
        })
        .filter(|(_, text)| !passed(text))
        .collect();
    for (case, text) in &wrong {
        eprintln!("== {case}\n{text}");
    }
    let wrong: Vec<_> = wrong.into_iter().map(|(case, _)| case).collect();
    assert!(wrong.is_empty(), "failed or left out: {wrong:?}");
}

#[test]
fn libiscsi_takes_it_for_a_disk_that_cannot_be_written() {
    all_pass(&serve(Settings::default()), CASES);
}

#[test]
fn libiscsi_takes_it_with_everything_in_small_pieces() {
    let server = serve(Settings {
        segment_bytes: 512,
        separate_status: true,
        max_transfer_blocks: Some(128),
        window: 1,
        first_stat_sn: u32::MAX - 3,
        ..Settings::default()
    });
    all_pass(&server, CASES);
}

#[test]
fn libiscsi_reads_what_is_in_the_image() {
    use std::io::Write as _;

    let server = serve(Settings {
        max_transfer_blocks: Some(128),
        ..Settings::default()
    });
    let url = address(&server);
    let of_unit = said("iscsi-md5sum", &[&url]);
    let mut sum = Command::new("md5sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    sum.stdin.take().unwrap().write_all(&image()).unwrap();
    let output = sum.wait_with_output().unwrap();
    let wanted = String::from_utf8_lossy(&output.stdout);
    let wanted = wanted.split_whitespace().next().unwrap();
    assert!(of_unit.contains(wanted), "{of_unit}: {wanted}");
    let capacity = said("iscsi-readcapacity16", &[&url]);
    assert!(capacity.contains("Total size:8388608"), "{capacity}");
    let inquiry = said("iscsi-inq", &[&url]);
    assert!(
        inquiry.contains("Peripheral Device Type:DIRECT_ACCESS"),
        "{inquiry}"
    );
}

#[test]
fn a_case_that_failed_or_left_itself_out_did_not_pass() {
    let good = "Suite: A\n tests      1      1      1      0        0\n";
    assert!(passed(good));
    assert!(passed(&format!(
        "{good} [SKIPPED] PERSISTENT RESERVE IN is not implemented."
    )));
    assert!(!passed(&format!(
        "{good} [SKIPPED] VERIFY16 is not implemented."
    )));
    assert!(!passed(
        &good.replace("1      0        0", "0      1        0")
    ));
    assert!(!passed(""));
}
