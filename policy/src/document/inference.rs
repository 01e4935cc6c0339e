//! Inference rules: a provider and the models that may be asked.

use super::destination;
use crate::body::Provider;
use crate::host::Host;
use crate::limits::MAX_WORD;
use crate::pattern::{Glob, HostPattern};
use crate::plan::rule::{InferenceMatch, Kind, Scope};
use crate::tree::{Fields, File};

pub(super) fn read(file: &File, fields: &Fields<'_>) -> Option<(Scope, Kind)> {
    fields.need("provider")?;
    let provider = fields.word(
        "provider",
        &[
            ("openai", Provider::OpenAi),
            ("anthropic", Provider::Anthropic),
        ],
    )?;
    let mut scope = destination::read(file, fields, false);
    if !fields.has("hosts") {
        let host = Host::parse(provider.default_host()).ok()?;
        scope.hosts = vec![HostPattern::Exact(host)];
    }
    if scope.passthrough {
        file.refuse(
            fields.span(),
            "models can't be judged in what is passed through unread",
            "have TLS terminated",
        );
    }
    let models = Fields::open(
        file,
        fields.need("models")?,
        "`models`",
        &["allow"],
        &["rewrite"],
    )?;
    models.need("allow")?;
    let mut globs: Vec<Glob> = models
        .texts("allow")
        .unwrap_or_default()
        .into_iter()
        .filter(|(text, node)| {
            let fits = text.chars().count() <= MAX_WORD;
            if !fits {
                file.refuse(
                    &node.span,
                    format!("a model's name has at most {MAX_WORD} characters"),
                    "correct it",
                );
            }
            fits
        })
        .map(|(text, _)| Glob::new(text))
        .collect();
    globs.sort();
    globs.dedup();
    Some((
        scope,
        Kind::Inference(InferenceMatch {
            provider,
            models: globs,
        }),
    ))
}
