//! What the upstream answers to each path. A path that means nothing in particular is echoed.

use std::{convert::Infallible, fmt::Write as _, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use sha2::{Digest as _, Sha256};

use super::{
    body::{Body, BoxError, Watched, full, json, text},
    front, git, grpc, models,
    serve::Site,
    stream, websocket,
};

/// Answers one request; a failure of the upstream's own is a 502 with its reason.
pub(super) async fn answer(
    mut request: Request<Incoming>,
    site: Arc<Site>,
    connection: usize,
) -> Result<Response<Body>, Infallible> {
    let upgrade = websocket::wanted(&request).then(|| hyper::upgrade::on(&mut request));
    let (head, body) = request.into_parts();
    let entry = site.log.begin(connection, &head);
    let body = Watched::new(body, entry.clone());
    let is_head = head.method == Method::HEAD;
    let host = entry.get().host;
    let name = host.split(':').next().unwrap_or_default();

    let answered = if let Some(backend) = site.fronts.get(name) {
        front::forward(*backend, head, body).await
    } else if let (Some(upgrade), "/ws") = (upgrade, head.uri.path()) {
        Ok(websocket::accept(&head, upgrade, entry))
    } else if grpc::wanted(&head) {
        grpc::answer(&head, body).await
    } else {
        route(&head, body, &site).await
    };
    let response = answered.unwrap_or_else(|error| {
        text(
            StatusCode::BAD_GATEWAY,
            format!("the test upstream failed: {error}\n"),
        )
    });
    // Over HTTP/2 nobody else takes the body away.
    Ok(if is_head {
        response.map(|_| full(""))
    } else {
        response
    })
}

async fn route(
    head: &http::request::Parts,
    body: Watched,
    site: &Site,
) -> Result<Response<Body>, BoxError> {
    let query = head.uri.query().unwrap_or_default();
    let number = |name, default| {
        parameter(query, name)
            .and_then(|n| n.parse().ok())
            .unwrap_or(default)
    };
    let path = head.uri.path();
    let (first, rest) = path
        .trim_start_matches('/')
        .split_once('/')
        .unwrap_or((path.trim_start_matches('/'), ""));
    match (first, &head.method) {
        ("status", _) => {
            let status = StatusCode::from_bytes(rest.as_bytes())?;
            Ok(text(status, format!("{status}\n")))
        }
        ("redirect", _) => {
            let mut response = text(StatusCode::FOUND, "look elsewhere\n");
            let to = query.strip_prefix("to=").unwrap_or("/echo");
            response.headers_mut().insert(header::LOCATION, to.parse()?);
            Ok(response)
        }
        ("slow", _) => {
            tokio::time::sleep(Duration::from_millis(number("ms", 1000))).await;
            echo(body).await
        }
        ("bytes", _) => Ok(stream::bytes(rest.parse()?)),
        ("chunked", _) => Ok(stream::chunked(
            number("chunks", 5),
            Duration::from_millis(number("ms", 0)),
        )),
        ("sse", _) => Ok(stream::events(
            number("events", 5),
            Duration::from_millis(number("ms", 0)),
        )),
        ("endless-line", _) => Ok(stream::endless_line()),
        ("trailers", _) => Ok(stream::trailers()),
        ("duplex", _) => Ok(stream::duplex(body)),
        ("cut", _) => Ok(stream::cut()),
        ("digest", _) => digest(body).await,
        ("reports" | "comments", _) => {
            body.read().await?;
            Ok(signed_in(head, path))
        }
        ("git", _) => git::answer(site.git_root.as_deref(), rest, head, body).await,
        ("v1", &Method::POST | &Method::GET) if models::knows(rest) => {
            models::answer(rest, head, body).await
        }
        _ => echo(body).await,
    }
}

/// The request as it was understood, as JSON.
async fn echo(body: Watched) -> Result<Response<Body>, BoxError> {
    let entry = body.entry().clone();
    body.read().await?;
    Ok(json(StatusCode::OK, &entry.get().json()))
}

/// What an API says to those it knows, without repeating what they showed.
fn signed_in(head: &http::request::Parts, path: &str) -> Response<Body> {
    let known = head.headers.contains_key(header::AUTHORIZATION);
    let (status, said) = if known {
        (StatusCode::OK, "welcome")
    } else {
        (StatusCode::UNAUTHORIZED, "who are you?")
    };
    json(
        status,
        &serde_json::json!({"path": path, "signed_in": known, "said": said}),
    )
}

/// What a large upload came to, without sending it back.
async fn digest(body: Watched) -> Result<Response<Body>, BoxError> {
    use http_body_util::BodyExt as _;
    let mut body = body;
    let (mut sum, mut length) = (Sha256::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            sum.update(data);
            length += data.len();
        }
    }
    let sum = sum.finalize();
    let mut hex = String::new();
    for byte in sum {
        write!(hex, "{byte:02x}")?;
    }
    Ok(json(
        StatusCode::OK,
        &serde_json::json!({"length": length, "sha256": hex}),
    ))
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}
