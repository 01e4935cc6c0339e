//! The compiler's word on one policy, asked once for each edit.

use std::collections::BTreeMap;
use std::sync::Arc;

use exeat_policy::{CredentialUse, Diagnostic, Diagnostics};
use serde_json::Value;

/// More findings than a condition's message has room for.
const MAX_SHOWN: usize = 5;
/// The API server refuses a condition whose message is longer than 32768; people stop long before.
const MAX_MESSAGE: usize = 4096;

/// Policies whose verdict is remembered.
const MAX_KNOWN: usize = 20_000;

/// What the compiler said: what credentials the policy uses, or what is wrong with it.
pub(crate) type Checked = Result<Vec<CredentialUse>, String>;

/// What it said about each policy that is known.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    known: BTreeMap<String, (i64, Arc<Checked>)>,
    bundled: BTreeMap<String, (Value, Arc<Checked>)>,
}

// === impl Checks ===

impl Checks {
    /// About a policy as it stands in the API.
    pub(crate) fn of(&mut self, uid: &str, generation: i64, document: &Value) -> Arc<Checked> {
        if let Some((known, checked)) = self.known.get(uid)
            && *known == generation
        {
            return Arc::clone(checked);
        }
        // Far more than a cluster has; what is asked for again is worked out again.
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        let checked = Arc::new(check(document));
        self.known
            .insert(uid.to_owned(), (generation, Arc::clone(&checked)));
        checked
    }

    /// About a policy as it is in a bundle.
    pub(crate) fn of_bundled(&mut self, namespace: &str, document: &Value) -> Arc<Checked> {
        let key = format!("{namespace}/{}", super::name_of(document));
        if let Some((known, checked)) = self.bundled.get(&key)
            && known == document
        {
            return Arc::clone(checked);
        }
        if self.bundled.len() >= MAX_KNOWN {
            self.bundled.clear();
        }
        let checked = Arc::new(check(document));
        self.bundled
            .insert(key, (document.clone(), Arc::clone(&checked)));
        checked
    }
}

/// Compiles one document alone.
pub(crate) fn check(document: &Value) -> Checked {
    match exeat_policy::check(&exeat_policy::bundle::source(document)) {
        Ok(checked) => Ok(checked.references),
        Err(found) => Err(message(&found)),
    }
}

/// Findings as a person reads them in a status or an answer of `kubectl`: where, what, what to do.
pub(crate) fn message(found: &Diagnostics) -> String {
    let mut shown: Vec<String> = found.iter().take(MAX_SHOWN).map(line).collect();
    let rest = found.iter().count().saturating_sub(MAX_SHOWN);
    if rest > 0 {
        shown.push(format!("and {rest} more"));
    }
    clip(shown.join("; "))
}

fn line(diagnostic: &Diagnostic) -> String {
    let field = match diagnostic.field.as_str() {
        "" => String::new(),
        field => format!("{field}: "),
    };
    let within = diagnostic
        .within
        .map(|place| format!("line {}, column {}: ", place.line, place.column))
        .unwrap_or_default();
    let hint = diagnostic
        .remedy
        .as_ref()
        .map(|remedy| format!(" (hint: {remedy})"))
        .unwrap_or_default();
    format!("{field}{within}{}{hint}", diagnostic.message)
}

/// Cut at a character, with a mark that it was.
pub(crate) fn clip(mut text: String) -> String {
    if text.len() > MAX_MESSAGE {
        text.truncate(text.floor_char_boundary(MAX_MESSAGE));
        text.push('…');
    }
    text
}
