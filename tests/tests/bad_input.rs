//! What is set up wrongly, is missing, is full or is gone: each is told with where and what to do
//! about it, or denied with its reason, and nothing is lost.
//!
//! A message is judged by the words that a person needs: the file, the line, the flag, the remedy.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use exeat_tests::{
    chaos::{
        API, Said, Sidecar, Stage,
        client::{Answer, Client},
        journal::{self, is_allow},
        until,
    },
    gate::{Faults, GATE_UID},
    governed::program,
    netns::{Namespace, Persona},
};
use nix::unistd::chown;
use serde_json::Value;

/// Set up wrongly: trying again changes nothing.
const CONFIGURATION: i32 = 78;
/// What clap says to flags that it does not know.
const USAGE: i32 = 2;

const POLICY: &str = r#"
apiVersion: exeat.dev/v1alpha1
kind: ToolPolicy
metadata: {name: good}
spec:
  tools:
  - name: calls
    http: {hosts: [api.exeat.test], scheme: http, addresses: [10.77.0.0/24], methods: [GET], paths: ["/c/**"]}
"#;

/// Policies that must not compile, and the words that say why.
const BAD_POLICIES: [(&str, &str, &str, &[&str]); 6] = [
    (
        "an unknown field",
        "methods:",
        "mehtods:",
        &["mehtods", "policy.yaml:8:", "methods"],
    ),
    (
        "a bad expression",
        "  - name: calls",
        "  - name: calls\n    when: path. ==",
        &["when", "policy.yaml:8"],
    ),
    (
        "an unknown name in an expression",
        "  - name: calls",
        "  - name: calls\n    when: pathh.x == 'a'",
        &["pathh", "policy.yaml:8"],
    ),
    ("YAML that is none", "spec:", "spec: [", &["policy.yaml:"]),
    (
        "another kind",
        "ToolPolicy",
        "ConfigMap",
        &["ConfigMap", "ToolPolicy"],
    ),
    (
        "a host that is none",
        "[api.exeat.test]",
        "[\"a b\"]",
        &["a b", "policy.yaml:8"],
    ),
];

// === the sidecar, at its start ===

/// Arguments of a sidecar with some of them changed or left out.
fn changed(stage: &Stage, changes: &[(&str, Option<&str>)]) -> Vec<OsString> {
    let mut arguments = stage.arguments();
    for (flag, value) in changes {
        if let Some(at) = arguments.iter().position(|argument| argument == flag) {
            arguments.drain(at..at + 2);
        }
        if let Some(value) = value {
            arguments.extend([flag.into(), value.into()]);
        }
    }
    arguments
}

/// The sidecar gives up with this exit status, and says these words; it neither panics nor serves.
fn refused(stage: &Stage, what: &str, changes: &[(&str, Option<&str>)], code: i32, words: &[&str]) {
    let said = stage.refuses(&changed(stage, changes)).unwrap();
    told(what, &said, code, words);
}

fn told(what: &str, said: &Said, code: i32, words: &[&str]) {
    if let Err(error) = tells(said, code, words) {
        panic!("{what}: {error}");
    }
}

fn tells(said: &Said, code: i32, words: &[&str]) -> Result<()> {
    let text = &said.text;
    ensure!(!text.contains("panicked"), "{text}");
    ensure!(said.status.code() == Some(code), "{}: {text}", said.status);
    for word in words {
        ensure!(text.contains(word), "it does not say `{word}`: {text}");
    }
    Ok(())
}

#[test]
fn a_sidecar_says_what_is_wrong_with_its_policy() {
    let stage = Stage::new(POLICY).unwrap();
    let file = stage.path("policy.yaml");
    let path = file.to_str().unwrap();
    let case = |what, content: &[u8], words: &[&str]| {
        fs::write(&file, content).unwrap();
        refused(
            &stage,
            what,
            &[("--policy-dir", None), ("--policy", Some(path))],
            CONFIGURATION,
            words,
        );
    };
    for (what, from, to, words) in BAD_POLICIES {
        case(what, POLICY.replacen(from, to, 1).as_bytes(), words);
    }
    case(
        "a policy that is no text",
        b"spec: \xff\xfe",
        &[path, "UTF-8"],
    );
    case(
        "a huge policy",
        " ".repeat(2 << 20).as_bytes(),
        &[path, "larger than"],
    );
    case("an empty policy", b"", &[path, "empty"]);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    case(
        "an unreadable policy",
        POLICY.as_bytes(),
        &[path, "ermission"],
    );
    fs::remove_file(&file).unwrap();
    let none = &[("--policy-dir", None), ("--policy", Some(path))];
    refused(
        &stage,
        "a missing policy",
        none,
        CONFIGURATION,
        &[path, "does not exist"],
    );
    let folder = stage.path("nowhere");
    let folder = folder.to_str().unwrap();
    refused(
        &stage,
        "a missing folder",
        &[("--policy-dir", Some(folder))],
        CONFIGURATION,
        &[folder, "does not exist"],
    );
    refused(
        &stage,
        "no policy at all",
        &[("--policy-dir", None)],
        USAGE,
        &["--policy-dir", "--policy"],
    );
}

#[test]
fn a_folder_with_a_bad_policy_denies_and_says_why() {
    let mut stage = Stage::new(POLICY).unwrap();
    for (what, from, to, words) in BAD_POLICIES {
        stage
            .policies
            .publish(&[("policy.yaml", &POLICY.replacen(from, to, 1))])
            .unwrap();
        denied_from_the_start(&stage, what, words);
    }
    stage
        .policies
        .publish_bytes(&[("policy.yaml", b"\xff")])
        .unwrap();
    denied_from_the_start(&stage, "no text", &["policy.yaml", "UTF-8"]);
    stage.policies.publish(&[]).unwrap();
    denied_from_the_start(&stage, "an empty folder", &["there is no policy in"]);
}

fn denied_from_the_start(stage: &Stage, what: &str, words: &[&str]) {
    let sidecar = stage.start(&[]).unwrap();
    assert_eq!(get(stage, "/c/1").status, 403, "{what}");
    let log = sidecar.log();
    for word in words {
        assert!(log.contains(word), "{what} does not say `{word}`: {log}");
    }
    assert!(stage.world.upstream().requests().is_empty());
}

#[test]
fn a_sidecar_says_what_is_wrong_with_its_journal() {
    let stage = Stage::new(POLICY).unwrap();
    let at = |name: &str| stage.path("journal").join(name);
    let case = |what, name: &str, words: &[&str]| {
        let path = at(name);
        let path = path.to_str().unwrap();
        let words: Vec<_> = words.iter().copied().chain([path]).collect();
        refused(
            &stage,
            what,
            &[("--audit", Some(path))],
            CONFIGURATION,
            &words,
        );
    };
    let own = |name: &str| chown(&at(name), Some(GATE_UID.into()), None).unwrap();
    let write = |name: &str, content: &str| {
        fs::write(at(name), content).unwrap();
        own(name);
    };
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    own("fifo");
    case("a pipe", "fifo", &["not a regular file"]);
    write("target", "");
    symlink(at("target"), at("link")).unwrap();
    case("a link", "link", &["symbolic link"]);
    fs::create_dir(at("folder")).unwrap();
    case("a folder", "folder", &["regular file"]);
    write("linked", "");
    fs::hard_link(at("linked"), at("second")).unwrap();
    case("a second name", "linked", &["hard link"]);
    write("loose", "");
    fs::set_permissions(at("loose"), fs::Permissions::from_mode(0o666)).unwrap();
    case("loose rights", "loose", &["chmod 600"]);
    write("diary", "Dear diary,\n");
    case("somebody's file", "diary", &["exeat audit verify"]);
    assert_eq!(
        fs::read_to_string(at("diary")).unwrap(),
        "Dear diary,\n",
        "it was changed"
    );
    fs::write(at("roots"), "").unwrap();
    fs::set_permissions(at("roots"), fs::Permissions::from_mode(0o600)).unwrap();
    case("somebody else's file", "roots", &["write access"]);
    case(
        "a missing folder",
        "no/journal",
        &["make its directory first"],
    );
    refused(
        &stage,
        "no room",
        &[("--journal-max-bytes", Some("10"))],
        CONFIGURATION,
        &["journal", "full"],
    );

    let first = stage.start(&[]).unwrap();
    let ports = [
        "--transparent-port",
        "--explicit-port",
        "--dns-port",
        "--health-port",
    ];
    let others: Vec<_> = ports
        .iter()
        .zip(["16001", "16002", "16053", "16021"])
        .map(|(port, other)| (*port, Some(other)))
        .collect();
    refused(
        &stage,
        "two gates",
        &others,
        CONFIGURATION,
        &["in use by another gate"],
    );
    drop(first);

    for (what, options, words) in [
        ("a read-only disk", "ro", &["read-only"][..]),
        ("no disk at all", "size=4k,nr_inodes=1", &["journal"]),
    ] {
        let mut sidecar = stage.spawn_on_small_disk(options, &[]).unwrap();
        let status = sidecar.ended(Duration::from_secs(20)).unwrap();
        let said = Said {
            status,
            text: sidecar.log(),
        };
        told(what, &said, CONFIGURATION, words);
    }
}

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

// === the sidecar, later ===

fn get(stage: &Stage, path: &str) -> Answer {
    let to = stage.world.plain();
    stage.agent(|| Client::plain(to).unwrap().get(API, path, "").unwrap())
}

fn code(answer: &Answer) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    body["error"]["code"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn ready(stage: &Stage) -> Answer {
    let ask = || {
        Client::plain("10.77.0.2:15021".parse().unwrap())
            .unwrap()
            .get("gate", "/healthz/ready", "")
            .unwrap()
    };
    stage.pod.outside.run(Persona::Root, ask).unwrap()
}

/// Calls until the journal takes no more; each call that arrived is on record.
fn fill(stage: &Stage, name: &str) -> Answer {
    for call in 0..1000 {
        let answer = get(stage, &format!("/c/{name}/{call}"));
        if answer.status != 200 {
            return answer;
        }
    }
    panic!("the journal does not fill");
}

fn all_on_record(stage: &Stage, records: &[Value]) {
    for request in stage.world.upstream().requests() {
        let found = records
            .iter()
            .any(|record| is_allow(record) && record["http"]["path"] == request.path.as_str());
        assert!(found, "{} arrived and is not on record", request.path);
    }
}

#[test]
fn a_full_disk_denies_and_recovers() {
    let stage = Stage::new(POLICY).unwrap();
    let mut sidecar = stage.spawn_on_small_disk("size=64k", &[]).unwrap();
    sidecar.ready().unwrap();
    let seen = format!("/proc/{}/root{}", sidecar.id(), stage.journal().display());
    let answer = fill(&stage, "first");
    assert_eq!(
        (answer.status, code(&answer).as_str()),
        (503, "journal_unavailable"),
        "{}",
        answer.text()
    );
    assert!(answer.text().contains("disk full"), "{}", answer.text());
    let sent = stage.world.upstream().requests().len();
    for call in 0..20 {
        assert_eq!(get(&stage, &format!("/c/none/{call}")).status, 503);
    }
    assert_eq!(
        stage.world.upstream().requests().len(),
        sent,
        "a call left with no record"
    );
    let health = ready(&stage);
    assert!(
        health.status == 503 && health.text().contains("journal"),
        "{}",
        health.text()
    );
    all_on_record(&stage, &journal::read(seen.as_ref()).unwrap());

    let enlarged = Command::new("nsenter")
        .args([
            "--mount",
            "--target",
            &sidecar.id().to_string(),
            "mount",
            "-o",
            "remount,size=1m",
        ])
        .arg(stage.path("journal"))
        .status()
        .unwrap();
    assert!(enlarged.success());
    until("calls go again", Duration::from_secs(3), || {
        get(&stage, "/c/again/1").status == 200
    })
    .unwrap();
    until("it is ready again", Duration::from_secs(3), || {
        ready(&stage).status == 200
    })
    .unwrap();
    let records = journal::read(seen.as_ref()).unwrap();
    let resumed = records
        .iter()
        .find(|record| record["event"] == "exeat.journal.resumed");
    assert!(
        resumed.expect("what was not recorded is told")["refused"]
            .as_u64()
            .unwrap()
            >= 20,
        "{resumed:?}"
    );
    all_on_record(&stage, &records);
}

#[test]
fn a_journal_at_its_limit_denies() {
    let stage = Stage::new(POLICY).unwrap();
    let sidecar = stage.start(&["--journal-max-bytes", "40000"]).unwrap();
    let answer = fill(&stage, "limit");
    assert_eq!(
        (answer.status, code(&answer).as_str()),
        (503, "journal_unavailable"),
        "{}",
        answer.text()
    );
    assert!(answer.text().contains("full"), "{}", answer.text());
    sidecar.stop().unwrap();
    let records = journal::read(&stage.journal()).unwrap();
    all_on_record(&stage, &records);
    let outcomes = records
        .iter()
        .filter(|record| record["event"] == "exeat.egress.outcome")
        .count();
    assert_eq!(
        outcomes,
        records.iter().filter(|record| is_allow(record)).count(),
        "each call has its end"
    );
    let length = fs::metadata(stage.journal()).unwrap().len();
    assert!(length <= 40_000, "{length}");
}

#[test]
fn a_journal_that_is_tampered_with_denies() {
    for (what, tamper) in [
        (
            "deleted",
            (|stage: &Stage| fs::remove_file(stage.journal()).unwrap()) as fn(&Stage),
        ),
        ("cut", |stage| {
            fs::OpenOptions::new()
                .write(true)
                .open(stage.journal())
                .unwrap()
                .set_len(10)
                .unwrap();
        }),
        ("written to", |stage| {
            use std::io::Write as _;
            exeat_tests::chaos::append(&stage.journal())
                .unwrap()
                .write_all(b"{}\n")
                .unwrap();
        }),
    ] {
        let stage = Stage::new(POLICY).unwrap();
        let sidecar = stage.start(&[]).unwrap();
        assert_eq!(get(&stage, "/c/before").status, 200);
        until("its outcome is written", Duration::from_secs(2), || {
            journal::read(&stage.journal()).unwrap().len() == 3
        })
        .unwrap();
        tamper(&stage);
        let answer = get(&stage, "/c/after");
        assert_eq!(
            (answer.status, code(&answer).as_str()),
            (503, "journal_unavailable"),
            "{what}: {}",
            answer.text()
        );
        assert!(
            stage.world.upstream().requests_to("/c/after").is_empty(),
            "{what}"
        );
        drop(sidecar);
    }
}

#[test]
fn a_collector_that_is_away_stops_nothing() {
    let stage = Stage::new(POLICY).unwrap();
    for collector in [
        "http://10.77.0.1:9",
        "http://collector.invalid:4318/v1/logs",
    ] {
        let sidecar = stage.start(&["--otlp", collector]).unwrap();
        for call in 0..20 {
            let begun = Instant::now();
            assert_eq!(get(&stage, &format!("/c/{call}")).status, 200);
            assert!(begun.elapsed() < Duration::from_secs(1));
        }
        assert_eq!(ready(&stage).status, 200);
        sidecar.says("can't export records").unwrap();
        let begun = Instant::now();
        assert!(sidecar.stop().unwrap().success());
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "stopping took {:?}",
            begun.elapsed()
        );
    }
    let records = journal::read(&stage.journal()).unwrap();
    let gaps = records
        .iter()
        .filter(|record| record["event"] == "exeat.export.gap")
        .count();
    assert!(gaps >= 2, "what was not sent is on record");
}

#[test]
fn a_credential_without_its_file_denies() {
    let with = POLICY
        .replace("scheme: http, ", "")
        .replace("\"/c/**\"]}", "\"/c/**\"]}\n    credential: api\n  credentials:\n  - {name: api, secret: {name: s, key: k}, inject: {bearer: {}}}");
    let stage = Stage::new(&with).unwrap();
    let missing = format!("api={}", stage.path("credentials/api").display());
    for flags in [vec![], vec!["--credential", &missing]] {
        let sidecar = stage.start(&flags).unwrap();
        let (to, authority) = (stage.world.tls(), stage.authority());
        let answer = stage.agent(|| {
            Client::tls(to, API, &authority)
                .unwrap()
                .get(API, "/c/1", "")
                .unwrap()
        });
        assert_eq!(
            (answer.status, code(&answer).as_str()),
            (503, "credential_unavailable"),
            "{}",
            answer.text()
        );
        assert!(answer.text().contains("api"), "{}", answer.text());
        drop(sidecar);
    }
    assert!(stage.world.upstream().requests().is_empty());
}

#[test]
fn a_stop_ends_idle_connections_and_tells_the_rest() {
    let stage = Stage::new(POLICY).unwrap();
    let sidecar: Sidecar = stage.start(&["--grace-seconds", "10"]).unwrap();
    let (world, proxy) = (stage.world.plain(), ([127, 0, 0, 1], 15002).into());
    // One that was used, one that was not, of each listener.
    let mut idle =
        stage.agent(|| [world, proxy, world, proxy].map(|to| Client::plain(to).unwrap()));
    assert_eq!(idle[0].get(API, "/c/1", "").unwrap().status, 200);
    let proxied = "GET http://api.exeat.test/c/2 HTTP/1.1\r\nhost: api.exeat.test\r\n\r\n";
    idle[1].send(proxied.as_bytes()).unwrap();
    assert_eq!(idle[1].answer().unwrap().status, 200);
    let begun = Instant::now();
    assert!(sidecar.stop().unwrap().success());
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "idle connections held it up for {:?}",
        begun.elapsed()
    );
    let records = journal::read(&stage.journal()).unwrap();
    let events = records
        .iter()
        .rev()
        .map(|record| record["event"].as_str().unwrap());
    let last: Vec<_> = events.take(2).collect();
    assert_eq!(last, ["exeat.audit.checkpoint", "exeat.journal.closed"]);
}

// === the other programs ===

fn ran(program_name: &str, words: &[&str]) -> Said {
    let output: Output = Command::new(program(program_name).unwrap())
        .args(words)
        .output()
        .unwrap();
    let both = [output.stdout, output.stderr].concat();
    Said {
        status: output.status,
        text: String::from_utf8_lossy(&both).into_owned(),
    }
}

#[test]
fn run_and_check_say_what_is_wrong_with_a_policy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    let (path, audit) = (file.to_str().unwrap(), folder.path().join("journal.jsonl"));
    let audit = audit.to_str().unwrap();
    let case = |what: &str, words: &[&str]| {
        let run = ran(
            "exeat",
            &["run", "--policy", path, "--audit", audit, "--", "true"],
        );
        told(what, &run, 125, words);
        let check = ran("exeat", &["policy", "check", path]);
        told(what, &check, 1, words);
    };
    for (what, from, to, words) in BAD_POLICIES {
        fs::write(&file, POLICY.replacen(from, to, 1)).unwrap();
        case(what, words);
    }
    fs::write(&file, b"spec: \xff").unwrap();
    case("no text", &[path, "UTF-8"]);
    fs::remove_file(&file).unwrap();
    case("a missing policy", &[path, "No such file"]);
    fs::write(&file, POLICY).unwrap();
    for (what, more, words) in [
        (
            "a missing credential",
            vec!["--credential", "api=/nowhere/at/all"],
            &["/nowhere/at/all"][..],
        ),
        ("a credential", vec!["--credential", "api"], &["NAME=FILE"]),
        (
            "missing roots",
            vec!["--upstream-ca", "/nowhere/ca.pem"],
            &["/nowhere/ca.pem"],
        ),
        ("a bad address", vec!["--resolve", "a=b"], &["a=b"]),
        ("an unknown flag", vec!["--polcy", "x"], &["--polcy"]),
    ] {
        let mut all = vec!["run", "--policy", path, "--audit", audit];
        all.extend(more);
        all.extend(["--", "true"]);
        told(what, &ran("exeat", &all), 125, words);
    }
    let unwritable = [
        "run",
        "--policy",
        path,
        "--audit",
        "/nowhere/journal",
        "--",
        "true",
    ];
    told(
        "nowhere to write",
        &ran("exeat", &unwritable),
        125,
        &["/nowhere/journal"],
    );
}

#[test]
fn init_says_what_is_wrong() {
    let namespace = Namespace::new().unwrap();
    let init = program("exeat-init").unwrap();
    let run = |persona: Persona, path: &str, words: &[&str]| {
        let output = namespace
            .run(persona, || {
                Command::new(&init)
                    .args(words)
                    .env("PATH", path)
                    .output()
                    .unwrap()
            })
            .unwrap();
        let both = [output.stdout, output.stderr].concat();
        Said {
            status: output.status,
            text: String::from_utf8_lossy(&both).into_owned(),
        }
    };
    let path = "/usr/sbin:/usr/bin:/sbin:/bin";
    for (what, words, told_words) in [
        ("root as the gate", &["apply", "--uid", "0"][..], &["0"][..]),
        ("one port twice", &["apply", "--port", "15053"], &["15053"]),
        (
            "an unknown backend",
            &["apply", "--backend", "ebtables"],
            &["ebtables"],
        ),
        ("an unknown flag", &["apply", "--prot", "1"], &["--prot"]),
        ("no command", &[], &["apply", "verify", "clean"]),
    ] {
        told(what, &run(Persona::Root, path, words), 64, told_words);
    }
    told(
        "no capability",
        &run(Persona::Agent, path, &["apply"]),
        77,
        &["NET_ADMIN"],
    );
    // Where the programs are is not taken from the environment alone, so this is either found or told.
    let bare = run(Persona::Root, "/nonexistent", &["apply"]);
    assert!(!bare.text.contains("panicked"), "{}", bare.text);
    let nothing = run(Persona::Root, path, &["clean"]);
    assert!(nothing.status.success(), "{}", nothing.text);
    told(
        "nothing there",
        &run(Persona::Root, path, &["verify"]),
        84,
        &["hint"],
    );
}
