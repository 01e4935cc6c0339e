//! Policies that must not compile: what is said, where, and what to do about it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use exeat_policy::{Source, compile};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fault {
    #[serde(default)]
    spec: Option<String>,
    #[serde(default)]
    policy: Option<String>,
    #[serde(default)]
    at: Option<String>,
    message: String,
    #[serde(default)]
    remedy: Option<String>,
}

impl Fault {
    fn text(&self) -> String {
        match (&self.policy, &self.spec) {
            (Some(policy), None) => policy.clone(),
            (None, Some(spec)) => {
                let spec = spec.replace('\n', "\n  ");
                format!(
                    "apiVersion: exeat.dev/v1alpha1\nkind: ToolPolicy\nmetadata: {{name: test}}\nspec:\n  {spec}\n"
                )
            }
            _ => panic!("a fault has either `spec` or `policy`: {self:?}"),
        }
    }

    fn check(&self) -> Result<(), String> {
        let text = self.text();
        let Err(found) = compile(&[Source::new("test.yaml", text.clone())], None, 1) else {
            return Err("it compiled".to_owned());
        };
        let shown = found.to_string();
        let fits = found.iter().any(|diagnostic| {
            let remedy = diagnostic.remedy.as_deref().unwrap_or_default();
            let line = text.lines().nth(diagnostic.line - 1).unwrap_or_default();
            let here: String = line.chars().skip(diagnostic.column - 1).collect();
            diagnostic.message.contains(&self.message)
                && self
                    .remedy
                    .as_deref()
                    .is_none_or(|part| remedy.contains(part))
                && self.at.as_deref().is_none_or(|at| here.starts_with(at))
        });
        if !fits {
            return Err(format!("expected {self:?}, got\n{shown}"));
        }
        if !shown.contains("test.yaml:") {
            return Err(format!("no place is shown:\n{shown}"));
        }
        Ok(())
    }
}

#[test]
fn every_fault() {
    let faults: Vec<Fault> = serde_saphyr::from_str(include_str!("faults.yaml")).unwrap();
    let wrong: Vec<String> = faults
        .iter()
        .filter_map(|fault| {
            fault
                .check()
                .err()
                .map(|why| format!("{}: {why}", fault.text()))
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} wrong:\n{}",
        wrong.len(),
        faults.len(),
        wrong.join("\n\n")
    );
    assert!(faults.len() > 100);
}

#[test]
fn all_faults_of_all_files_are_told() {
    let head = "apiVersion: exeat.dev/v1alpha1\nkind: ToolPolicy\nmetadata: {name: N}\nspec:\n";
    let source = |name: &str, spec: &str| Source::new(name, head.replace('N', &name[..1]) + spec);
    let found = compile(
        &[
            source("b.yaml", "  tols: []\n  mode: Enfroce\n"),
            source(
                "a.yaml",
                "  tools:\n  - {name: x, http: {hosts: ['*']}, when: request.hots == ''}\n",
            ),
        ],
        None,
        1,
    )
    .unwrap_err();
    let places: Vec<(&str, usize)> = found.iter().map(|d| (d.file.as_str(), d.line)).collect();
    assert_eq!(
        places,
        [("a.yaml", 6), ("a.yaml", 6), ("b.yaml", 5), ("b.yaml", 6)]
    );
    let json: serde_json::Value = serde_json::from_str(&found.json()).unwrap();
    assert_eq!(json[2]["remedy"], "did you mean `tools`?");
    assert_eq!(json[2]["column"], 3);
}

#[test]
fn a_faulty_policy_spoils_the_set_even_unselected() {
    let good = "apiVersion: exeat.dev/v1alpha1\nkind: ToolPolicy\nmetadata: {name: g}\nspec: {}\n";
    let bad = "apiVersion: exeat.dev/v1alpha1\nkind: ToolPolicy\nmetadata: {name: b}\nspec: {podSelector: {matchLabels: {a: b}}, x: 1}\n";
    let labels = std::collections::BTreeMap::new();
    let sources = [Source::new("g", good), Source::new("b", bad)];
    assert!(compile(&sources, Some(&labels), 1).is_err());
    assert!(compile(&sources[..1], Some(&labels), 1).is_ok());
}
