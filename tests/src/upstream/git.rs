//! `git http-backend` as a CGI program: the server side of git over HTTPS, as git ships it.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use http::{HeaderName, HeaderValue, Response, StatusCode, header, request::Parts};

use super::body::{Body, BoxError, Watched, full, text};

pub(super) async fn answer(
    root: Option<&Path>,
    path: &str,
    head: &Parts,
    body: Watched,
) -> Result<Response<Body>, BoxError> {
    let Some(root) = root else {
        return Ok(text(StatusCode::NOT_FOUND, "no repositories here\n"));
    };
    let body = body.read().await?;
    let field = |name: HeaderName| {
        let value = head.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };

    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", head.method.as_str())
        .env("PATH_INFO", format!("/{path}"))
        .env("QUERY_STRING", head.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", field(header::CONTENT_TYPE))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", field(header::CONTENT_ENCODING))
        .env(
            "GIT_PROTOCOL",
            field(HeaderName::from_static("git-protocol")),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    // Whoever brings a credential may push; git asks for no more than that there is a name.
    if head.headers.contains_key(header::AUTHORIZATION) {
        command.env("REMOTE_USER", "pusher");
    } else if pushes(path, head.uri.query().unwrap_or_default()) {
        let mut response = text(StatusCode::UNAUTHORIZED, "a push needs a credential\n");
        let ask = HeaderValue::from_static("Basic realm=\"repositories\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, ask);
        return Ok(response);
    }

    let output = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn()?;
        let stdin = child.stdin.take();
        let writer = std::thread::spawn(move || {
            // A backend that has heard enough closes its end.
            stdin.map(|mut stdin| stdin.write_all(&body))
        });
        let output = child.wait_with_output();
        drop(writer.join());
        output
    })
    .await??;
    parse(&output.stdout)
}

fn pushes(path: &str, query: &str) -> bool {
    path.ends_with("/git-receive-pack") || query.contains("service=git-receive-pack")
}

/// A CGI answer: header lines, an empty line, the body.
fn parse(output: &[u8]) -> Result<Response<Body>, BoxError> {
    let end = output
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or("git http-backend gave no header")?;
    let mut response = Response::new(full(output[end + 4..].to_vec()));
    for line in std::str::from_utf8(&output[..end])?.lines() {
        let (name, value) = line
            .split_once(':')
            .ok_or("a header line without a colon")?;
        if name == "Status" {
            let code = value.split_whitespace().next().unwrap_or_default();
            *response.status_mut() = code.parse()?;
        } else {
            let name = HeaderName::from_bytes(name.as_bytes())?;
            response
                .headers_mut()
                .append(name, HeaderValue::from_str(value.trim())?);
        }
    }
    Ok(response)
}
