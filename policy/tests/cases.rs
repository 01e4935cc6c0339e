//! Policies, calls and what must become of them: one file a subject in `tests/cases`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/calls.rs"]
mod support;

use std::collections::BTreeMap;

use exeat_policy::{Source, Verdict, compile};
use serde::Deserialize;
use support::{Case, judge};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    policy: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    cases: Vec<Case>,
}

#[test]
fn every_case() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for (name, text) in support::files("tests/cases", "yaml") {
        let subject: Subject =
            serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let source = Source::new(name.clone(), subject.policy);
        let plan = compile(&[source], subject.labels.as_ref(), 1).unwrap_or_else(|d| panic!("{d}"));
        for case in &subject.cases {
            count += 1;
            if let Err(why) = check(&plan, case) {
                wrong.push(format!("{name}: {}: {why}", case.call));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {count} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(count >= 80, "only {count} cases were found");
}

fn check(plan: &exeat_policy::Plan, case: &Case) -> Result<(), String> {
    let verdict = judge(plan, case)?;
    let (said, message) = match &verdict {
        Ok(Verdict::Allow(grant)) => {
            let mut said = format!("allow {}", grant.rule);
            if let Some(credential) = &grant.credential {
                said = format!("{said} with {}", credential.name);
            }
            if let Some(denial) = &grant.shadowed {
                said = format!("shadow {}", denial.reason);
                if grant.credential.is_some() && grant.mode.as_str() == "Shadow" {
                    said.push_str(" WITH CREDENTIAL");
                }
            }
            (said, String::new())
        }
        Ok(Verdict::Deny(denial)) => (format!("deny {}", denial.reason), denial.message.clone()),
        Err(refused) => ("refused".to_owned(), refused.clone()),
    };
    if said != case.expect {
        return Err(format!(
            "expected {:?}, got {said:?} ({message})",
            case.expect
        ));
    }
    if let Some(part) = &case.message
        && !message.contains(part)
    {
        return Err(format!("the message lacks {part:?}: {message}"));
    }
    Ok(())
}
