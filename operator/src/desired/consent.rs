//! Whether a Secret may be sent to the hosts of a rule.
//!
//! Who may write policies is not always who may read Secrets. A Secret therefore says itself where
//! it may go, in the annotation `exeat.dev/hosts`; one that says nothing may go nowhere.

/// The hosts among `wanted` that the annotation does not cover.
pub(crate) fn refused<'a>(annotation: Option<&str>, wanted: &'a [String]) -> Vec<&'a str> {
    let granted: Vec<String> = annotation
        .unwrap_or_default()
        .split([',', ' ', '\n', '\t'])
        .filter(|part| !part.is_empty())
        .map(normal)
        .collect();
    wanted
        .iter()
        .filter(|host| {
            let host = normal(host);
            !granted.iter().any(|pattern| covers(pattern, &host))
        })
        .map(String::as_str)
        .collect()
}

fn normal(host: &str) -> String {
    host.trim().trim_end_matches('.').to_ascii_lowercase()
}

/// Whether every host that `wanted` matches is one that `granted` matches. `*.` stands for one
/// label or more, as in a policy, and never for none.
fn covers(granted: &str, wanted: &str) -> bool {
    if granted == wanted {
        return !granted.is_empty() && granted != "*";
    }
    let Some(base) = granted.strip_prefix("*.") else {
        return false;
    };
    let wanted = wanted.strip_prefix("*.").unwrap_or(wanted);
    !base.is_empty()
        && !base.contains('*')
        && wanted
            .strip_suffix(base)
            .is_some_and(|front| front.len() > 1 && front.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consent_is_exact_or_below_a_wildcard() {
        let table: &[(Option<&str>, &str, bool)] = &[
            (None, "api.github.com", false),
            (Some(""), "api.github.com", false),
            (Some("*"), "api.github.com", false),
            (Some("*"), "*", false),
            (Some("*."), "api.github.com", false),
            (Some("*.*.com"), "a.b.com", false),
            (Some("api.github.com"), "api.github.com", true),
            (Some("API.GitHub.com."), "api.github.com", true),
            (Some("api.github.com"), "xapi.github.com", false),
            (Some("github.com"), "api.github.com", false),
            (Some("*.github.com"), "api.github.com", true),
            (Some("*.github.com"), "a.b.github.com", true),
            (Some("*.github.com"), "github.com", false),
            (Some("*.github.com"), "evilgithub.com", false),
            (Some("*.github.com"), "*.github.com", true),
            (Some("*.github.com"), "*.api.github.com", true),
            (Some("*.api.github.com"), "*.github.com", false),
            (Some("api.github.com"), "*.github.com", false),
            (Some("a.com, api.github.com"), "api.github.com", true),
            (Some("a.com\n  api.github.com"), "api.github.com", true),
        ];
        for (annotation, host, expected) in table {
            let wanted = [(*host).to_owned()];
            assert_eq!(
                refused(*annotation, &wanted).is_empty(),
                *expected,
                "{annotation:?} {host}"
            );
        }
    }

    #[test]
    fn every_host_needs_consent() {
        let wanted = ["a.com".to_owned(), "b.com".to_owned()];
        assert_eq!(refused(Some("a.com"), &wanted), ["b.com"]);
    }
}
