//! Who could show one: a command under `exeat run`, and whatever can be printed.

use std::{collections::BTreeMap, fs};

use base64::{Engine as _, prelude::BASE64_URL_SAFE};
use exeat_sidecar::upstream::credential::Credentials;
use exeat_tests::{chaos::API, governed::Governed, upstream::Upstream};

use super::support::{CREDENTIALS, POLICY, SECRET, assert_absent, assert_not_in};

/// Under `exeat run`, the command has the gate's own user.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_finds_no_secret_around_itself() {
    // Not to be found in any source or leftover on this machine.
    let tail = BASE64_URL_SAFE
        .encode(std::process::id().to_ne_bytes())
        .replace('=', "");
    let secret = format!("qzv{tail}Wjx");
    // What is looked for on a command line without being on that command line.
    let pattern = format!("[q]zv{tail}Wjx");
    let upstream = Upstream::start().await.unwrap();
    let policy = POLICY.replace("10.77.0.0/24", "127.0.0.0/8").replace(
        "hosts: [api.exeat.test]",
        &format!(
            "hosts: [api.exeat.test], ports: [{}]",
            upstream.tls().port()
        ),
    );
    let mut governed = Governed::new(&policy, &upstream)
        .unwrap()
        .resolve(API, "127.0.0.1");
    for name in CREDENTIALS {
        governed = governed.credential(name, &secret).unwrap();
    }
    let credentials = governed.home().parent().unwrap().to_owned();
    let script = format!(
        "echo called $(curl -sS -o /dev/null -w '%{{http_code}}' https://{API}:{}/reports/bearer/1)
         env | grep -c '{pattern}'
         cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | grep -a -c '{pattern}'
         grep -a -r -l '{pattern}' '{}' /tmp /run /dev/shm \"$HOME\" 2>/dev/null | grep -v '^/proc' | sed 's/^/FOUND /'
         for p in /proc/[0-9]*; do head -c 1 $p/mem 2>/dev/null; done
         echo looked",
        upstream.tls().port(),
        credentials.display(),
    );
    let ran = governed.run(&["sh", "-c", &script]).await.unwrap();
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert_eq!(lines, ["called 200", "0", "0", "looked"], "{ran:#?}");
    let request = upstream.requests().remove(0);
    assert_eq!(
        request.header("authorization"),
        Some(&*format!("Bearer {secret}"))
    );
    assert_not_in("what the gate said", ran.stderr.as_bytes(), &secret);
    assert_not_in(
        "the journal",
        &fs::read(governed.journal()).unwrap(),
        &secret,
    );
}

#[test]
fn nothing_that_holds_a_secret_can_be_printed() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| fs::write(folder.path().join(name), content).unwrap();
    file("good", SECRET);
    file("lines", &format!("{SECRET}\n{SECRET}"));
    file("control", &format!("{SECRET}\u{1}"));
    file("large", &SECRET.repeat(10_000));
    let files = BTreeMap::from([("single".to_owned(), folder.path().join("good"))]);
    let credentials = Credentials::new(Some(folder.path().to_owned()), files).unwrap();
    let mut printed = Vec::new();
    for name in ["good", "single"] {
        let secret = credentials.get(name).unwrap();
        assert_eq!(secret.expose(), SECRET);
        printed.push(format!("{secret:?} {secret:#?}"));
    }
    for name in ["lines", "control", "large", "absent"] {
        let error = credentials.get(name).unwrap_err();
        printed.push(format!("{error} {error:?} {error:#?}"));
    }
    printed.push(format!("{:?}", credentials.problems()));
    assert_absent("a printed form", printed.join("\n").as_bytes());
}
