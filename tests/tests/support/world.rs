//! One world for one client: an upstream that knows several names, and a policy that lets a part of
//! each through.

use std::{net::SocketAddr, path::PathBuf, process::Command};

use exeat_tests::{
    governed::{self, Governed, Ran, fetched},
    upstream::{Settings, Upstream},
};
use tempfile::TempDir;

pub(crate) const API: &str = "api.exeat.test";
pub(crate) const MODELS: &str = "models.exeat.test";
pub(crate) const TOOLS: &str = "tools.exeat.test";

pub(crate) struct World {
    pub(crate) upstream: Upstream,
    governed: Governed,
    repositories: TempDir,
}

// === impl World ===

impl World {
    pub(crate) async fn start() -> Self {
        Self::make(None).await
    }

    /// With a plaintext server behind one of the names.
    pub(crate) async fn with_front(name: &str, backend: SocketAddr) -> Self {
        Self::make(Some((name.to_owned(), backend))).await
    }

    async fn make(front: Option<(String, SocketAddr)>) -> Self {
        let repositories = tempfile::tempdir().unwrap();
        for name in ["acme/open.git", "acme/read-only.git", "other/private.git"] {
            git(
                &["init", "-q", "--bare", "--initial-branch=main"],
                &repositories,
                name,
            );
        }
        let upstream = Upstream::with(Settings {
            git_root: Some(repositories.path().to_owned()),
            fronts: front.into_iter().collect(),
            ..Settings::default()
        });
        let upstream = upstream.await.unwrap();
        let policy = POLICY
            .replace("PORT", &upstream.tls().port().to_string())
            .replace("LOOPBACK", "127.0.0.0/8");
        let mut governed = Governed::new(&policy, &upstream).unwrap();
        for name in [API, MODELS, TOOLS] {
            governed = governed.resolve(name, "127.0.0.1");
        }
        for credential in ["api", "openai", "anthropic"] {
            governed = governed
                .credential(credential, "upstream-secret\n")
                .unwrap();
        }
        Self {
            upstream,
            governed,
            repositories,
        }
    }

    pub(crate) async fn run<S: AsRef<std::ffi::OsStr>>(&self, words: &[S]) -> Ran {
        self.governed.run(words).await.unwrap()
    }

    /// `https://NAME:PORT`.
    pub(crate) fn base(&self, name: &str) -> String {
        format!("https://{name}:{}", self.upstream.tls().port())
    }

    /// A URL of the API.
    pub(crate) fn url(&self, path: &str) -> String {
        self.base(API) + path
    }

    /// Whether the server's repository has a commit with this subject on `main`.
    pub(crate) fn has_commit(&self, repository: &str, subject: &str) -> bool {
        let log = Command::new("git")
            .arg("--git-dir")
            .arg(self.repositories.path().join(repository))
            .args(["log", "--format=%s", "main"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&log.stdout)
            .lines()
            .any(|line| line == subject)
    }
}

/// The words that start a client of `tests/clients`.
pub(crate) fn client(name: &str, arguments: &[&str]) -> Vec<String> {
    let mut words = if name.starts_with("python/") {
        vec![text(fetched("python/bin/python").unwrap())]
    } else {
        let modules = text(fetched("node/node_modules").unwrap());
        vec![
            "env".to_owned(),
            format!("NODE_PATH={modules}"),
            "node".to_owned(),
        ]
    };
    words.push(text(governed::client(name).unwrap()));
    words.extend(arguments.iter().map(|&argument| argument.to_owned()));
    words
}

pub(crate) fn text(path: PathBuf) -> String {
    path.into_os_string().into_string().unwrap()
}

fn git(words: &[&str], folder: &TempDir, name: &str) {
    let status = Command::new("git")
        .args(words)
        .arg(folder.path().join(name))
        .status()
        .expect("git must be installed");
    assert!(status.success());
}

const POLICY: &str = r#"
apiVersion: exeat.dev/v1alpha1
kind: ToolPolicy
metadata: {name: clients}
spec:
  tools:
  - name: api
    http:
      hosts: [api.exeat.test]
      ports: [PORT]
      addresses: [LOOPBACK]
      methods: [GET, HEAD, POST]
      paths: ["/allowed/**", "/ws", "/bytes/*", "/trailers", "/sse"]
    credential: api
  - name: grpc
    http:
      hosts: [api.exeat.test]
      ports: [PORT]
      addresses: [LOOPBACK]
      methods: [POST]
      paths: ["/exeat.test.Echo/*"]
    credential: api
  - name: repositories.look
    http:
      hosts: [api.exeat.test]
      ports: [PORT]
      addresses: [LOOPBACK]
      methods: [GET]
      paths: ["/git/acme/{repository}/info/refs"]
    when: request.query.service == "git-upload-pack" || path.repository == "open.git"
    credential: api
  - name: repositories.fetch
    http:
      hosts: [api.exeat.test]
      ports: [PORT]
      addresses: [LOOPBACK]
      methods: [POST]
      paths: ["/git/acme/*/git-upload-pack", "/git/acme/open.git/git-receive-pack"]
    credential: api
  - name: tools
    mcp: {server: "https://tools.exeat.test:PORT/mcp", tools: [echo], addresses: [LOOPBACK]}
    credential: api
  inference:
  - name: openai
    provider: openai
    hosts: [models.exeat.test]
    ports: [PORT]
    addresses: [LOOPBACK]
    models: {allow: ["gpt-5*"]}
    credential: openai
  - name: anthropic
    provider: anthropic
    hosts: [models.exeat.test]
    ports: [PORT]
    addresses: [LOOPBACK]
    models: {allow: ["claude-*"]}
    credential: anthropic
  credentials:
  - {name: api, secret: {name: api, key: token}, inject: {bearer: {}}}
  - {name: openai, secret: {name: openai, key: token}, inject: {bearer: {}}}
  - {name: anthropic, secret: {name: anthropic, key: token}, inject: {header: {name: x-api-key}}}
"#;
