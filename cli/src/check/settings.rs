//! What the operator injects: from its arguments, or from what a pod was given. Pure.

use exeat_inject::names::{GUARD, SIDECAR};
use exeat_inject::{Durability, Image, PullPolicy, Settings};
use serde_json::Value;

use super::cluster::OPERATOR;

/// As the operator of this Deployment reads its arguments; `None` where it could not.
pub(super) fn of_operator(deployment: &Value) -> Option<Settings> {
    let containers = deployment["spec"]["template"]["spec"]["containers"].as_array();
    let words: Vec<&str> = containers
        .into_iter()
        .flatten()
        .filter(|container| container["name"] == "operator" || container["name"] == OPERATOR)
        .find_map(|container| container["args"].as_array())?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let mut settings = Settings::new(
        Image::parse(flag(&words, "sidecar-image")?).ok()?,
        Image::parse(flag(&words, "init-image")?).ok()?,
    );
    if let Some(policy) = flag(&words, "image-pull-policy") {
        settings.pull_policy = PullPolicy::parse(policy).ok()?;
    }
    settings.upstream_ca = words.contains(&"--upstream-ca");
    rest(&mut settings, &words);
    Some(settings)
}

/// As whoever made this pod had them: it then differs in nothing that is a setting.
pub(super) fn of_pod(pod: &Value) -> Option<Settings> {
    let part = |name: &str| {
        let list = pod["spec"]["initContainers"].as_array();
        list.into_iter().flatten().find(|it| it["name"] == name)
    };
    let (sidecar, guard) = (part(SIDECAR)?, part(GUARD)?);
    let image = |of: &Value| Image::parse(of["image"].as_str()?).ok();
    let words: Vec<&str> = sidecar["args"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut settings = Settings::new(image(sidecar)?, image(guard)?);
    if let Some(policy) = sidecar["imagePullPolicy"].as_str() {
        settings.pull_policy = PullPolicy::parse(policy).ok()?;
    }
    settings.upstream_ca = flag(&words, "upstream-ca").is_some();
    rest(&mut settings, &words);
    Some(settings)
}

fn rest(settings: &mut Settings, words: &[&str]) {
    settings.otlp = flag(words, "otlp").map(str::to_owned);
    settings.durability = flag(words, "durability").and_then(|level| Durability::parse(level).ok());
    settings.name_servers = flags(words, "nameserver").map(str::to_owned).collect();
}

fn flag<'a>(words: &'a [&'a str], name: &'a str) -> Option<&'a str> {
    flags(words, name).next()
}

/// `--name=value` and `--name value`.
fn flags<'a>(words: &'a [&'a str], name: &'a str) -> impl Iterator<Item = &'a str> {
    words.iter().enumerate().filter_map(move |(at, word)| {
        let rest = word.strip_prefix("--")?.strip_prefix(name)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(value),
            None if rest.is_empty() => words.get(at + 1).copied(),
            None => None,
        }
    })
}
