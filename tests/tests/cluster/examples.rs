//! The examples for a cluster, applied as their READMEs say where Exeat is installed, and driven from
//! inside their pods by the agents' own programs.
//!
//! What differs from what a reader applies: images, `example.com`, and where its addresses are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use exeat_tests::cluster::{Agent, Cluster, cluster, eventually};
use serde_json::Value;

use super::support::MINUTE;

/// A file of an example, for this node.
fn text(cluster: &Cluster, namespace: &str, example: &str, file: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let path = root.join("examples").join(example).join(file);
    let text = fs::read_to_string(path).unwrap();
    let text = text
        .replace("example.com", "upstream.test")
        .replace("[10.0.0.0/8]", "[203.0.113.0/24, \"fd00:203::/64\"]")
        .replace("/acme/", "/git/acme/")
        .replace("diagnostics", namespace);
    let mut lines = Vec::new();
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        if line.trim_start().starts_with("image: ") {
            let indent = " ".repeat(indent);
            let image = cluster.images.reference("test-agent");
            lines.push(format!("{indent}image: {image}"));
            lines.push(format!("{indent}imagePullPolicy: Never"));
        } else {
            lines.push(line.to_owned());
        }
    }
    lines.join("\n")
}

fn apply(cluster: &Cluster, namespace: &str, example: &str, files: &[&str]) {
    for file in files {
        let text = text(cluster, namespace, example, file);
        let words = ["apply", "--validate=strict", "-n", namespace, "-f", "-"];
        let done = cluster.kubectl.fed(&words, &text);
        assert!(done.is_ok(), "{example}/{file}: {done:?}");
    }
}

/// The one pod with this label, ready, and with a gate that admission put in.
fn pod<'a>(cluster: &'a Cluster, namespace: &str, label: &str) -> Agent<'a> {
    let (name, _) = eventually("a pod of the example", MINUTE, || {
        let pods = cluster
            .kubectl
            .get(&["pods", "-n", namespace, "-l", label])?;
        let name = pods["items"][0]["metadata"]["name"].as_str();
        Ok(name.context("there is none")?.to_owned())
    })
    .unwrap();
    let agent = Agent::of(cluster, namespace, &name);
    agent.ready().unwrap();
    let pod = agent.get().unwrap();
    let second = &pod["spec"]["initContainers"][1]["name"];
    assert_eq!(second, "exeat-sidecar", "{pod}");
    agent
}

/// Nothing that the agent can read in its container holds this.
fn assert_nowhere(agent: &Agent<'_>, secret: &str) {
    let script = "
import os, sys
wanted = sys.argv[1].encode()
found = []
for top in ['/etc', '/run', '/var', '/tmp', '/home', '/work', '/agent']:
    for folder, _, names in os.walk(top):
        found += [os.path.join(folder, name) for name in names]
found += [f'/proc/{pid}/{what}' for pid in os.listdir('/proc') if pid.isdigit()
          for what in ['environ'] + ([] if pid == str(os.getpid()) else ['cmdline'])]
for path in found:
    try:
        if os.path.isfile(path) and wanted in open(path, 'rb').read(1 << 24):
            print('FOUND', path)
    except OSError:
        pass
print('searched', len(found))
";
    let (done, said) = agent
        .exec(&["/usr/bin/python3", "-c", script, secret])
        .unwrap();
    assert!(done && said.contains("searched"), "{said}");
    assert!(!said.contains("FOUND"), "{said}");
}

/// Requests under a path that brought this.
fn arrived_with(cluster: &Cluster, path: &str, what: &str) -> usize {
    let requests = cluster.world.requests_to(path).unwrap();
    requests
        .iter()
        .filter(|request| request.to_string().contains(what))
        .count()
}

#[test]
fn a_python_deployment_as_it_is_is_signed_in_and_held() {
    let installed = cluster().installed();
    let cluster: &Cluster = &installed;
    let namespace = cluster.governed("python-agent").unwrap();
    let files = ["secret.yaml", "policy.yaml", "agent.yaml"];
    apply(cluster, &namespace, "python-agent", &files);
    let agent = pod(cluster, &namespace, "app=python-agent");
    let (said, _) = eventually("what the README shows", MINUTE, || {
        let said = agent.log("agent");
        for line in [
            "read: 200 {'path': '/reports/today', 'signed_in': True",
            "write: 403 {\"error\":{\"type\":\"egress_denied\",\"code\":\"no_rule\"",
            "elsewhere: no answer <urlopen error [Errno -2] Name or service not known>",
        ] {
            ensure!(said.contains(line), "no `{line}` in {said}");
        }
        Ok(said)
    })
    .unwrap();
    let token = "put-the-real-token-here";
    assert!(!said.contains(token), "{said}");
    assert!(arrived_with(cluster, "/reports/today", token) > 0);
    assert_eq!(arrived_with(cluster, "/comments", "python"), 0);
    assert_nowhere(&agent, token);
}

/// `kubectl` of the cluster, in the agent's container.
fn with_kubectl(cluster: &Cluster, agent: &Agent<'_>) {
    let program = fs::File::open(cluster.node().program("kubectl")).unwrap();
    let words = [
        "exec",
        "-i",
        "-n",
        &agent.namespace,
        &agent.pod,
        "-c",
        "agent",
        "--",
        "/bin/sh",
        "-c",
        "cat > /tmp/kubectl && chmod +x /tmp/kubectl",
    ];
    let done = cluster
        .kubectl
        .command(&words)
        .stdin(program)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(done.success());
}

#[test]
fn kubectl_reads_one_namespace_through_the_gate_with_no_token() {
    let installed = cluster().installed();
    let cluster: &Cluster = &installed;
    let kubectl = &cluster.kubectl;
    let namespace = cluster.governed("diagnostics").unwrap();
    let files = ["reader.yaml", "policy.yaml", "agent.yaml"];
    apply(cluster, &namespace, "diagnostic-agent", &files);
    // As the README has it.
    let authority = kubectl
        .run(&[
            "get",
            "configmap",
            "-n",
            &namespace,
            "kube-root-ca.crt",
            "-o",
            "go-template=[{\"op\": \"add\", \"path\": \"/spec/tools/0/http/tls\", \"value\": \
             {\"ca\": {{printf \"%q\" (index .data \"ca.crt\")}}}}]",
        ])
        .unwrap();
    kubectl
        .run(&[
            "patch",
            "toolpolicy",
            "-n",
            &namespace,
            "diagnostic-agent",
            "--type=json",
            "-p",
            &authority,
        ])
        .unwrap();
    let agent = pod(cluster, &namespace, "app=diagnostic-agent");
    with_kubectl(cluster, &agent);
    let ask = |words: &[&str]| agent.exec(&[&["/tmp/kubectl"], words].concat()).unwrap();

    let ((), took) = eventually("kubectl to be allowed", MINUTE, || {
        let (done, said) = ask(&["get", "pods"]);
        ensure!(done && said.contains(&agent.pod), "{said}");
        Ok(())
    })
    .unwrap();
    eprintln!("kubectl read its namespace after {} ms", took.as_millis());
    let (done, said) = ask(&["get", "deployments,events", "-o", "name"]);
    assert!(
        done && said.contains("deployment.apps/diagnostic-agent"),
        "{said}"
    );
    let (done, said) = ask(&["logs", &agent.pod, "-c", "agent"]);
    assert!(done, "{said}");

    let exec = ["exec", &agent.pod, "-c", "agent", "--", "id"];
    for words in [
        &["get", "pods", "-n", "kube-system"][..],
        &["get", "pods", "-A"],
        &["get", "secrets"],
        &["get", "secret", "reader-token", "-o", "yaml"],
        &["delete", "pod", &agent.pod],
        &["create", "configmap", "x"],
        &exec,
    ] {
        let (done, said) = ask(words);
        assert!(!done, "{words:?}: {said}");
        assert!(!said.contains("uid="), "{words:?}: {said}");
        if words[0] == "get" {
            assert!(
                said.contains("Error from server (Forbidden)"),
                "{words:?}: {said}"
            );
        }
    }

    let secret = kubectl
        .get(&["secret", "-n", &namespace, "reader-token"])
        .unwrap();
    let token = secret["data"]["token"].as_str().unwrap();
    let token = String::from_utf8(base64(token)).unwrap();
    assert!(token.len() > 100, "{token}");
    assert_nowhere(&agent, &token);
    let (_, said) = ask(&["get", "pods", "-v=9"]);
    assert!(!said.contains(&token), "{said}");
    let (_, config) = ask(&["config", "view", "--raw"]);
    assert!(config.contains("worth-nothing"), "{config}");
    assert!(!config.contains(&token), "{config}");
}

fn base64(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .unwrap()
}

/// A bare repository on the tests' server, with one commit, whose own hook guards its branches.
fn repository(root: &Path, name: &str) -> PathBuf {
    let bare = root.join(name);
    let git = |words: &[&str], at: &Path| {
        let output = Command::new("git")
            .args(["-c", "user.name=Owner", "-c", "user.email=owner@exeat.test"])
            .args(words)
            .current_dir(at)
            .output()
            .unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
    };
    let bare_name = bare.to_str().unwrap();
    git(&["init", "-q", "--bare", "-b", "main", bare_name], root);
    let work = tempfile::tempdir().unwrap();
    git(&["init", "-q", "-b", "main", "."], work.path());
    git(
        &["commit", "-q", "--allow-empty", "-m", "begun"],
        work.path(),
    );
    git(&["push", "-q", bare_name, "main"], work.path());
    let hook = bare.join("hooks/update");
    let guard = "#!/bin/sh
case \"$1\" in refs/heads/agent/*) exit 0 ;; esac
echo \"the agent may push to agent/** only\" >&2; exit 1
";
    fs::write(&hook, guard).unwrap();
    let mut mode = fs::metadata(&hook).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
    fs::set_permissions(&hook, mode).unwrap();
    bare
}

#[test]
fn a_coding_agent_clones_and_pushes_one_repository_and_asks_one_model() {
    let installed = cluster().installed();
    let cluster: &Cluster = &installed;
    let root = cluster.node().file("git/acme");
    let _left = fs::remove_dir_all(&root);
    fs::create_dir_all(&root).unwrap();
    let app = repository(&root, "app.git");
    repository(&root, "payroll.git");
    let namespace = cluster.governed("coding").unwrap();
    let files = ["secrets.yaml", "policy.yaml", "sandbox.yaml"];
    apply(cluster, &namespace, "coding-agent", &files);
    let agent = pod(cluster, &namespace, "app=coding-agent");
    assert_eq!(agent.pod, "fix-1234");
    let shell = |script: &str| agent.exec(&["/bin/sh", "-c", script]).unwrap();

    let clone = "cd /work && git clone -q https://git.upstream.test/git/acme/app.git";
    eventually("the repository to be cloned", MINUTE, || {
        let (done, said) = shell(clone);
        ensure!(done, "{said}");
        Ok(())
    })
    .unwrap();
    let commit = "cd /work/app && git switch -q -c agent/fix-1234 && \
         git -c user.name=Agent -c user.email=agent@exeat.test commit -q --allow-empty -m fixed && ";
    let (done, said) = shell(&format!("{commit} git push -q origin HEAD"));
    assert!(done, "{said}");
    let refs = Command::new("git")
        .args(["log", "--format=%s", "agent/fix-1234"])
        .current_dir(&app)
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&refs.stdout).contains("fixed"),
        "{refs:?}"
    );

    // The branch is the server's to guard.
    let (done, said) = shell("cd /work/app && git push -q origin HEAD:main");
    assert!(
        !done && said.contains("the agent may push to agent/** only"),
        "{said}"
    );
    // The repository is the gate's.
    let (done, said) =
        shell("cd /work && git clone -q https://git.upstream.test/git/acme/payroll.git");
    assert!(!done && said.contains("403"), "{said}");
    assert_eq!(
        cluster
            .world
            .requests_to("/git/acme/payroll")
            .unwrap()
            .len(),
        0
    );
    let pushes = arrived_with(cluster, "/git/acme/app.git", "Basic");
    assert!(pushes >= 4, "{pushes}");

    let ask = |model: &str| {
        let body = format!("{{\"model\": \"{model}\", \"messages\": []}}");
        let words = [
            "https://models.upstream.test/v1/chat/completions",
            "-H",
            "content-type: application/json",
            "-H",
            "authorization: Bearer worth-nothing",
            "-d",
            &body,
        ];
        agent.curl(&words).unwrap()
    };
    let answer = ask("gpt-5-mini");
    assert!(
        answer.text.contains("let this answer through"),
        "{answer:?}"
    );
    let answer = ask("gpt-9-huge");
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(arrived_with(cluster, "/v1/chat/completions", "put-the-real-key-here") > 0);
    assert_eq!(
        arrived_with(cluster, "/v1/chat/completions", "worth-nothing"),
        0
    );
    assert_eq!(
        arrived_with(cluster, "/v1/chat/completions", "gpt-9-huge"),
        0
    );
    for secret in [
        "put-a-token-for-this-repository-here",
        "put-the-real-key-here",
    ] {
        assert_nowhere(&agent, secret);
    }
}

#[test]
fn claims_of_one_pool_have_their_own_policies_and_tokens() {
    let installed = cluster().installed();
    let cluster: &Cluster = &installed;
    let namespace = cluster.governed("warm").unwrap();
    let files = ["secrets.yaml", "policies.yaml", "pool.yaml"];
    apply(cluster, &namespace, "warm-pool", &files);
    let kubectl = &cluster.kubectl;
    let ready = || -> Result<()> {
        let pool = kubectl.get(&["sandboxwarmpool", "-n", &namespace, "agent"])?;
        ensure!(pool["status"]["readyReplicas"] == 2, "{}", pool["status"]);
        Ok(())
    };
    eventually("the pool to be ready", 2 * MINUTE, ready).unwrap();
    let unclaimed = pod(cluster, &namespace, "app=agent");
    let report = "https://api.upstream.test/reports/warm";
    let comment = "https://api.upstream.test/comments/warm";
    for url in [report, comment] {
        let answer = unclaimed.curl(&[url]).unwrap();
        assert!(matches!(answer.status, 0 | 403), "{answer:?}");
    }
    let pooled: Value = kubectl.get(&["pods", "-n", &namespace]).unwrap();
    let pooled = pooled.to_string();

    let claimed = |claim: &str, file: &str| {
        apply(cluster, &namespace, "warm-pool", &[file]);
        let (name, _) = eventually("the claim to be bound", MINUTE, || {
            let found = kubectl.get(&["sandboxclaim", "-n", &namespace, claim])?;
            let name = found["status"]["sandbox"]["name"].as_str();
            Ok(name.context("it is not")?.to_owned())
        })
        .unwrap();
        assert!(pooled.contains(&name), "{name} is not from the pool");
        Agent::of(cluster, &namespace, &name)
    };
    let alice = claimed("alice", "claim-reader.yaml");
    let bob = claimed("bob", "claim-writer.yaml");
    assert_ne!(alice.pod, bob.pod);
    for (agent, may, may_not) in [
        (&alice, &[report][..], comment),
        (&bob, &[comment, "-d", "warm"], report),
    ] {
        let (answer, took) = eventually("the claim's policy", MINUTE, || {
            let answer = agent.curl(may)?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(answer)
        })
        .unwrap();
        eprintln!(
            "{} called {} ms after its claim was bound",
            agent.pod,
            took.as_millis()
        );
        assert!(answer.text.contains("\"signed_in\":true"), "{answer:?}");
        let answer = agent.curl(&[may_not]).unwrap();
        assert_eq!(answer.status, 403, "{answer:?}");
    }
    let (readers, writers) = ("put-the-readers-token-here", "put-the-writers-token-here");
    assert!(arrived_with(cluster, "/reports/warm", readers) > 0);
    assert!(arrived_with(cluster, "/comments/warm", writers) > 0);
    assert_eq!(arrived_with(cluster, "/reports/warm", writers), 0);
    assert_eq!(arrived_with(cluster, "/comments/warm", readers), 0);
    // Each pod's own Secret holds what its own policies call for.
    for (agent, key) in [(&alice, "readers.api"), (&bob, "writers.api")] {
        let pod = agent.get().unwrap();
        let volumes = pod["spec"]["volumes"].as_array().unwrap();
        let volume = volumes
            .iter()
            .find(|it| it["name"] == "exeat-credentials")
            .unwrap();
        let name = volume["secret"]["secretName"].as_str().unwrap();
        let secret = kubectl.get(&["secret", "-n", &namespace, name]).unwrap();
        let keys: Vec<&String> = secret["data"].as_object().unwrap().keys().collect();
        let mut wanted = [key, "sources", "status-key"];
        wanted.sort_unstable();
        assert_eq!(keys, wanted);
    }
    for pod in [&alice, &bob] {
        for status in pod.get().unwrap()["status"]["initContainerStatuses"]
            .as_array()
            .unwrap()
        {
            assert_eq!(status["restartCount"], 0);
        }
    }
}
