//! `exeat policy explain`: the verdict on one call, as the gate would give it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use exeat_policy::{
    Call, Content, Denial, Destination, Explanation, Grant, Host, HttpCall, Plan, Protocol, Reason,
    Target, TargetError, Verdict, compile,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use super::{Format, complain_of, input, print};

/// What `exeat policy explain` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A policy file; repeatable
    #[arg(long = "policy", required = true, value_name = "FILE")]
    policies: Vec<PathBuf>,
    /// The method; or `tcp` or `tls` for bytes that are not read
    method: String,
    /// The URL; HOST:PORT after `tcp` and `tls`
    url: String,
    /// A header of the request; repeatable
    #[arg(long = "header", short = 'H', value_name = "NAME:VALUE")]
    headers: Vec<String>,
    /// A file with the body of the request
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// The request asks to become a WebSocket
    #[arg(long)]
    websocket: bool,
    /// A label of the pod; without any, every policy applies
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// How to print the verdict
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let sources = input::sources(&arguments.policies)?;
    let labels = input::labels(&arguments.labels)?;
    let plan = match compile(&sources, labels.as_ref(), 0) {
        Ok(plan) => plan,
        Err(found) => {
            if arguments.format == Format::Json {
                print(&json!({"ok": false, "diagnostics": found}).to_string());
            } else {
                complain_of(&found);
            }
            return Ok(ExitCode::FAILURE);
        }
    };
    let explanation = explain(&plan, arguments)?;
    match arguments.format {
        Format::Text => print(&text(&explanation)),
        Format::Json => print(&json(&explanation).to_string()),
    }
    Ok(ExitCode::SUCCESS)
}

fn explain(plan: &Plan, arguments: &Arguments) -> anyhow::Result<Explanation> {
    if matches!(arguments.method.as_str(), "tcp" | "tls") {
        let Some((host, port)) = arguments.url.rsplit_once(':') else {
            bail!("after `{}`, write HOST:PORT", arguments.method);
        };
        let destination = Destination {
            host: Host::parse(host).with_context(|| format!("{host:?}"))?,
            port: port
                .parse()
                .with_context(|| format!("{port:?} is no port"))?,
        };
        let protocol = if arguments.method == "tcp" {
            Protocol::Tcp
        } else {
            Protocol::Tls
        };
        return Ok(plan.explain(&Call {
            destination: &destination,
            protocol,
        }));
    }
    let target = match Target::parse(&arguments.url) {
        Ok(target) => target,
        Err(error) => return Ok(refused(&error)),
    };
    let mut http = HttpCall {
        scheme: target.scheme,
        method: Method::from_bytes(arguments.method.as_bytes()).context("this is no method")?,
        path: target.path,
        query: target.query,
        headers: headers(arguments)?,
        websocket: arguments.websocket,
        content: Content::Unread,
    };
    let body = arguments.body.as_deref().map(input::body).transpose()?;
    let need = plan.body_need(&target.destination, &http);
    http.content = need.parse(&http, body.as_deref().unwrap_or_default());
    Ok(plan.explain(&Call {
        destination: &target.destination,
        protocol: Protocol::Http(&http),
    }))
}

/// What no gate would even judge.
fn refused(error: &TargetError) -> Explanation {
    let reason = match error {
        TargetError::Host(_) => Reason::InvalidHost,
        _ => Reason::InvalidRequest,
    };
    Explanation {
        verdict: Verdict::Deny(Denial::new(reason, error.to_string())),
        near: Vec::new(),
    }
}

fn headers(arguments: &Arguments) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for header in &arguments.headers {
        let Some((name, value)) = header.split_once(':') else {
            bail!("the header {header:?} is not NAME:VALUE");
        };
        let name =
            HeaderName::from_bytes(name.trim().as_bytes()).with_context(|| format!("{name:?}"))?;
        headers.append(
            name,
            HeaderValue::from_str(value.trim()).context("the value of a header")?,
        );
    }
    // What every client sends with such a body.
    if arguments.body.is_some() && !headers.contains_key(http::header::CONTENT_TYPE) {
        headers.insert(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
    }
    Ok(headers)
}

fn text(explanation: &Explanation) -> String {
    let mut lines = Vec::new();
    match &explanation.verdict {
        Verdict::Allow(grant) => match &grant.shadowed {
            None => lines.push(format!("allow by rule {} of {}", grant.rule, grant.policy)),
            Some(denial) => {
                lines.push("allow, because a Shadow policy only watches".to_owned());
                lines.push(format!(
                    "would be denied: {} ({})",
                    denial.message, denial.reason
                ));
            }
        },
        Verdict::Deny(denial) => {
            lines.push(format!("deny ({})", denial.reason));
            lines.push(denial.message.clone());
        }
    }
    if let Verdict::Allow(grant) = &explanation.verdict {
        if let Some(credential) = &grant.credential {
            lines.push(format!("with credential {}", credential.name));
        }
        if !grant.addresses.is_empty() {
            let ranges: Vec<String> = grant.addresses.iter().map(ToString::to_string).collect();
            lines.push(format!(
                "special-purpose addresses that may be dialled: {}",
                ranges.join(", ")
            ));
        }
    }
    if !explanation.near.is_empty() {
        lines.push(String::new());
        lines.push("Other rules for this host:".to_owned());
        for near in &explanation.near {
            lines.push(format!("  {}: {}", near.policy, near.message));
        }
    }
    lines.join("\n")
}

fn json(explanation: &Explanation) -> Value {
    let mut value = match &explanation.verdict {
        Verdict::Allow(grant) => granted(grant),
        Verdict::Deny(denial) => {
            let mut value = denied(denial);
            value["verdict"] = "deny".into();
            value
        }
    };
    value["others"] = explanation
        .near
        .iter()
        .map(|near| {
            json!({
                "policy": &*near.policy,
                "rule": &*near.rule,
                "effect": if near.denies { "deny" } else { "allow" },
                "reason": near.reason.map(Reason::code),
                "message": near.message,
            })
        })
        .collect();
    value
}

fn granted(grant: &Grant) -> Value {
    json!({
        "verdict": "allow",
        "policy": &*grant.policy,
        "rule": &*grant.rule,
        "mode": grant.mode.as_str(),
        "shadowed": grant.shadowed.as_ref().map(denied),
        "credential": grant.credential.as_ref().map(|credential| &*credential.name),
        "addresses": grant.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn denied(denial: &Denial) -> Value {
    json!({
        "reason": denial.reason.code(),
        "message": denial.message,
        "policy": denial.policy.as_deref(),
        "rule": denial.rule.as_deref(),
    })
}
