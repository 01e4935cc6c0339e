//! What a plan says beside verdicts: digest, names, treatment, credentials, explanations.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use exeat_policy::{
    CaSource, Call, Content, Destination, Host, HttpCall, Mode, Plan, Protocol, Reason, Source,
    Target, Treatment, Verdict, compile,
};
use http::{HeaderMap, Method};

fn policy(name: &str, spec: &str) -> Source {
    let text = format!(
        "apiVersion: exeat.dev/v1alpha1\nkind: ToolPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    );
    Source::new(name, text)
}

fn plan(sources: &[Source]) -> Plan {
    compile(sources, None, 7).unwrap_or_else(|found| panic!("{found}"))
}

fn host(name: &str) -> Host {
    Host::parse(name).unwrap()
}

fn get(plan: &Plan, url: &str) -> Verdict {
    let target = Target::parse(url).unwrap();
    let http = request(&target);
    plan.decide(&Call {
        destination: &target.destination,
        protocol: Protocol::Http(&http),
    })
}

fn request(target: &Target) -> HttpCall {
    HttpCall {
        scheme: target.scheme,
        method: Method::GET,
        path: target.path.clone(),
        query: target.query.clone(),
        headers: HeaderMap::new(),
        websocket: false,
        content: Content::Unread,
    }
}

#[test]
fn deny_all_denies_all() {
    let plan = Plan::deny_all(3);
    assert_eq!(plan.generation(), 3);
    assert!(!plan.resolves(&host("example.com")));
    let Verdict::Deny(denial) = get(&plan, "https://example.com/") else {
        panic!()
    };
    assert_eq!(denial.reason, Reason::NoPolicy);
    assert_eq!(plan.digest(), compile(&[], None, 9).unwrap().digest());
}

#[test]
fn the_digest_is_of_the_meaning() {
    let a = policy(
        "a",
        "{tools: [{name: x, http: {hosts: [a.com, b.com]}}, {name: y, http: {hosts: [c.com]}}]}",
    );
    let same = policy(
        "a",
        "{tools: [{name: y, http: {hosts: [C.com.]}}, {http: {hosts: [b.com, a.com], ports: [443]}, name: x}]}",
    );
    let b = policy("b", "{deny: [{name: z, http: {methods: [POST, DELETE]}}]}");
    let digest = |sources: &[Source]| plan(sources).digest().to_owned();
    assert_eq!(digest(&[a.clone(), b.clone()]), digest(&[b.clone(), same]));
    assert_ne!(digest(&[a.clone(), b]), digest(std::slice::from_ref(&a)));
    assert!(digest(std::slice::from_ref(&a)).starts_with("sha256:") && digest(&[a]).len() == 71);
    for (one, other) in [
        (
            "{tools: [{name: x, http: {hosts: [a.com]}}]}",
            "{tools: [{name: x, http: {hosts: [a.com], ports: [444]}}]}",
        ),
        (
            "{tools: [{name: x, http: {hosts: [a.com]}}]}",
            "{mode: Shadow, tools: [{name: x, http: {hosts: [a.com]}}]}",
        ),
        (
            "{tools: [{name: x, http: {hosts: [a.com]}}]}",
            "{tools: [{name: x, http: {hosts: [a.com]}, when: 'request.port == 443'}]}",
        ),
    ] {
        assert_ne!(
            digest(&[policy("p", one)]),
            digest(&[policy("p", other)]),
            "{other}"
        );
    }
}

#[test]
fn names_that_some_rule_could_allow_resolve() {
    let plan = plan(&[policy(
        "p",
        "{tools: [{name: a, http: {hosts: [a.com, '*.b.com', 192.0.2.1]}}, {name: t, tcp: {host: t.com, port: 22}}], \
          deny: [{name: d, http: {hosts: [x.b.com]}}, {name: e, http: {hosts: [a.com], methods: [POST]}}]}",
    )]);
    for (name, expected) in [
        ("a.com", true),
        ("t.com", true),
        ("q.b.com", true),
        ("b.com", false),
        ("x.b.com", false),
        ("evil.com", false),
        ("data.a.com", false),
        ("192.0.2.1", false),
    ] {
        assert_eq!(plan.resolves(&host(name)), expected, "{name}");
    }
    let shadow = compile(&[policy("s", "{mode: Shadow}")], None, 1).unwrap();
    assert!(shadow.resolves(&host("evil.com")));
    assert_eq!(shadow.mode(), Mode::Shadow);
}

#[test]
fn treatment_is_by_host_and_port() {
    let plan = plan(&[policy(
        "p",
        "{tools: [{name: t, tcp: {host: t.com, ports: [22, 5432]}}, {name: h, http: {hosts: [t.com]}}, \
          {name: p, http: {hosts: [p.com], tls: {mode: Passthrough}}}]}",
    )]);
    for (name, port, expected) in [
        ("t.com", 22, Treatment::Tcp),
        ("t.com", 443, Treatment::Intercept),
        ("t.com", 80, Treatment::Intercept),
        ("p.com", 443, Treatment::Passthrough),
        ("p.com", 444, Treatment::Intercept),
        ("evil.com", 22, Treatment::Intercept),
    ] {
        assert_eq!(plan.treatment(&host(name), port), expected, "{name}:{port}");
    }
}

#[test]
fn obligations_are_those_of_the_rule() {
    let pem = "-----BEGIN CERTIFICATE-----\\nAA==\\n-----END CERTIFICATE-----";
    let plan = plan(&[policy(
        "p",
        &format!(
            "{{tools: [{{name: a, http: {{hosts: [a.com], addresses: [10.0.0.0/8, fd00::/8], tls: {{ca: \"{pem}\"}}}}}}, \
              {{name: b, http: {{hosts: [a.com], paths: [/x], tls: {{ca: {{file: /ca.pem}}}}}}, credential: c}}], \
              credentials: [{{name: c, secret: {{name: s, key: k}}, inject: {{basic: {{username: u}}}}}}]}}"
        ),
    )]);
    let Verdict::Allow(grant) = get(&plan, "https://a.com/y") else {
        panic!()
    };
    assert_eq!((&*grant.rule, grant.addresses.len()), ("a", 2));
    assert!(matches!(grant.upstream_tls.ca, Some(CaSource::Pem(_))));
    // Both rules allow it; the one that brings a credential is taken, whole.
    let Verdict::Allow(grant) = get(&plan, "https://a.com/x") else {
        panic!()
    };
    assert_eq!((&*grant.rule, grant.addresses.len()), ("b", 0));
    assert_eq!(
        grant.upstream_tls.ca,
        Some(CaSource::File("/ca.pem".into()))
    );
    assert_eq!(plan.credentials().len(), 1);
    assert_eq!(&*plan.credentials()[0].secret.key, "k");
}

#[test]
fn explanations_name_every_rule_of_the_host() {
    let plan = plan(&[policy(
        "p",
        "{tools: [{name: a, http: {hosts: [a.com], methods: [POST]}}, {name: b, http: {hosts: ['*.com.example', a.com], ports: [8443]}}, \
          {name: c, http: {hosts: [c.com]}}], deny: [{name: d, http: {methods: [DELETE]}}]}",
    )]);
    let target = Target::parse("https://a.com/x").unwrap();
    let http = request(&target);
    let explanation = plan.explain(&Call {
        destination: &target.destination,
        protocol: Protocol::Http(&http),
    });
    assert!(!explanation.verdict.is_allowed());
    let near: Vec<(&str, Option<Reason>)> = explanation
        .near
        .iter()
        .map(|n| (&*n.rule, n.reason))
        .collect();
    assert_eq!(
        near,
        [
            ("a", Some(Reason::MethodNotAllowed)),
            ("b", Some(Reason::NoRule)),
            ("d", None)
        ]
    );
}

#[test]
fn messages_do_not_carry_what_the_caller_hides_in_them() {
    let plan = plan(&[policy(
        "p",
        "{tools: [{name: m, mcp: {server: 'https://a.com/mcp', tools: [t]}}]}",
    )]);
    let target = Target::parse("https://a.com/mcp").unwrap();
    let mut http = request(&target);
    http.method = Method::POST;
    http.headers.insert(
        "content-type",
        http::HeaderValue::from_static("application/json"),
    );
    let name = format!("\\u001b[31m\\r\\nX: y\\u2028{}", "z".repeat(5000));
    let body = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{\"name\":\"{name}\"}}}}"
    );
    http.content = plan
        .body_need(&target.destination, &http)
        .parse(&http, body.as_bytes());
    let destination: &Destination = &target.destination;
    let Verdict::Deny(denial) = plan.decide(&Call {
        destination,
        protocol: Protocol::Http(&http),
    }) else {
        panic!()
    };
    assert!(denial.message.len() < 600, "{}", denial.message.len());
    assert!(
        !denial
            .message
            .chars()
            .any(|c| c.is_control() || c == '\u{2028}'),
        "{}",
        denial.message
    );
}

/// A guardrail of the cluster, and a policy of a namespace that allows all of one host.
fn guarded(policy_mode: &str, guardrail_mode: &str) -> Plan {
    let policy = |name: &str, spec: &str| {
        format!(
            "apiVersion: exeat.dev/v1alpha1\nkind: ToolPolicy\nmetadata: {{name: {name}, namespace: agents}}\nspec:\n  {spec}\n"
        )
    };
    let guardrail = format!(
        "apiVersion: exeat.dev/v1alpha1\nkind: ClusterToolPolicy\nmetadata: {{name: no-admin}}\nspec:\n  mode: {guardrail_mode}\n  deny:\n  - {{name: no-admin-paths, http: {{paths: [\"/admin/**\"]}}}}\n"
    );
    let open = policy(
        "open",
        &format!(
            "mode: {policy_mode}\n  tools: [{{name: all, http: {{hosts: [api.example.com]}}}}]"
        ),
    );
    // The same path by name, as narrowly and as often as one likes, loosens nothing.
    let wider = policy(
        "wider",
        &format!(
            "mode: {policy_mode}\n  tools: [{{name: admin, http: {{hosts: [api.example.com], methods: [GET], paths: [\"/admin/users\", \"/admin/**\"]}}}}]"
        ),
    );
    let sources =
        [("g", guardrail), ("a", open), ("b", wider)].map(|(name, text)| Source::new(name, text));
    compile(&sources, None, 1).unwrap()
}

#[test]
fn a_guardrail_takes_away_whatever_a_namespace_allows() {
    for mode in ["Enforce", "Shadow"] {
        let plan = guarded(mode, "Enforce");
        assert_eq!(*plan.guardrails(), ["no-admin".into()]);
        for path in ["admin/users", "admin/", "%61dmin/users", "ADMIN/users"] {
            let verdict = get(&plan, &format!("https://api.example.com/{path}"));
            let Verdict::Deny(denial) = verdict else {
                panic!("{mode} {path}: {verdict:?}")
            };
            assert_eq!(denial.reason, Reason::DeniedByRule);
            assert_eq!(denial.policy.as_deref(), Some("no-admin"));
            assert_eq!(denial.rule.as_deref(), Some("no-admin-paths"));
            assert!(denial.message.contains("guardrail"), "{}", denial.message);
        }
        let other = get(&plan, "https://api.example.com/users");
        let Verdict::Allow(grant) = other else {
            panic!("{mode}: {other:?}")
        };
        assert_eq!((&*grant.policy, &*grant.rule), ("agents/open", "all"));
    }
    // One that only watches is noted, with its own name.
    let Verdict::Allow(grant) = get(
        &guarded("Enforce", "Shadow"),
        "https://api.example.com/admin/x",
    ) else {
        panic!()
    };
    let noted = grant.shadowed.unwrap();
    assert_eq!(noted.policy.as_deref(), Some("no-admin"));
    assert_eq!(noted.rule.as_deref(), Some("no-admin-paths"));
}

#[test]
fn a_guardrail_allows_nothing_itself() {
    for (spec, what) in [
        ("tools: [{name: all, http: {hosts: [a.example]}}]", "tools"),
        ("credentials: []\n  deny: []", "credentials"),
        ("inference: []\n  deny: []", "inference"),
    ] {
        let text = format!(
            "apiVersion: exeat.dev/v1alpha1\nkind: ClusterToolPolicy\nmetadata: {{name: g}}\nspec:\n  {spec}\n"
        );
        let found = compile(&[Source::new("g", text)], None, 1).unwrap_err();
        assert!(found.to_string().contains(what), "{found}");
    }
    // Alone it leaves what is there without any policy: nothing.
    let text = "apiVersion: exeat.dev/v1alpha1\nkind: ClusterToolPolicy\nmetadata: {name: g}\nspec:\n  deny: [{name: d, http: {methods: [DELETE]}}]\n";
    let plan = compile(&[Source::new("g", text.to_owned())], None, 1).unwrap();
    let Verdict::Deny(denial) = get(&plan, "https://a.example/") else {
        panic!()
    };
    assert_eq!(denial.reason, Reason::NoPolicy);
}
