//! The report for people: a line for each finding, and under it why and what to do.

use super::finding::{Finding, Level, Report, Scope};

/// What others wrote (statuses, messages of the API server) is cut here.
const MAX_TEXT: usize = 600;
/// The longest subject and a space.
const SUBJECT_WIDTH: usize = 19;
const LEVEL_WIDTH: usize = 9;

/// The whole of it.
pub(super) fn text(report: &Report) -> String {
    let mut lines = Vec::new();
    for scope in [Scope::Cluster, Scope::Namespace, Scope::Pod] {
        let list: Vec<&Finding> = report
            .findings
            .iter()
            .filter(|it| it.scope == scope)
            .collect();
        if list.is_empty() {
            continue;
        }
        lines.push(head(report, scope));
        for finding in list {
            one(finding, &mut lines);
        }
        lines.push(String::new());
    }
    lines.push(verdict(report));
    lines.join("\n")
}

fn head(report: &Report, scope: Scope) -> String {
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    match scope {
        Scope::Cluster => format!("cluster {}", report.server),
        Scope::Namespace => format!("namespace {}", name(&report.namespace)),
        Scope::Pod => format!("pod {}/{}", name(&report.namespace), name(&report.pod)),
    }
}

fn one(finding: &Finding, lines: &mut Vec<String>) {
    let level = match finding.level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Problem => "PROBLEM",
        Level::Unknown => "unknown",
    };
    lines.push(format!(
        "  {level:LEVEL_WIDTH$}{:SUBJECT_WIDTH$}{}",
        finding.subject,
        plain(&finding.message)
    ));
    for (word, text) in [("why:", &finding.cause), ("do:", &finding.remedy)] {
        if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
            lines.push(format!("  {:LEVEL_WIDTH$}{word:5}{}", "", plain(text)));
        }
    }
}

fn verdict(report: &Report) -> String {
    let what = match (&report.namespace, &report.pod) {
        (Some(namespace), Some(pod)) => format!("pod {namespace}/{pod}"),
        (Some(namespace), None) => format!("namespace {namespace}"),
        _ => "the cluster".to_owned(),
    };
    let count = |level, one: &str, many: &str| match report.count(level) {
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    };
    let verdict = match (
        report.governed(),
        report.pod.is_some() || report.namespace.is_some(),
    ) {
        (Some(true), true) => "is governed".to_owned(),
        (Some(true), false) => "can govern".to_owned(),
        (Some(false), _) => format!(
            "is not governed as it should be: {}",
            count(Level::Problem, "problem", "problems")
        ),
        (None, _) => "could not be judged: what is unknown above decides".to_owned(),
    };
    let warnings = match report.count(Level::Warning) {
        0 => String::new(),
        _ => format!(" ({})", count(Level::Warning, "warning", "warnings")),
    };
    format!("{what} {verdict}{warnings}")
}

/// One line, without what could steer a terminal.
fn plain(text: &str) -> String {
    let mut short: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_TEXT)
        .collect();
    if text.chars().count() > MAX_TEXT {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_steers_no_terminal() {
        assert_eq!(plain("a\x1b[31mb\nc"), "a [31mb c");
        assert_eq!(plain(&"x".repeat(700)).chars().count(), MAX_TEXT + 1);
    }
}
