//! What the gate leaves behind: answers, logs, records, metrics, `/proc`, core dumps.

use std::{
    fs,
    io::Read as _,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use exeat_tests::{
    chaos::{API, Sidecar, Stage, client::Client, journal, until},
    gate::http2,
};
use nix::sys::signal::Signal;

use super::support::{CREDENTIALS, SECRET, USER, assert_absent, exercise, get, stage};

#[test]
fn a_secret_is_nowhere_but_in_its_request() {
    let collector = "http://10.77.0.1:80/v1/logs";
    let (stage, mut sidecar) = stage(&[
        "--otlp",
        collector,
        "--resolve",
        "untrusted.exeat.test=10.77.0.1",
    ]);
    let answers = exercise(&stage);
    over_http2(&stage);
    // It did arrive where it belongs, or nothing of this is a test.
    let upstream = stage.world.upstream();
    let one = |path: &str| upstream.requests_to(path).into_iter().next().unwrap();
    let basic = BASE64_STANDARD.encode(format!("{USER}:{SECRET}"));
    assert_eq!(
        one("/reports/bearer").header("authorization"),
        Some(&*format!("Bearer {SECRET}"))
    );
    assert_eq!(
        one("/reports/basic").header("authorization"),
        Some(&*format!("Basic {basic}"))
    );
    assert_eq!(
        one("/comments/header").header("x-special"),
        Some(&*format!("key {SECRET}"))
    );
    assert_eq!(
        one("/comments/query").query.as_deref(),
        Some("a=b&key=qzvunmatched7Wjx%2B%2FTq")
    );

    for (what, answer) in &answers {
        assert_absent(what, answer.head.as_bytes());
        assert_absent(what, &answer.body);
    }
    not_in_proc(&stage, &sidecar);
    // What is exported follows within its interval.
    until("records are exported", Duration::from_secs(10), || {
        !upstream.requests_to("/v1/logs").is_empty()
    })
    .unwrap();
    sidecar.signal(Signal::SIGTERM).unwrap();
    sidecar.ended(Duration::from_secs(30)).unwrap();
    for export in upstream.requests_to("/v1/logs") {
        assert_absent("what is exported", &export.body);
        assert!(!export.mentions(SECRET), "{export:?}");
    }
    let log = sidecar.log();
    assert!(
        log.contains("TRACE"),
        "the log is not at its most talkative"
    );
    assert_absent("the log", log.as_bytes());
    let journal = fs::read(stage.journal()).unwrap();
    assert!(journal::read(&stage.journal()).unwrap().len() > 20);
    assert_absent("the journal", &journal);
    for name in ["public", "journal"] {
        for entry in fs::read_dir(stage.path(name)).unwrap() {
            let path = entry.unwrap().path();
            assert_absent(&path.display().to_string(), &fs::read(&path).unwrap());
        }
    }
}

/// One call over HTTP/2 on both sides, where other code writes the fields.
fn over_http2(stage: &Stage) {
    let (to, authority) = (stage.world.tls(), stage.authority());
    let arrived = || {
        stage
            .world
            .upstream()
            .requests_to("/reports/bearer/h2")
            .len()
    };
    stage.agent(|| {
        let mut client = Client::tls_with(to, API, &authority, &[b"h2"]).unwrap();
        client.send(&http2::opening()).unwrap();
        client
            .send(&http2::request(1, &http2::get(API, "/reports/bearer/h2")))
            .unwrap();
        until("it arrives over HTTP/2", Duration::from_secs(10), || {
            arrived() == 1
        })
        .unwrap();
    });
    let request = stage
        .world
        .upstream()
        .requests_to("/reports/bearer/h2")
        .remove(0);
    assert_eq!(request.version, "HTTP/2.0");
    assert_eq!(
        request.header("authorization"),
        Some(&*format!("Bearer {SECRET}"))
    );
}

/// Neither another user nor the gate's own can look into the process, though they see it here.
fn not_in_proc(stage: &Stage, sidecar: &Sidecar) {
    let proc = PathBuf::from(format!("/proc/{}", sidecar.id()));
    let closed = [
        "environ", "maps", "smaps", "mem", "stack", "syscall", "auxv", "io", "fd", "root", "cwd",
        "exe",
    ];
    let open = ["cmdline", "status", "comm", "stat", "statm", "limits"];
    stage.agent(|| {
        for name in closed {
            let path = proc.join(name);
            let read = match name {
                "fd" => fs::read_dir(&path).map(drop),
                "root" | "cwd" | "exe" => fs::read_link(&path).map(drop),
                _ => fs::File::open(&path)
                    .and_then(|mut file| file.read(&mut [0; 16]))
                    .map(drop),
            };
            assert!(read.is_err(), "the agent can read {}", path.display());
        }
        for name in open {
            if let Ok(bytes) = fs::read(proc.join(name)) {
                assert_absent(name, &bytes);
            }
        }
        for name in CREDENTIALS {
            assert!(fs::read(stage.path("credentials").join(name)).is_err());
        }
    });
    // Whoever gets to run as the gate's user is not in its memory yet.
    let mem = proc.join("mem");
    let same_user = std::process::Command::new("setpriv")
        .args([
            "--reuid",
            "64100",
            "--regid",
            "64100",
            "--clear-groups",
            "--bounding-set=-all",
            "head",
            "-c",
            "1",
        ])
        .arg(&mem)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&same_user.stderr).into_owned();
    assert!(
        !same_user.status.success() && said.contains("Permission denied"),
        "{said}"
    );
    // This process's own environment is as empty as the gate's is: it takes nothing from there.
    let environment = fs::read(proc.join("environ")).unwrap();
    assert_absent("the gate's environment", &environment);
}

#[test]
fn a_killed_sidecar_leaves_no_core_dump() {
    // As generous as a machine can be.
    let unlimited = nix::libc::RLIM_INFINITY;
    nix::sys::resource::setrlimit(
        nix::sys::resource::Resource::RLIMIT_CORE,
        unlimited,
        unlimited,
    )
    .unwrap();
    for signal in [
        Signal::SIGSEGV,
        Signal::SIGABRT,
        Signal::SIGQUIT,
        Signal::SIGBUS,
    ] {
        let (stage, mut sidecar) = stage(&[]);
        assert_eq!(get(&stage, API, 443, "/reports/bearer/1", "").status, 200);
        let limits = fs::read_to_string(format!("/proc/{}/limits", sidecar.id())).unwrap();
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .unwrap();
        let words: Vec<_> = core.split_ascii_whitespace().collect();
        assert_eq!(words[4..6], ["0", "0"], "{core}");
        let before = listing(&stage.path("work"));
        // Rust's own handler takes the first of some of them for a stack overflow's, and steps aside.
        until("it dies of it", Duration::from_secs(10), || {
            drop(sidecar.signal(signal));
            sidecar.ended(Duration::from_millis(50)).is_ok()
        })
        .unwrap();
        let status = sidecar.ended(Duration::from_secs(10)).unwrap();
        assert_eq!(status.signal(), Some(signal as i32), "{status}");
        assert!(!status.core_dumped(), "{signal} left a core dump");
        assert_eq!(listing(&stage.path("work")), before);
    }
}

fn listing(path: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    all.sort();
    all
}
