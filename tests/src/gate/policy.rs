//! The policy that most attacks are tried against, and the secret that none of them may see.

/// Every credential's value begins so.
pub const SECRET: &str = "the-gates-own-secret";

/// Allows a part of each name, with every way to carry a credential.
pub const POLICY: &str = r#"
apiVersion: exeat.dev/v1alpha1
kind: ToolPolicy
metadata: {name: attacked}
spec:
  tools:
  - name: api
    http:
      hosts: [api.exeat.test]
      addresses: [10.77.0.0/24]
      methods: [GET, HEAD, POST, PUT]
      paths: ["/allowed/**", "/ws", "/sse", "/endless-line", "/trailers", "/bytes/*", "/chunked", "/status/*",
              "/redirect", "/digest", "/slow", "/duplex", "/cut", "/allowed"]
    credential: api
  - name: any
    http: {hosts: [any.exeat.test], addresses: [10.77.0.0/24]}
    credential: api
  - name: grpc
    http: {hosts: [api.exeat.test], addresses: [10.77.0.0/24], methods: [POST], paths: ["/exeat.test.Echo/*"]}
    credential: api
  - name: open
    http: {hosts: [open.exeat.test], addresses: [10.77.0.0/24], methods: [GET, POST], paths: ["/open/**", "/ws", "/slow", "/status/*"]}
  - name: query
    http: {hosts: [open.exeat.test], addresses: [10.77.0.0/24], methods: [GET], paths: ["/query/*"]}
    credential: query
  - name: key
    http: {hosts: [open.exeat.test], addresses: [10.77.0.0/24], methods: [GET], paths: ["/key/*"]}
    credential: key
  - name: plain
    http: {hosts: [plain.exeat.test], scheme: http, addresses: [10.77.0.0/24], methods: [GET, POST], paths: ["/open/**", "/ws", "/digest", "/endless-line"]}
  - name: wild
    http: {hosts: ["*.wild.exeat.test"], addresses: [10.77.0.0/24], methods: [GET], paths: ["/allowed/**"]}
    credential: api
  - name: bad-certificates
    http:
      hosts: [expired.exeat.test, self-signed.exeat.test, untrusted.exeat.test, wrong-name.exeat.test]
      addresses: [10.77.0.0/24]
      methods: [GET, POST]
    credential: api
  - name: raw
    tcp: {host: raw.exeat.test, port: 5432, addresses: [10.77.0.0/24]}
  - name: scripted
    http: {hosts: [plain.exeat.test], ports: [8081], scheme: http, addresses: [10.77.0.0/24], methods: [GET], paths: ["/**"]}
  - name: blind
    http: {hosts: [blind.exeat.test], addresses: [10.77.0.0/24], tls: {mode: Passthrough}}
  - name: tools
    mcp: {server: "https://tools.exeat.test/mcp", tools: [search], addresses: [10.77.0.0/24]}
    credential: api
  inference:
  - name: openai
    provider: openai
    hosts: [models.exeat.test]
    addresses: [10.77.0.0/24]
    models: {allow: ["gpt-5*"]}
    credential: api
  deny:
  - name: no-deletes
    http: {methods: [DELETE]}
  credentials:
  - {name: api, secret: {name: api, key: token}, inject: {bearer: {}}}
  - {name: query, secret: {name: query, key: token}, inject: {query: {name: key}}}
  - {name: key, secret: {name: key, key: token}, inject: {header: {name: x-custom-key}}}
"#;
