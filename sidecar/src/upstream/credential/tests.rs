#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

/// A volume as kubelet lays it out: `..data` leads to the folder of one version.
struct Volume(tempfile::TempDir);

impl Volume {
    fn new(secrets: &[(&str, &str)]) -> Self {
        let volume = Self(tempfile::tempdir().unwrap());
        volume.swap("..1", secrets);
        for (name, _) in secrets {
            symlink(format!("..data/{name}"), volume.0.path().join(name)).unwrap();
        }
        volume
    }

    fn swap(&self, version: &str, secrets: &[(&str, &str)]) {
        let at = self.0.path();
        fs::create_dir(at.join(version)).unwrap();
        for (name, value) in secrets {
            fs::write(at.join(version).join(name), value).unwrap();
        }
        symlink(version, at.join("..data_tmp")).unwrap();
        fs::rename(at.join("..data_tmp"), at.join("..data")).unwrap();
    }

    fn open(&self) -> Arc<Credentials> {
        let dir = Some(self.0.path().to_owned());
        Arc::new(Credentials::new(dir, BTreeMap::new()).unwrap())
    }
}

async fn until(what: impl Fn() -> bool) {
    for _ in 0..500 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come true");
}

#[test]
fn a_folder_holds_a_secret_by_name() {
    let volume = Volume::new(&[("github", "ghp_one\n"), ("openai", "sk-two")]);
    let credentials = volume.open();
    assert_eq!(credentials.get("github").unwrap().expose(), "ghp_one");
    assert_eq!(credentials.get("openai").unwrap().expose(), "sk-two");
    for name in ["", "none", "..data", "../github", ".", "..data/github"] {
        let error = credentials.get(name).unwrap_err();
        assert!(
            matches!(error, CredentialError::Unknown { .. }),
            "{name}: {error}"
        );
    }
}

#[tokio::test]
async fn a_swap_gives_the_new_value_and_a_new_version() {
    let volume = Volume::new(&[("github", "one"), ("same", "s")]);
    let credentials = volume.open();
    let _watch = credentials.watch();
    let (old, same) = (
        credentials.get("github").unwrap(),
        credentials.get("same").unwrap(),
    );
    volume.swap("..2", &[("github", "two"), ("same", "s")]);
    until(|| {
        credentials
            .get("github")
            .is_ok_and(|new| new.expose() == "two")
    })
    .await;
    assert_ne!(credentials.get("github").unwrap().version(), old.version());
    assert_eq!(credentials.get("same").unwrap().version(), same.version());
    assert_eq!(old.expose(), "one");

    // Deleted: the next request is denied.
    volume.swap("..3", &[("same", "s")]);
    until(|| credentials.get("github").is_err()).await;
}

#[tokio::test]
async fn a_named_file_is_followed_through_an_editors_rename() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, "one\r\n").unwrap();
    let files = BTreeMap::from([("gh".to_owned(), file.clone())]);
    let credentials = Arc::new(Credentials::new(None, files).unwrap());
    let _watch = credentials.watch();
    assert_eq!(credentials.get("gh").unwrap().expose(), "one");
    fs::write(dir.path().join("new"), "two").unwrap();
    fs::rename(dir.path().join("new"), &file).unwrap();
    until(|| credentials.get("gh").is_ok_and(|new| new.expose() == "two")).await;
    fs::remove_file(&file).unwrap();
    until(|| credentials.get("gh").is_err()).await;
}

#[test]
fn what_is_no_secret_is_refused_by_the_files_name_alone() {
    let large = "kanarie".repeat(MAX_SECRET_BYTES);
    let volume = Volume::new(&[
        ("empty", ""),
        ("newline", "\n\n"),
        ("lines", "kanarie\nkanarie"),
        ("nul", "kanarie\0"),
        ("tab", "kan\tarie"),
        ("space", " kanarie"),
        ("large", &large),
    ]);
    let binary = volume.0.path().join("..1/binary");
    fs::write(binary, [b'k', b'a', b'n', 0xff]).unwrap();
    let credentials = volume.open();
    for name in [
        "empty", "newline", "lines", "nul", "tab", "space", "large", "binary",
    ] {
        let error = credentials.get(name).unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(told.contains(name), "{told}");
        assert!(!told.contains("kan"), "{told}");
    }
    assert_eq!(credentials.problems().len(), 8);
}

#[test]
fn a_secret_has_no_printable_form() {
    let volume = Volume::new(&[("github", "kanarie")]);
    let secret = volume.open().get("github").unwrap();
    assert!(!format!("{secret:?} {secret:#?}").contains("kanarie"));
}

#[test]
fn a_link_out_of_the_folder_is_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), "stolen").unwrap();
    let dir = tempfile::tempdir().unwrap();
    symlink(outside.path().join("file"), dir.path().join("github")).unwrap();
    let dir = Some(dir.path().to_owned());
    let credentials = Credentials::new(dir, BTreeMap::new()).unwrap();
    assert!(credentials.get("github").is_err());
}

#[test]
fn a_missing_folder_or_file_is_told_at_once() {
    let nowhere = PathBuf::from("/nonexistent/credentials");
    let error = Credentials::new(Some(nowhere.clone()), BTreeMap::new())
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("/nonexistent/credentials"),
        "{error}"
    );
    let files = BTreeMap::from([("gh".to_owned(), nowhere)]);
    let error = Credentials::new(None, files).err().unwrap();
    assert!(error.to_string().contains("`gh`"), "{error}");
}

/// As a policy has it, with its secret in the key `token` of the Secret `s`.
fn credential(name: &str) -> Credential {
    Credential {
        name: name.into(),
        secret: exeat_policy::SecretRef {
            name: "s".into(),
            key: "token".into(),
        },
        inject: exeat_policy::Inject::Bearer,
    }
}

fn host(name: &str) -> Host {
    Host::parse(name).unwrap()
}

#[test]
fn a_secret_is_used_for_what_the_operator_says_and_nothing_else() {
    let sources = |secret: &str, hosts: &str| {
        format!("{{\"p.a\":{{\"secret\":\"{secret}\",\"key\":\"token\",\"hosts\":\"{hosts}\"}}}}")
    };
    let (right, open) = (sources("s", "api.example"), ("p.a", "1"));
    let volume = Volume::new(&[open, ("a", "alone"), ("sources", &right)]);
    let credentials = volume.open();
    let ask = |policy: &str, name: &str, to: &str| {
        credentials
            .of(policy, &credential(name), &host(to))
            .map(|secret| secret.expose().to_owned())
            .map_err(|error| error.to_string())
    };
    assert_eq!(ask("agents/p", "a", "api.example").unwrap(), "1");
    let refused = ask("p", "a", "evil.example").unwrap_err();
    assert!(
        refused.contains("does not consent to evil.example"),
        "{refused}"
    );
    // Beside what the operator gave, a bare name is nobody's word.
    let refused = ask("q", "a", "api.example").unwrap_err();
    assert!(refused.contains("has not given"), "{refused}");
    // What it says is no secret itself.
    assert!(ask("p", "sources", "api.example").is_err());
    assert!(credentials.get("sources").is_err());

    volume.swap(
        "..2",
        &[open, ("sources", &sources("other", "api.example"))],
    );
    credentials.reload();
    let refused = ask("p", "a", "api.example").unwrap_err();
    assert!(
        refused.contains("Secret `other`") && refused.contains("Secret `s`"),
        "{refused}"
    );
    for bad in ["", "no", "{\"p.a\":{}}"] {
        volume.swap(&format!("..{}", bad.len() + 3), &[open, ("sources", bad)]);
        credentials.reload();
        let refused = ask("p", "a", "api.example").unwrap_err();
        assert!(refused.contains("sources"), "{refused}");
        assert_eq!(credentials.problems().len(), 1);
    }

    // Without a word of the operator's the folder is filled by hand, as ever.
    volume.swap("..20", &[open, ("a", "alone")]);
    credentials.reload();
    assert_eq!(ask("p", "a", "evil.example").unwrap(), "1");
    assert_eq!(ask("q", "a", "evil.example").unwrap(), "alone");
}

#[test]
fn a_file_that_was_named_needs_nobodys_word() {
    let volume = Volume::new(&[("a", "folder"), ("sources", "{}")]);
    let named = tempfile::tempdir().unwrap();
    fs::write(named.path().join("a"), "named").unwrap();
    let files = BTreeMap::from([("a".to_owned(), named.path().join("a"))]);
    let credentials = Credentials::new(Some(volume.0.path().to_owned()), files).unwrap();
    let secret = credentials.of("p", &credential("a"), &host("any.example"));
    assert_eq!(secret.unwrap().expose(), "named");
}

#[tokio::test]
async fn two_policies_do_not_share_a_name_and_a_late_secret_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let credentials =
        Arc::new(Credentials::new(Some(dir.path().to_owned()), BTreeMap::new()).unwrap());
    let _watch = credentials.watch();
    let of =
        |policy: &str, name: &str| credentials.of(policy, &credential(name), &host("x.example"));
    assert!(of("agents/one", "token").is_err());

    // As kubelet fills an optional volume whose Secret came late.
    fs::create_dir(dir.path().join("..1")).unwrap();
    for (name, value) in [
        ("one.token", "1"),
        ("a.two.token", "2"),
        ("status-key", "no"),
    ] {
        fs::write(dir.path().join("..1").join(name), value).unwrap();
    }
    symlink("..1", dir.path().join("..data_tmp")).unwrap();
    fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    until(|| of("agents/one", "token").is_ok()).await;
    assert_eq!(of("agents/one", "token").unwrap().expose(), "1");
    assert_eq!(of("agents/a.two", "token").unwrap().expose(), "2");
    for (policy, name) in [("two", "token"), ("a", "two.token2"), ("one", "status-key")] {
        assert!(of(policy, name).is_err(), "{policy} {name}");
    }
}
