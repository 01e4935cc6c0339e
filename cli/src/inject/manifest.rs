//! Manifests in files: read, changed where they have pods, written again with all their fields.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use exeat_inject::workload::{Workload, judge, workload};
use serde_json::Value;

use super::{Change, Format};

/// More than the API server takes of one object, a hundred times over.
const MAX_FILE: u64 = 128 << 20;

/// Lists in lists are not written by hand.
const MAX_DEPTH: u32 = 8;

/// More documents are not told by name.
const MAX_NAMED: usize = 5;

/// Every document of the files, in their order.
pub(super) fn read(files: &[PathBuf]) -> anyhow::Result<Vec<Value>> {
    let mut documents = Vec::new();
    for file in files {
        let told = || format!("can't read {}", file.display());
        let mut text = String::new();
        let mut take = |from: &mut dyn Read| from.take(MAX_FILE + 1).read_to_string(&mut text);
        if file == Path::new("-") {
            take(&mut std::io::stdin()).with_context(told)?;
        } else {
            take(&mut File::open(file).with_context(told)?).with_context(told)?;
        }
        ensure!(
            text.len() as u64 <= MAX_FILE,
            "{} is larger than {MAX_FILE} bytes",
            file.display()
        );
        let found: Vec<Value> = serde_saphyr::from_multiple(&text)
            .map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
        documents.extend(found.into_iter().filter(|document| !document.is_null()));
    }
    Ok(documents)
}

/// Gives each template to `change`, and puts in its place what that answers.
pub(super) fn change(documents: &mut [Value], change: Change<'_>) -> anyhow::Result<()> {
    for document in documents {
        one(document, change, MAX_DEPTH)?;
    }
    Ok(())
}

fn one(document: &mut Value, change: Change<'_>, depth: u32) -> anyhow::Result<()> {
    let name = name(document);
    let Some(kind) = workload(document) else {
        return Ok(());
    };
    let (template, prefix) = match kind {
        Workload::List => {
            let items = document.get_mut("items").and_then(Value::as_array_mut);
            for item in items.into_iter().flatten() {
                let Some(depth) = depth.checked_sub(1) else {
                    bail!("{name}: lists in lists, more than {MAX_DEPTH} deep");
                };
                one(item, change, depth)?;
            }
            return Ok(());
        }
        Workload::Pod => (Some(document), String::new()),
        Workload::Template(path) => (
            path.iter()
                .try_fold(document, |value, key| value.get_mut(key)),
            format!("{}.", path.join(".")),
        ),
    };
    let template = template.with_context(|| format!("{name}: {prefix}spec is missing"))?;
    if let Some(changed) = change(&name, &prefix, template) {
        *template = changed;
    }
    Ok(())
}

/// What manifests may not say beside their pod templates.
pub(super) fn around(documents: &[Value]) -> Vec<String> {
    let mut refused = Vec::new();
    for document in documents {
        if workload(document) == Some(Workload::List) {
            let items = document.get("items").and_then(Value::as_array);
            refused.extend(around(items.map_or(&[], Vec::as_slice)));
        }
        let name = name(document);
        refused.extend(judge(document).iter().map(|one| format!("{name}: {one}")));
    }
    refused
}

/// ` (Kind/name, …)` of what was given; empty where nothing was.
pub(super) fn names(documents: &[Value]) -> String {
    let mut names: Vec<String> = documents.iter().take(MAX_NAMED).map(name).collect();
    match documents.len() {
        0 => return String::new(),
        count if count > MAX_NAMED => names.push("…".to_owned()),
        _ => {}
    }
    format!(" ({})", names.join(", "))
}

/// As kubectl names it.
fn name(document: &Value) -> String {
    let text = |pointer| document.pointer(pointer).and_then(Value::as_str);
    let name = text("/metadata/name").or_else(|| text("/metadata/generateName"));
    format!("{}/{}", text("/kind").unwrap_or("?"), name.unwrap_or("?"))
}

/// The documents as text.
pub(super) fn render(documents: &[Value], format: Format) -> anyhow::Result<String> {
    let mut text = String::new();
    match format {
        Format::Json => {
            for document in documents {
                text.push_str(&serde_json::to_string_pretty(document)?);
                text.push('\n');
            }
        }
        Format::Yaml => {
            for (index, document) in documents.iter().enumerate() {
                if index > 0 {
                    text.push_str("---\n");
                }
                text.push_str(&yaml(document)?);
            }
        }
    }
    Ok(text)
}

/// YAML has many ways to turn a text into something else: what is written is read again.
fn yaml(document: &Value) -> anyhow::Result<String> {
    let mut text = serde_saphyr::to_string(document).context("can't write YAML")?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let again: Value = serde_saphyr::from_str(&text).context("the YAML written can't be read")?;
    ensure!(
        again == *document,
        "{} can't be written as YAML; use --format json",
        name(document)
    );
    Ok(text)
}
