//! The TLS front: hands a request to a plaintext server on this machine and streams its answer
//! back, because the servers that others wrote for such tests have no TLS.

use std::net::SocketAddr;

use http::{HeaderValue, Request, Response, Uri, header, request::Parts};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::body::{Body, BoxError, Watched};

pub(super) async fn forward(
    backend: SocketAddr,
    mut head: Parts,
    body: Watched,
) -> Result<Response<Body>, BoxError> {
    if let Some(authority) = head.uri.authority() {
        let host = HeaderValue::from_str(authority.as_str())?;
        head.headers.entry(header::HOST).or_insert(host);
    }
    let target = head
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    head.uri = target.parse::<Uri>()?;
    head.version = http::Version::HTTP_11;

    let stream = TcpStream::connect(backend).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let response = sender.send_request(Request::from_parts(head, body)).await?;
    Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
}
