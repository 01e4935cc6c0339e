//! What the tests of policies share: calls written as text.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::Path as FilePath;

use exeat_policy::{Call, Content, Destination, Host, HttpCall, Plan, Protocol, Target, Verdict};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Deserialize;

/// One call and what must become of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// `GET https://…`, `tcp host:port` or `tls host:port`.
    pub(crate) call: String,
    /// Values are lists where a header is repeated.
    #[serde(default)]
    pub(crate) headers: Vec<(String, String)>,
    #[serde(default)]
    pub(crate) body: Option<String>,
    #[serde(default)]
    pub(crate) websocket: bool,
    /// `allow <rule> [with <credential>]`, `deny <reason>`, `shadow <reason>` or `refused`.
    pub(crate) expect: String,
    /// What the message must hold.
    #[serde(default)]
    pub(crate) message: Option<String>,
    #[serde(default)]
    pub(crate) note: Option<String>,
}

/// The files of a folder of this crate, by name. None is an error.
pub(crate) fn files(folder: &str, extension: &str) -> BTreeMap<String, String> {
    let folder = FilePath::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
    {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == extension) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            files.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

/// The verdict; an inner error where the target can't even be read. Outer errors are bad cases.
pub(crate) fn judge(plan: &Plan, case: &Case) -> Result<Result<Verdict, String>, String> {
    let (word, rest) = case
        .call
        .split_once(' ')
        .ok_or("a call is a word and a target")?;
    if matches!(word, "tcp" | "tls") {
        let (host, port) = rest.rsplit_once(':').ok_or("no port")?;
        let destination = Destination {
            host: Host::parse(host).map_err(|e| e.to_string())?,
            port: port.parse().map_err(|_| "no port")?,
        };
        let protocol = if word == "tcp" {
            Protocol::Tcp
        } else {
            Protocol::Tls
        };
        return Ok(Ok(plan.decide(&Call {
            destination: &destination,
            protocol,
        })));
    }
    let target = match Target::parse(rest) {
        Ok(target) => target,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in &case.headers {
        let name: HeaderName = name.parse().map_err(|_| "no header")?;
        headers.append(name, HeaderValue::from_str(value).map_err(|_| "no value")?);
    }
    if case.body.is_some() && !headers.contains_key("content-type") {
        headers.insert("content-type", HeaderValue::from_static("application/json"));
    }
    let mut http = HttpCall {
        scheme: target.scheme,
        method: Method::from_bytes(word.as_bytes()).map_err(|_| "no method")?,
        path: target.path,
        query: target.query,
        headers,
        websocket: case.websocket,
        content: Content::Unread,
    };
    let need = plan.body_need(&target.destination, &http);
    http.content = need.parse(&http, case.body.as_deref().unwrap_or_default().as_bytes());
    Ok(Ok(plan.decide(&Call {
        destination: &target.destination,
        protocol: Protocol::Http(&http),
    })))
}
