//! Flags, files, ports and labels that a sidecar can't start with.

use std::{fs, time::Duration};

use exeat_tests::{
    chaos::{Stage, until},
    gate::Faults,
};

use super::support::{CONFIGURATION, POLICY, USAGE, changed, get, tells, told};

#[test]
fn a_sidecar_says_what_is_wrong_with_its_flags_and_files() {
    let stage = Stage::new(POLICY).unwrap();
    let garbage = stage.path("garbage");
    fs::write(&garbage, "neither certificate nor label").unwrap();
    let garbage = garbage.to_str().unwrap();
    let nowhere = stage.path("nowhere/file");
    let nowhere = nowhere.to_str().unwrap();
    let folder = nowhere.trim_end_matches("/file");
    let mut faults = Faults::default();
    for (what, flag, value, code, words) in [
        (
            "a log filter",
            "--log",
            "a=b=c",
            CONFIGURATION,
            &["--log"][..],
        ),
        ("no threads", "--workers", "0", USAGE, &["--workers"]),
        (
            "no connections",
            "--connection-limit",
            "0",
            USAGE,
            &["--connection-limit"],
        ),
        (
            "too many connections",
            "--connection-limit",
            "18446744073709551615",
            USAGE,
            &["--connection-limit"],
        ),
        (
            "a durability",
            "--durability",
            "eternal",
            USAGE,
            &["eternal", "written", "synced"],
        ),
        (
            "no address",
            "--resolve",
            "api.exeat.test",
            USAGE,
            &["HOST=ADDRESS"],
        ),
        (
            "a bad address",
            "--resolve",
            "api.exeat.test=300.1.1.1",
            USAGE,
            &["300.1.1.1"],
        ),
        ("a bad host", "--resolve", "a b=1.2.3.4", USAGE, &["a b"]),
        ("a label", "--label", "app", USAGE, &["KEY=VALUE"]),
        ("a credential", "--credential", "api", USAGE, &["NAME=FILE"]),
        ("a port", "--dns-port", "70000", USAGE, &["70000"]),
        (
            "port 0",
            "--transparent-port",
            "0",
            USAGE,
            &["--transparent-port"],
        ),
        (
            "two uses of a port",
            "--explicit-port",
            "15001",
            CONFIGURATION,
            &["15001", "taken"],
        ),
        (
            "an address elsewhere",
            "--listen-address",
            "192.0.2.7",
            CONFIGURATION,
            &["192.0.2.7"],
        ),
        ("an unknown flag", "--polcy", "x", USAGE, &["--polcy"]),
        (
            "roots that are none",
            "--upstream-ca",
            garbage,
            CONFIGURATION,
            &[garbage, "certificate"],
        ),
        (
            "missing roots",
            "--upstream-ca",
            nowhere,
            CONFIGURATION,
            &[nowhere],
        ),
        (
            "missing folder of credentials",
            "--credentials-dir",
            nowhere,
            CONFIGURATION,
            &[nowhere, "does not exist"],
        ),
        (
            "missing folder of a credential",
            "--credential",
            &format!("api={nowhere}"),
            CONFIGURATION,
            &["`api`", folder],
        ),
        (
            "nowhere to write the certificate",
            "--ca-out",
            nowhere,
            CONFIGURATION,
            &[nowhere],
        ),
        (
            "a collector that is no URL",
            "--otlp",
            "nonsense",
            CONFIGURATION,
            &["nonsense", "http://"],
        ),
        (
            "a collector by another protocol",
            "--otlp",
            "ftp://a/",
            CONFIGURATION,
            &["ftp"],
        ),
        (
            "missing folder of labels",
            "--labels-file",
            nowhere,
            CONFIGURATION,
            &[folder],
        ),
    ] {
        faults.check(what, || {
            tells(
                &stage.refuses(&changed(&stage, &[(flag, Some(value))]))?,
                code,
                words,
            )
        });
    }
    faults.none();
}

#[test]
fn a_port_that_somebody_has_stops_the_start() {
    let stage = Stage::new(POLICY).unwrap();
    for port in [15001_u16, 15002, 15053, 15021] {
        let squatter = stage.agent(|| std::net::TcpListener::bind(("127.0.0.1", port)).unwrap());
        let said = stage.refuses(&stage.arguments()).unwrap();
        told(
            "an occupied port",
            &said,
            CONFIGURATION,
            &[&port.to_string(), "taken"],
        );
        drop(squatter);
    }
    let squatter = stage.agent(|| std::net::UdpSocket::bind(("127.0.0.1", 15053)).unwrap());
    let said = stage.refuses(&stage.arguments()).unwrap();
    told(
        "an occupied UDP port",
        &said,
        CONFIGURATION,
        &["15053", "taken"],
    );
    drop(squatter);
}

#[test]
fn labels_that_are_garbage_select_nothing_new() {
    let selecting = POLICY.replace(
        "spec:",
        "spec:\n  podSelector: {matchLabels: {app: research}}",
    );
    let stage = Stage::new(&selecting).unwrap();
    let labels = stage.path("labels");
    fs::write(&labels, "app=\"research\"\n").unwrap();
    let sidecar = stage
        .start(&["--labels-file", labels.to_str().unwrap()])
        .unwrap();
    assert_eq!(get(&stage, "/c/1").status, 200);
    fs::write(&labels, "app=\"research\"\nwhat is this\n").unwrap();
    sidecar.says("the last good one stays in force").unwrap();
    let log = sidecar.log();
    assert!(
        log.contains(labels.to_str().unwrap()) && log.contains("line 2"),
        "{log}"
    );
    assert_eq!(get(&stage, "/c/2").status, 200);
    fs::write(&labels, "app=\"other\"\n").unwrap();
    until(
        "another label selects nothing",
        Duration::from_secs(2),
        || get(&stage, "/c/3").status == 403,
    )
    .unwrap();
    drop(sidecar);
    fs::write(&labels, [0xff, 0xfe]).unwrap();
    let _sidecar = stage
        .start(&["--labels-file", labels.to_str().unwrap()])
        .unwrap();
    assert_eq!(
        get(&stage, "/c/4").status,
        403,
        "labels that nobody can read select nothing"
    );
}
