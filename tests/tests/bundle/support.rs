//! A pod as the operator keeps it: a bundle in one volume, the pod's own Secret in another.

use std::{io::Write as _, net::UdpSocket, time::Duration};

use aws_lc_rs::hmac;
use exeat_policy::Bundle;
use exeat_tests::{
    chaos::{
        Sidecar, Stage,
        client::{Answer, Client},
        journal, own_folder, until,
        volume::Volume,
    },
    netns::Persona,
};
use serde_json::{Value, json};

/// Another name that leads to the world.
pub(crate) const OTHER: &str = "other.exeat.test";
/// What status answers are signed with: 32 bytes in hexadecimal.
pub(crate) const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

const NAMESPACE: &str = "agents";
/// The pod's address, with the port of its health.
const HEALTH: &str = "10.77.0.2:15021";
const PATIENCE: Duration = Duration::from_secs(5);

/// The pod, its gate, and what the operator writes for it.
pub(crate) struct Operated {
    pub(crate) stage: Stage,
    pub(crate) sidecar: Sidecar,
    secret: Volume,
}

// === impl Operated ===

impl Operated {
    /// With neither a bundle nor a Secret.
    pub(crate) fn start() -> Self {
        let mut stage = Stage::new("").unwrap();
        stage.policies.publish(&[]).unwrap();
        let folder = stage.path("mounted");
        let secret = Volume::new(folder.clone()).unwrap();
        own_folder(&folder, 0o755).unwrap();
        let sidecar = stage
            .start(&[
                "--credentials-dir",
                folder.to_str().unwrap(),
                "--namespace",
                NAMESPACE,
                "--pod-uid",
                "uid-1",
                "--label",
                "app=agent",
            ])
            .unwrap();
        Self {
            stage,
            sidecar,
            secret,
        }
    }

    /// Writes the Secret.
    pub(crate) fn secret(&mut self, files: &[(&str, &str)]) {
        self.secret.publish(files).unwrap();
    }

    /// Writes the bundle's volume; nothing in it where there is none.
    pub(crate) fn publish(&mut self, packed: &[u8]) {
        let files = [("bundle.json.gz", packed)];
        let files = if packed.is_empty() { &[] } else { &files[..] };
        self.stage.policies.publish_bytes(files).unwrap();
    }

    /// Writes a bundle and waits until it is in force; its digest.
    pub(crate) fn bundle(
        &mut self,
        generation: u64,
        policies: &[Value],
        guardrails: &[Value],
    ) -> String {
        let (digest, packed) = packed(NAMESPACE, generation, policies, guardrails);
        self.publish(&packed);
        let metric = format!("exeat_policy_generation {generation}\n");
        self.until(|pod| {
            let page = pod.page("/metrics");
            page.contains(&metric) && page.contains("exeat_policy_current 1\n")
        });
        digest
    }

    /// Waits until it is so.
    pub(crate) fn until(&self, holds: impl Fn(&Self) -> bool) {
        until("what was written is seen", PATIENCE, || holds(self))
            .unwrap_or_else(|error| panic!("{error}: {}", self.sidecar.last_words()));
    }

    pub(crate) fn request(&self, method: &str, host: &str, path: &str) -> Answer {
        let (to, authority) = (self.stage.world.tls(), self.stage.authority());
        self.stage.agent(|| {
            let mut client = Client::tls(to, host, &authority).unwrap();
            let request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
            client.send(request.as_bytes()).unwrap();
            client.answer().unwrap()
        })
    }

    pub(crate) fn get(&self, host: &str, path: &str) -> Answer {
        self.request("GET", host, path)
    }

    /// The `authorization` that a call arrives with, if it does.
    pub(crate) fn sent(&self, host: &str) -> Option<String> {
        let answer = self.get(host, "/reports/1");
        if answer.status != 200 {
            return None;
        }
        let last = self.stage.world.upstream().requests().pop()?;
        last.header("authorization").map(str::to_owned)
    }

    /// A page of the gate's health port, asked for from outside the pod as the operator does.
    pub(crate) fn page(&self, path: &str) -> String {
        let ask = || Client::plain(HEALTH.parse().unwrap())?.get("gate", path, "");
        let outside = &self.stage.pod.outside;
        outside.run(Persona::Root, ask).unwrap().unwrap().text()
    }

    /// What the gate says about itself; nothing as long as it has not seen the key to sign it with.
    pub(crate) fn status(&self) -> Value {
        let body = self.page("/status?nonce=0123456789abcdef0123456789abcdef");
        let Some((text, mac)) = body.split_once(",\"mac\":\"") else {
            return Value::Null;
        };
        let key: Vec<u8> = (0..32).collect();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let made = hmac::sign(&key, format!("{text}}}").as_bytes());
        let made = made
            .as_ref()
            .iter()
            .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        assert_eq!(mac, format!("{made}\"}}"));
        serde_json::from_str(&body).unwrap()
    }

    /// Asks the pod's DNS for a name.
    pub(crate) fn ask(&self, name: &str) {
        let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            question.push(u8::try_from(label.len()).unwrap());
            question.extend_from_slice(label.as_bytes());
        }
        question.extend_from_slice(&[0, 0, 1, 0, 1]);
        self.stage.agent(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send_to(&question, "10.77.0.1:53").unwrap();
            socket.recv(&mut [0; 512]).unwrap();
        });
    }

    pub(crate) fn records(&self) -> Vec<Value> {
        journal::read(&self.stage.journal()).unwrap()
    }

    /// A decision and how it ended.
    pub(crate) fn story(&self, id: &str) -> (Value, Value) {
        let find = || {
            let records = self.records();
            let decision = records.iter().find(|record| record["id"] == id)?;
            let outcome = journal::outcome(&records, decision)?;
            Some((decision.clone(), outcome.clone()))
        };
        self.until(|_| find().is_some());
        find().unwrap()
    }
}

/// A policy that allows `/allowed/**` and `/reports/**` on these hosts.
pub(crate) fn allowing(name: &str, hosts: &[&str]) -> Value {
    json!({
        "apiVersion": "exeat.dev/v1alpha1",
        "kind": "ToolPolicy",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"tools": [{"name": format!("{name}.all"), "http": {
            "hosts": hosts,
            "addresses": ["10.77.0.0/24"],
            "paths": ["/allowed/**", "/reports/**"],
        }}]},
    })
}

/// A guardrail that denies DELETE.
pub(crate) fn guardrail(name: &str) -> Value {
    json!({
        "apiVersion": "exeat.dev/v1alpha1",
        "kind": "ClusterToolPolicy",
        "metadata": {"name": name},
        "spec": {"deny": [{"name": format!("{name}.all"), "http": {"methods": ["DELETE"]}}]},
    })
}

/// One secret at `key`, from the key `token` of `secret`, whose owner consents to `hosts`.
pub(crate) fn given(
    key: &'static str,
    value: &'static str,
    secret: &str,
    hosts: &str,
) -> [(&'static str, &'static str); 2] {
    let sources = json!({key: {"secret": secret, "key": "token", "hosts": hosts}}).to_string();
    // A test's few words live as long as it.
    [(key, value), ("sources", sources.leak())]
}

/// A bundle's digest, and the bundle as the operator writes it.
pub(crate) fn packed(
    namespace: &str,
    generation: u64,
    policies: &[Value],
    guardrails: &[Value],
) -> (String, Vec<u8>) {
    let mut policies = policies.to_vec();
    for policy in &mut policies {
        policy["metadata"]["namespace"] = namespace.into();
    }
    let bundle = Bundle::new(namespace, generation, policies, guardrails.to_vec()).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&bundle.to_bytes()).unwrap();
    (bundle.digest().to_owned(), gzip.finish().unwrap())
}
