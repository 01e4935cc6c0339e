#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

fn source(spec: &str) -> Source {
    Source::new(
        "p",
        format!(
            "apiVersion: exeat.dev/v1alpha1\nkind: ToolPolicy\nmetadata: {{name: a.b, namespace: agents}}\nspec:\n  {}\n",
            spec.replace('\n', "\n  ")
        ),
    )
}

#[test]
fn what_is_sent_where() {
    let checked = check(&source(
        "podSelector: {matchLabels: {app: x}}\n\
         tools:\n\
         - {name: one, http: {hosts: [API.example.com, '*.example.org']}, credential: gh}\n\
         - {name: two, mcp: {server: 'https://mcp.example.com/mcp', tools: [t]}, credential: gh}\n\
         - {name: three, http: {hosts: [open.example.com]}}\n\
         inference:\n\
         - {name: four, provider: openai, models: {allow: ['*']}, credential: openai}\n\
         credentials:\n\
         - {name: gh, secret: {name: s, key: k}, inject: {bearer: {}}}\n\
         - {name: openai, secret: {name: o, key: k}, inject: {bearer: {}}}\n\
         - {name: unused, secret: {name: u, key: k}, inject: {bearer: {}}}",
    ))
    .unwrap();
    assert_eq!(checked.kind, PolicyKind::ToolPolicy);
    assert_eq!(checked.namespace.as_deref(), Some("agents"));
    assert_eq!(&*checked.name, "a.b");
    let labels = |value: &str| BTreeMap::from([("app".to_owned(), value.to_owned())]);
    assert!(checked.selects_pod(&labels("x")) && !checked.selects_pod(&labels("y")));
    let shown: Vec<_> = checked
        .references
        .iter()
        .map(|r| (&*r.credential, &*r.secret.name, r.hosts.join(" ")))
        .collect();
    let hosts = "api.example.com mcp.example.com *.example.org".to_owned();
    let expected = [
        ("gh", "s", hosts),
        ("openai", "o", "api.openai.com".to_owned()),
    ];
    assert_eq!(shown, expected);
    assert_eq!(checked.references[0].key(&checked.name), "a.b.gh");

    let not = |consent: &str| checked.references[0].not_consented(consent);
    assert_eq!(
        not("*.example.com,  *.example.org ,").unwrap(),
        Vec::<String>::new()
    );
    assert_eq!(
        not("api.example.com, example.org").unwrap(),
        ["mcp.example.com", "*.example.org"]
    );
    assert_eq!(not("*.api.example.com").unwrap().len(), 3);
    assert_eq!(not("").unwrap().len(), 3);
    for none in ["*", "*.com", "https://api.example.com", "a b"] {
        assert!(not(none).is_err(), "{none}");
    }
}

#[test]
fn a_guardrail_selects_namespaces() {
    let text = "apiVersion: exeat.dev/v1alpha1\nkind: ClusterToolPolicy\nmetadata: {name: g}\nspec:\n  \
                namespaceSelector: {matchExpressions: [{key: env, operator: NotIn, values: [dev]}]}\n  \
                deny: [{name: d, http: {methods: [DELETE]}}]\n";
    let checked = check(&Source::new("g", text)).unwrap();
    assert_eq!(checked.kind, PolicyKind::ClusterToolPolicy);
    let labels = |value: &str| BTreeMap::from([("env".to_owned(), value.to_owned())]);
    assert!(checked.selects_namespace(&labels("prod")));
    assert!(!checked.selects_namespace(&labels("dev")));
    assert!(checked.selects_pod(&labels("dev")));
}

#[test]
fn findings_name_the_field_and_the_place_in_an_expression() {
    let found = check(&source(
        "tools:\n\
         - {name: one, http: {hosts: [a.example]}}\n\
         - name: two\n  http: {hosts: [b.example], pathz: []}\n  when: |\n    true &&\n      reqest.host == 'x'\n\
         podSelector: {matchLabels: {app.kubernetes.io/name: 1}}",
    ))
    .unwrap_err();
    let shown: Vec<_> = found
        .iter()
        .map(|d| (d.field.as_str(), d.within.map(|p| (p.line, p.column))))
        .collect();
    assert!(
        shown.contains(&("spec.tools[1].http.pathz", None)),
        "{shown:?}"
    );
    assert!(
        shown.contains(&("spec.podSelector.matchLabels[app.kubernetes.io/name]", None)),
        "{shown:?}"
    );
    assert!(
        shown.contains(&("spec.tools[1].when", Some((2, 3)))),
        "{shown:?}"
    );
    let json: serde_json::Value = serde_json::from_str(&found.json()).unwrap();
    let when = json
        .as_array()
        .unwrap()
        .iter()
        .find(|d| d["field"] == "spec.tools[1].when");
    assert_eq!(
        when.unwrap()["within"],
        serde_json::json!({"line": 2, "column": 3})
    );
}

#[test]
fn one_document_at_a_time() {
    let text = source("{}").text;
    let two = Source::new("p", format!("{text}---\n{}", text.replace("a.b", "c")));
    assert!(
        check(&two)
            .unwrap_err()
            .to_string()
            .contains("more than one")
    );
    assert!(check(&Source::new("p", "")).is_err());
}
