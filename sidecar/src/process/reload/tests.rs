#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use exeat_policy::Host;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

fn policy(hosts: &str) -> String {
    format!(
        "apiVersion: exeat.dev/v1alpha1\nkind: ToolPolicy\nmetadata: {{name: p}}\nspec:\n  \
         tools:\n  - name: a\n    http: {{hosts: [{hosts}], paths: [\"/**\"]}}\n"
    )
}

const BAD: &str =
    "apiVersion: exeat.dev/v1alpha1\nkind: ToolPolicy\nmetadata: {name: p}\nspec:\n  hots: []\n";

fn resolves(policies: &Policies, name: &str) -> bool {
    policies.current().resolves(&Host::parse(name).unwrap())
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

/// As kubelet: a new folder, a link to it made aside, and one rename over `..data`.
fn swap(at: &Path, version: &str, files: &[(&str, &str)]) {
    fs::create_dir(at.join(version)).unwrap();
    for (name, text) in files {
        fs::write(at.join(version).join(name), text).unwrap();
        let link = at.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(format!("..data/{name}"), link).unwrap();
        }
    }
    symlink(version, at.join("..data_tmp")).unwrap();
    fs::rename(at.join("..data_tmp"), at.join("..data")).unwrap();
}

fn directory(at: &Path) -> Arc<Policies> {
    Policies::open(
        &PolicySource::Directory(at.to_owned()),
        Labels::default(),
        None,
    )
    .unwrap()
}

#[tokio::test]
async fn kubelets_swaps_are_followed_one_generation_each() {
    let dir = tempfile::tempdir().unwrap();
    swap(dir.path(), "..1", &[("p.yaml", &policy("one.example"))]);
    let policies = directory(dir.path());
    assert_eq!(policies.current().generation(), 1);
    assert!(resolves(&policies, "one.example"));
    let _watch = policies.watch();
    let mut changed = policies.changed();
    for (n, host) in [
        (2, "two.example"),
        (3, "three.example"),
        (4, "four.example"),
    ] {
        swap(dir.path(), &format!("..{n}"), &[("p.yaml", &policy(host))]);
        tokio::time::timeout(Duration::from_secs(5), changed.changed())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(*changed.borrow(), n);
        assert_eq!(policies.current().generation(), n);
        assert!(resolves(&policies, host) && !resolves(&policies, "one.example"));
        fs::remove_dir_all(dir.path().join(format!("..{}", n - 1))).unwrap();
    }
    assert_eq!(policies.status().state, PolicyState::Enforcing);
}

#[tokio::test]
async fn a_malformed_policy_keeps_the_last_good_one_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    swap(dir.path(), "..1", &[("p.yaml", &policy("one.example"))]);
    let policies = directory(dir.path());
    swap(dir.path(), "..2", &[("p.yaml", BAD)]);
    policies.look();
    let status = policies.status();
    assert_eq!(status.generation, 1);
    assert!(resolves(&policies, "one.example"));
    let PolicyState::KeptLastGood(problem) = status.state else {
        panic!("{status}");
    };
    assert!(problem.contains("hots"), "{problem}");

    // Undone: the same policy goes on under the same generation, and the status is clean.
    swap(dir.path(), "..3", &[("p.yaml", &policy("one.example"))]);
    policies.look();
    assert_eq!(policies.status().state, PolicyState::Enforcing);
    assert_eq!(policies.current().generation(), 1);
}

#[test]
fn no_policy_denies_and_a_later_one_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let policies = directory(dir.path());
    assert!(matches!(policies.status().state, PolicyState::DenyAll(_)));
    assert_eq!(policies.current().generation(), 1);
    fs::write(dir.path().join("p.yaml"), policy("one.example")).unwrap();
    policies.look();
    assert!(resolves(&policies, "one.example"));
    for emptied in ["", " \n"] {
        fs::write(dir.path().join("p.yaml"), emptied).unwrap();
        policies.look();
        assert!(!resolves(&policies, "one.example"));
        fs::write(dir.path().join("p.yaml"), policy("one.example")).unwrap();
        policies.look();
        assert!(resolves(&policies, "one.example"));
    }
    fs::remove_file(dir.path().join("p.yaml")).unwrap();
    policies.look();
    assert!(!resolves(&policies, "one.example"));
    assert!(matches!(policies.status().state, PolicyState::DenyAll(_)));
    let generation = policies.current().generation();
    policies.look();
    assert_eq!(policies.current().generation(), generation);

    // Malformed after deleted: what stays in force is the denial.
    fs::write(dir.path().join("p.yaml"), BAD).unwrap();
    policies.look();
    assert!(!resolves(&policies, "one.example"));
}

#[test]
fn a_folder_that_is_malformed_from_the_start_denies() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("p.yaml"), BAD).unwrap();
    let policies = directory(dir.path());
    assert!(matches!(
        policies.status().state,
        PolicyState::KeptLastGood(_)
    ));
    assert!(!resolves(&policies, "one.example"));
}

#[test]
fn named_files_must_be_there_and_compile() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.yaml");
    let open = || {
        Policies::open(
            &PolicySource::Files(vec![file.clone()]),
            Labels::default(),
            None,
        )
    };
    let missing = open().err().unwrap().to_string();
    assert!(
        missing.contains("p.yaml") && missing.contains("not exist"),
        "{missing}"
    );
    fs::write(&file, BAD).unwrap();
    let invalid = open().err().unwrap().to_string();
    assert!(invalid.contains("hots"), "{invalid}");
    fs::write(&file, [0xff, 0xfe]).unwrap();
    let binary = open().err().unwrap().to_string();
    assert!(binary.contains("UTF-8"), "{binary}");
    fs::write(&file, policy("one.example")).unwrap();
    assert!(open().is_ok());
}

#[tokio::test]
async fn a_file_replaced_by_rename_is_followed_and_a_folder_swapped_above_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("p.yaml");
    fs::write(&file, policy("one.example")).unwrap();
    let source = PolicySource::Files(vec![file.clone()]);
    let policies = Policies::open(&source, Labels::default(), None).unwrap();
    let _watch = policies.watch();
    for host in ["two.example", "three.example"] {
        fs::write(folder.join("p.yaml.new"), policy(host)).unwrap();
        fs::rename(folder.join("p.yaml.new"), &file).unwrap();
        until(|| resolves(&policies, host)).await;
    }

    fs::rename(&folder, dir.path().join("away")).unwrap();
    fs::create_dir(&folder).unwrap();
    fs::write(&file, policy("forged.example")).unwrap();
    policies.look();
    assert!(resolves(&policies, "three.example") && !resolves(&policies, "forged.example"));
    fs::write(dir.path().join("away/p.yaml"), policy("four.example")).unwrap();
    until(|| resolves(&policies, "four.example")).await;
}

#[test]
fn of_several_files_one_gone_is_all_denied() {
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<_> = ["a.yaml", "b.yaml"]
        .map(|name| dir.path().join(name))
        .into();
    let named = |name: &str, host| policy(host).replace("name: p}", &format!("name: {name}}}"));
    fs::write(&files[0], named("one", "one.example")).unwrap();
    fs::write(&files[1], named("two", "two.example")).unwrap();
    let policies =
        Policies::open(&PolicySource::Files(files.clone()), Labels::default(), None).unwrap();
    assert!(resolves(&policies, "one.example") && resolves(&policies, "two.example"));
    fs::remove_file(&files[1]).unwrap();
    policies.look();
    assert!(!resolves(&policies, "one.example"));
}

#[test]
fn labels_select_and_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    let selecting = policy("one.example").replace(
        "spec:\n",
        "spec:\n  podSelector: {matchLabels: {app: research}}\n",
    );
    fs::write(dir.path().join("p.yaml"), selecting).unwrap();
    let file = dir.path().join("labels");
    let source = PolicySource::Directory(dir.path().to_owned());
    let labels = Labels {
        given: None,
        file: Some(file.clone()),
    };
    let policies = Policies::open(&source, labels, None).unwrap();
    assert!(!resolves(&policies, "one.example"), "no labels yet");
    fs::write(&file, "app=\"research\"\n").unwrap();
    policies.look();
    assert!(resolves(&policies, "one.example"));
    fs::write(&file, "app=research\n").unwrap();
    policies.look();
    assert!(
        resolves(&policies, "one.example"),
        "a bad labels file changes nothing"
    );
    assert!(matches!(
        policies.status().state,
        PolicyState::KeptLastGood(_)
    ));
    fs::write(&file, "app=\"other\"\n").unwrap();
    policies.look();
    assert!(!resolves(&policies, "one.example"));
}

#[test]
fn other_files_of_a_folder_are_none_of_its_policies() {
    let dir = tempfile::tempdir().unwrap();
    for name in [".p.yaml.swp", "p.yaml~", "README.md", ".hidden.yaml"] {
        fs::write(dir.path().join(name), BAD).unwrap();
    }
    fs::write(dir.path().join("p.yml"), policy("one.example")).unwrap();
    assert!(resolves(&directory(dir.path()), "one.example"));
}

#[test]
fn a_policy_beyond_measure_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("p.yaml"), policy("one.example")).unwrap();
    let policies = directory(dir.path());
    let mut huge = policy("two.example");
    huge.push_str(&"# \n".repeat(1 << 19));
    fs::write(dir.path().join("p.yaml"), huge).unwrap();
    policies.look();
    assert!(resolves(&policies, "one.example"));
    let status = policies.status().to_string();
    assert!(status.contains("larger than"), "{status}");
}

/// As the operator writes it.
fn packed(generation: u64, host: &str) -> Vec<u8> {
    packed_for("agents", generation, host)
}

fn packed_for(namespace: &str, generation: u64, host: &str) -> Vec<u8> {
    use std::io::Write as _;
    let policy = serde_json::json!({
        "apiVersion": "exeat.dev/v1alpha1", "kind": "ToolPolicy",
        "metadata": {"name": "p", "namespace": namespace},
        "spec": {
            "podSelector": {"matchLabels": {"app": "x"}},
            "tools": [{"name": "a", "http": {"hosts": [host]}}],
        },
    });
    let bundle = Bundle::new(namespace, generation, vec![policy], Vec::new()).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&bundle.to_bytes()).unwrap();
    gzip.finish().unwrap()
}

fn swap_bundle(at: &Path, version: &str, bytes: &[u8]) {
    swap(at, version, &[]);
    fs::write(at.join(version).join("bundle.json.gz"), bytes).unwrap();
}

fn from_bundle(at: &Path) -> Arc<Policies> {
    let labels = Labels {
        given: Some(BTreeMap::from([("app".to_owned(), "x".to_owned())])),
        file: None,
    };
    Policies::open(
        &PolicySource::Directory(at.to_owned()),
        labels,
        Some("agents"),
    )
    .unwrap()
}

#[test]
fn an_older_bundle_is_refused_and_a_broken_one_keeps_the_last_good() {
    let dir = tempfile::tempdir().unwrap();
    swap_bundle(dir.path(), "..1", &packed(5, "five.example"));
    let policies = from_bundle(dir.path());
    let generation = |status: &PolicyStatus| status.bundle.as_ref().map(|b| b.generation);
    assert_eq!(policies.status().state, PolicyState::Enforcing);
    assert_eq!(generation(&policies.status()), Some(5));
    assert!(resolves(&policies, "five.example"));

    swap_bundle(dir.path(), "..2", &packed(4, "four.example"));
    policies.look();
    let PolicyState::KeptLastGood(problem) = policies.status().state else {
        panic!("{}", policies.status());
    };
    assert!(problem.contains("generation 4, older than 5"), "{problem}");
    assert!(resolves(&policies, "five.example") && !resolves(&policies, "four.example"));

    // A generation later with the same policies: nothing is swapped, and the status follows.
    swap_bundle(dir.path(), "..3", &packed(6, "five.example"));
    policies.look();
    assert_eq!(policies.status().state, PolicyState::Enforcing);
    assert_eq!(generation(&policies.status()), Some(6));
    assert_eq!(policies.current().generation(), 1);
    // Records name the bundle that is there now.
    assert_eq!(policies.current().bundle().map(|b| b.generation), Some(6));
    assert_eq!(policies.refused(), 1);

    let good = packed(7, "seven.example");
    let mut other = good.clone();
    other.truncate(good.len() / 2);
    let bomb = {
        use std::io::Write as _;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        for _ in 0..64 {
            gzip.write_all(&vec![b' '; 1 << 20]).unwrap();
        }
        gzip.finish().unwrap()
    };
    for (at, bad) in [other, bomb, b"no gzip".to_vec(), Vec::new()]
        .iter()
        .enumerate()
    {
        swap_bundle(dir.path(), &format!("..bad{at}"), bad);
        policies.look();
        let state = policies.status().state;
        assert!(
            matches!(state, PolicyState::KeptLastGood(_)),
            "{at}: {state:?}"
        );
        assert_eq!(generation(&policies.status()), Some(6));
        assert!(resolves(&policies, "five.example"));
    }

    swap(dir.path(), "..gone", &[]);
    policies.look();
    assert!(matches!(policies.status().state, PolicyState::DenyAll(_)));
    assert_eq!(policies.status().bundle, None);
    assert!(!resolves(&policies, "five.example"));
}

#[test]
fn a_bundle_of_elsewhere_or_another_of_the_same_generation_is_refused() {
    let kept = |policies: &Policies, what: &str| {
        let PolicyState::KeptLastGood(problem) = policies.status().state else {
            panic!("{}", policies.status());
        };
        assert!(problem.contains(what), "{problem}");
    };
    let dir = tempfile::tempdir().unwrap();
    let foreign = packed_for("others", 9, "foreign.example");
    swap_bundle(dir.path(), "..1", &foreign);
    let policies = from_bundle(dir.path());
    kept(&policies, "namespace `others`, and this pod is in `agents`");
    assert!(!resolves(&policies, "foreign.example"));

    swap_bundle(dir.path(), "..2", &packed(5, "five.example"));
    policies.look();
    assert_eq!(policies.status().state, PolicyState::Enforcing);
    let digest = policies.status().bundle.unwrap().digest;
    for (version, bytes, problem) in [
        ("..3", packed(5, "other.example"), "under generation 5"),
        ("..4", foreign, "namespace `others`"),
    ] {
        swap_bundle(dir.path(), version, &bytes);
        policies.look();
        kept(&policies, problem);
        let bundle = policies.status().bundle.unwrap();
        assert_eq!((bundle.generation, &bundle.digest), (5, &digest));
        assert!(resolves(&policies, "five.example"));
        assert!(!resolves(&policies, "other.example") && !resolves(&policies, "foreign.example"));
    }
    assert_eq!(policies.refused(), 3);
    swap_bundle(dir.path(), "..5", &packed(6, "other.example"));
    policies.look();
    assert_eq!(policies.status().state, PolicyState::Enforcing);
    assert!(resolves(&policies, "other.example"));
}

#[tokio::test]
async fn a_claims_label_selects_a_policy_within_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let info = tempfile::tempdir().unwrap();
    swap_bundle(dir.path(), "..1", &packed(1, "claimed.example"));
    swap(info.path(), "..1", &[("labels", "pool=\"warm\"")]);
    let labels = Labels {
        given: None,
        file: Some(info.path().join("labels")),
    };
    let source = PolicySource::Directory(dir.path().to_owned());
    let policies = Policies::open(&source, labels, None).unwrap();
    assert!(policies.current().policies().is_empty());
    let _watch = policies.watch();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let changed = std::time::Instant::now();
    swap(
        info.path(),
        "..2",
        &[("labels", "pool=\"warm\"\napp=\"x\"")],
    );
    until(|| resolves(&policies, "claimed.example")).await;
    assert!(
        changed.elapsed() < Duration::from_secs(1),
        "{:?}",
        changed.elapsed()
    );
    assert_eq!(policies.current().generation(), 2);
}
