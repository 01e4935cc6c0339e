//! What goes wrong on nodes: memory that runs out, pods that are ended under load, starts, squatters.
//! Always the same end: nothing leaves the pod but what the gate sent, and all of that is on record.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use exeat_tests::{
    cluster::{Agent, Cluster, cluster, eventually},
    governed::program,
};
use serde_json::{Value, json};

use super::{
    governed::{enforced, policy, secret, url},
    support::{MINUTE, Observer, the_gates_own},
};

/// Tries every way out for so many seconds, and allowed calls between.
fn flood(seconds: u32, path: &str) -> String {
    format!(
        "import socket,ssl,time,urllib.request as r\n\
         end=time.monotonic()+{seconds}\nn=0\nwhile time.monotonic()<end:\n\
         \x20for to,port in (('198.51.100.7',443),('203.0.113.77',9443),('198.51.100.7',53)):\n\
         \x20 for kind in (socket.SOCK_STREAM,socket.SOCK_DGRAM):\n\
         \x20  try:\n\
         \x20   with socket.socket(socket.AF_INET,kind) as s:\n\
         \x20    s.settimeout(.05); s.connect((to,port)); s.send(b'exeat-escape-attempt'); n+=1\n\
         \x20  except OSError: pass\n\
         \x20try: r.urlopen('{}',timeout=2).read()\n\
         \x20except OSError: pass\n\
         print(n)",
        url(path)
    )
}

/// A governed pod whose policy allows `/reports/**` with a credential, and the path that is its own.
fn pod<'a>(cluster: &'a Cluster, name: &str, change: fn(&mut Value)) -> (Agent<'a>, String) {
    let namespace = cluster.governed(name).unwrap();
    let kubectl = &cluster.kubectl;
    kubectl
        .apply(&secret(&namespace, "api", "a-secret-that-stays"))
        .unwrap();
    kubectl
        .apply(&policy(
            &namespace,
            "reports",
            &["/reports/**"],
            Some("api"),
        ))
        .unwrap();
    let mut pod = Agent::plain(cluster, &namespace, "agent");
    change(&mut pod);
    let agent = Agent::start(cluster, &pod).unwrap();
    enforced(cluster, &namespace, "reports", 1);
    let path = format!("/reports/{namespace}");
    (agent, path)
}

/// No call upstream without its decision at the collector: of a gate that ended in peace.
fn no_orphan(cluster: &Cluster, path: &str) {
    let calls = cluster.world.requests_to(path).unwrap().len();
    eventually("a decision for each call", MINUTE, || {
        let records = cluster.collector.records(path)?;
        let allowed = records
            .iter()
            .filter(|record| record.to_string().contains("allow"))
            .count();
        ensure!(allowed >= calls, "{calls} calls, {allowed} decisions");
        Ok(())
    })
    .unwrap();
    eprintln!("{path}: {calls} calls, each on record");
}

/// The same by the journal on the node, which also a gate has that was killed before it could send
/// anything: whole, and with a decision for each call.
fn no_orphan_in_the_journal(cluster: &Cluster, agent: &Agent<'_>, path: &str) {
    let pod = agent.get().unwrap();
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let volume = "volumes/kubernetes.io~empty-dir/exeat-journal/audit.jsonl";
    let journal = cluster.node().file(&format!("kubelet/pods/{uid}/{volume}"));
    let calls = cluster.world.requests_to(path).unwrap().len();
    let text = fs::read_to_string(&journal).unwrap();
    let decided = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|record| {
            record["event"] == "exeat.egress.decision"
                && record["decision"] == "allow"
                && record["http"]["path"] == path
        })
        .count();
    assert!(calls > 0);
    assert!(decided >= calls, "{calls} calls, {decided} decisions");
    let output = Command::new(program("exeat").unwrap())
        .args(["audit", "verify"])
        .arg(&journal)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{said}");
    eprintln!(
        "{path}: {calls} calls, {decided} decisions; {}",
        said.trim()
    );
}

fn gate(cluster: &Cluster, agent: &Agent<'_>) -> Result<u32> {
    let node = cluster.node();
    node.process(
        &cluster.kubectl,
        &agent.namespace,
        &agent.pod,
        "exeat-sidecar",
    )
}

/// The folder of the memory controller that a process is in, version 1 or 2.
fn memory_group(process: u32) -> Result<(PathBuf, &'static str, &'static str)> {
    let text = fs::read_to_string(format!("/proc/{process}/cgroup"))?;
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next(), parts.next());
        let path = path.context("an odd line")?.trim_start_matches('/');
        if controllers.is_some_and(|it| it.split(',').any(|it| it == "memory")) {
            return Ok((
                PathBuf::from("/sys/fs/cgroup/memory").join(path),
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            ));
        }
        if controllers == Some("") && PathBuf::from("/sys/fs/cgroup/memory.max").exists() {
            return Ok((
                PathBuf::from("/sys/fs/cgroup").join(path),
                "memory.max",
                "memory.current",
            ));
        }
    }
    anyhow::bail!("no memory controller in {text}")
}

/// A25: the kernel ends the gate for want of memory, more than once, while the agent tries everything.
#[test]
fn a_gate_that_runs_out_of_memory_lets_nothing_out() {
    let cluster = &*cluster().installed();
    let (agent, path) = pod(cluster, "memory", |_| {});
    let observer = Observer::of(cluster, &agent);
    let program = flood(60, &path);
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| agent.python(&program));
        for round in 1..=2 {
            let (process, _) =
                eventually("the gate", 2 * MINUTE, || gate(cluster, &agent)).unwrap();
            std::thread::sleep(Duration::from_secs(2));
            let (folder, limit, usage) = memory_group(process).unwrap();
            // To what it holds at this moment: the next page that it wants is one too many.
            eventually("the limit", MINUTE, || {
                let held: u64 = fs::read_to_string(folder.join(usage))?.trim().parse()?;
                Ok(fs::write(folder.join(limit), (held + 4096).to_string())?)
            })
            .unwrap();
            let open = "import ssl,socket\nk=[]\nfor i in range(300):\n try:\n\
                        \x20 s=socket.create_connection(('api.upstream.test',443),timeout=2)\n\
                        \x20 c=ssl._create_unverified_context(); k.append(c.wrap_socket(s,server_hostname='api.upstream.test'))\n\
                        \x20except OSError: pass";
            let _cut_off = agent.python(open);
            eventually("the kernel to end it", MINUTE, || {
                let pod = agent.get()?;
                let status = &pod["status"]["initContainerStatuses"][1];
                ensure!(status["restartCount"].as_u64() >= Some(round), "{status}");
                ensure!(
                    status["lastState"]["terminated"]["reason"] == "OOMKilled"
                        || status["state"]["terminated"]["reason"] == "OOMKilled",
                    "{status}"
                );
                Ok(())
            })
            .unwrap();
        }
        flooding.join().unwrap().unwrap();
    });
    let sent = observer.sent_beside(cluster, the_gates_own());
    assert!(
        sent.is_empty(),
        "{} packets: {:#?}",
        sent.len(),
        sent.first()
    );
    no_orphan_in_the_journal(cluster, &agent, &path);
    eventually("the first call after", 2 * MINUTE, || {
        let answer = agent.curl(&[&url(&path)])?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })
    .unwrap();
}

/// A24: an agent that will not end keeps trying through the whole of its grace.
#[test]
fn a_pod_that_is_ended_under_load_lets_nothing_out() {
    let cluster = &*cluster().installed();
    let (agent, path) = pod(cluster, "ended", |pod| {
        pod["spec"]["terminationGracePeriodSeconds"] = 8.into();
        pod["spec"]["containers"][0]["command"] =
            json!(["/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done"]);
    });
    let observer = Observer::of(cluster, &agent);
    let program = flood(30, &path);
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| agent.python(&program));
        std::thread::sleep(Duration::from_secs(3));
        let words = [
            "delete",
            "pod",
            "-n",
            &agent.namespace,
            "agent",
            "--wait=true",
        ];
        cluster.kubectl.run(&words).unwrap();
        // It is ended with its pod, in the middle of something.
        let _cut_off = flooding.join().unwrap();
    });
    let sent = observer.sent_beside(cluster, the_gates_own());
    assert!(
        sent.is_empty(),
        "{} packets: {:#?}",
        sent.len(),
        sent.first()
    );
    assert!(!cluster.world.requests_to(&path).unwrap().is_empty());
    no_orphan(cluster, &path);
}

/// A21, A22: whatever runs first, an init container among it, finds the gate there before it.
#[test]
fn at_every_start_the_gate_is_first() {
    let cluster = &*cluster().installed();
    let namespace = cluster.governed("starts").unwrap();
    let kubectl = &cluster.kubectl;
    kubectl
        .apply(&policy(&namespace, "reports", &["/reports/**"], None))
        .unwrap();
    let program = format!(
        "import socket\nimport urllib.request as r\n\
         for to in ('198.51.100.7','203.0.113.77','2001:db8::7'):\n\
         \x20try: socket.create_connection((to,9443),timeout=.3).send(b'exeat-escape-attempt')\n\
         \x20except OSError: pass\n\
         try: r.urlopen('{}',timeout=10).read()\n\
         except OSError as e: print(e)",
        url("/elsewhere")
    );
    let node = cluster.node();
    let written = node.file("starts.pcap");
    let mut capture = node
        .command("tcpdump")
        .args(["-i", "any", "-n", "-U", "-Z", "root", "-w"])
        .arg(&written)
        .arg("port 9443")
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the observer", MINUTE, || {
        ensure!(fs::metadata(&written)?.len() >= 24, "it has not begun");
        Ok(())
    })
    .unwrap();
    for round in 0..4 {
        let mut pods = Vec::new();
        for n in 0..5 {
            let mut pod = Agent::plain(cluster, &namespace, &format!("start-{round}-{n}"));
            pod["spec"]["restartPolicy"] = "Never".into();
            let mut first = pod["spec"]["containers"][0].clone();
            first["command"] = json!(["/usr/bin/python3", "-c", program]);
            pod["spec"]["containers"][0]["command"] = first["command"].clone();
            first["name"] = "first".into();
            pod["spec"]["initContainers"] = json!([first]);
            pods.push(pod);
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": pods});
        kubectl.apply(&list).unwrap();
        eventually("the pods to end", 3 * MINUTE, || {
            let pods = kubectl.get(&["pods", "-n", &namespace])?;
            for pod in pods["items"].as_array().unwrap() {
                ensure!(pod["status"]["phase"] == "Succeeded", "{}", pod["status"]);
            }
            Ok(())
        })
        .unwrap();
        kubectl
            .run(&["delete", "pods", "-n", &namespace, "--all", "--wait=true"])
            .unwrap();
    }
    Command::new("kill")
        .arg(capture.id().to_string())
        .status()
        .unwrap();
    capture.wait().unwrap();
    let output = node
        .command("tcpdump")
        .args(["-n", "-r"])
        .arg(&written)
        .output()
        .unwrap();
    let seen = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(seen.is_empty(), "{seen}");
    assert!(cluster.world.requests_to("/elsewhere").unwrap().is_empty());
}

/// A26, J16: while the gate is down the agent takes its ports and answers in its place. Nobody
/// believes it, nothing gets out, and when it lets go everything is as before.
#[test]
fn who_squats_on_the_gates_ports_gains_nothing() {
    let cluster = &*cluster().installed();
    let (agent, path) = pod(cluster, "squatted", |_| {});
    let observer = Observer::of(cluster, &agent);
    let squat = "import socket,time\nheld=set()\nkeep=[]\nopen('/tmp/ready','w').close()\nend=time.monotonic()+25\n\
                 while time.monotonic()<end:\n\
                 \x20for port in (15001,15002,15021,15053):\n\
                 \x20 for family,at in ((socket.AF_INET,'0.0.0.0'),(socket.AF_INET6,'::')):\n\
                 \x20  s=socket.socket(family,socket.SOCK_STREAM)\n\
                 \x20  s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)\n\
                 \x20  if hasattr(socket,'SO_REUSEPORT'): s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEPORT,1)\n\
                 \x20  try: s.bind((at,port)); s.listen(); held.add(port); keep.append(s)\n\
                 \x20  except OSError: s.close()\n\
                 \x20time.sleep(.01)\n\
                 print('held',sorted(held))";
    let said = std::thread::scope(|scope| {
        let squatting = scope.spawn(|| agent.python(squat));
        eventually("the squatter", MINUTE, || {
            let (there, said) = agent.exec(&["/usr/bin/test", "-e", "/tmp/ready"])?;
            ensure!(there, "{said}");
            Ok(())
        })
        .unwrap();
        let process = gate(cluster, &agent).unwrap();
        let words = ["-KILL", &process.to_string()];
        assert!(Command::new("kill").args(words).status().unwrap().success());
        let tried = agent.curl(&["-k", &url(&path)]);
        eprintln!("while squatted: {tried:?}");
        squatting.join().unwrap().unwrap()
    });
    eprintln!("the squatter {said}");
    assert!(said.contains("held [15"), "it came too late: {said}");
    let sent = observer.sent_beside(cluster, the_gates_own());
    assert!(
        sent.is_empty(),
        "{} packets: {:#?}",
        sent.len(),
        sent.first()
    );
    agent.ready().unwrap();
    eventually("the first call after", 2 * MINUTE, || {
        let answer = agent.curl(&[&url(&path)])?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })
    .unwrap();
    no_orphan_in_the_journal(cluster, &agent, &path);
}
