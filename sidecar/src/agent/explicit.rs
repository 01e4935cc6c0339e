//! The explicit listener: for clients that are told of a proxy (`CONNECT`, absolute-form targets).
//!
//! It is a second door to the same judgement, and gives nothing that the transparent one would not.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use exeat_policy::{Denial, Host, Reason, Scheme};
use http::{Method, Request, Response, request::Parts};
use http_body_util::{Empty, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{
    answer::{self, Shape},
    identify::Identity,
    origin::{Origin, caller},
    stream::Transport,
    strict::may_switch,
};
use crate::{
    decide::live::Line,
    flow,
    gate::Pod,
    serve::{self, AnswerBody, Ended, Raw, Stopped},
};

/// Serves one connection until it ends.
pub async fn serve(pod: &Arc<Pod>, tcp: TcpStream) {
    let line = Arc::new(Line::default());
    let here = Origin {
        caller: tcp
            .local_addr()
            .ok()
            .and_then(|local| caller(&tcp, &pod.callers, local)),
        ..nowhere()
    };
    let service = {
        let (pod, line, here) = (Arc::clone(pod), Arc::clone(&line), here.clone());
        service_fn(move |request| {
            let (pod, line, here) = (Arc::clone(&pod), Arc::clone(&line), here.clone());
            async move {
                let switching = may_switch(&request);
                let answer = respond(&pod, &line, here, request).await;
                Ok::<_, Infallible>(serve::last_unless_switched(switching, answer))
            }
        })
    };
    let result = tokio::select! {
        result = serve::http1(pod, tcp, service) => result,
        () = line.cut() => return,
    };
    match result {
        Err(error) if error.is_parse() => {
            let _: Ended = Ended::malformed(pod, &Identity::plain(here), false, &error);
        }
        Err(error) => tracing::debug!(%error, "connection to the explicit listener ended"),
        Ok(()) => {}
    }
}

async fn respond(
    pod: &Arc<Pod>,
    line: &Arc<Line>,
    here: Origin,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let (mut parts, body) = request.into_parts();
    if parts.method == Method::CONNECT {
        return match tunnel(&parts) {
            Ok(mut origin) => {
                origin.caller = here.caller;
                let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
                connect(pod, origin, upgrade)
            }
            Err(denial) => refused(pod, here, &parts, denial),
        };
    }
    let Some(port) = absolute_port(&parts) else {
        let denial = Denial::new(
            Reason::InvalidRequest,
            "this is a proxy: the request's target must be an absolute http:// URL, or use CONNECT",
        );
        return refused(pod, here, &parts, denial);
    };
    let identity = Identity {
        origin: Origin { port, ..here },
        sni: None,
        scheme: Scheme::Http,
        proxy_request: true,
    };
    serve::respond(pod, &identity, line, Request::from_parts(parts, body)).await
}

/// The tunnel is open at once: what may pass is judged on what it carries.
fn connect(
    pod: &Arc<Pod>,
    origin: Origin,
    upgrade: Option<hyper::upgrade::OnUpgrade>,
) -> Response<AnswerBody> {
    let pod = Arc::clone(pod);
    if let Some(upgrade) = upgrade {
        tokio::spawn(async move {
            if let Ok(tunnel) = upgrade.await {
                let transport = Transport::Tunnel(TokioIo::new(tunnel));
                drop(flow::connection(&pod, transport, origin).await);
            }
        });
    }
    Response::new(AnswerBody::Switched(Empty::new()))
}

/// Where a `CONNECT` wants to go: `host:port`, and a Host field that agrees (RFC 9110 section 9.3.6).
fn tunnel(parts: &Parts) -> Result<Origin, Denial> {
    let plain = parts.uri.scheme().is_none() && parts.uri.path_and_query().is_none();
    let authority = parts
        .uri
        .authority()
        .filter(|authority| plain && !authority.as_str().contains('@'))
        .ok_or_else(|| invalid("CONNECT needs host:port"))?;
    let port = authority
        .port_u16()
        .filter(|&port| port != 0)
        .ok_or_else(|| invalid("CONNECT needs a port"))?;
    let host = parse(authority.host())?;
    for stated in parts.headers.get_all(http::header::HOST) {
        let stated: http::uri::Authority = stated
            .to_str()
            .ok()
            .and_then(|stated| stated.parse().ok())
            .ok_or_else(|| invalid("the Host field is not a host"))?;
        if parse(stated.host())? != host {
            return Err(Denial::new(
                Reason::IdentityMismatch,
                "CONNECT and the Host field name different hosts",
            ));
        }
    }
    Ok(Origin {
        address: host.ip().map(|ip| SocketAddr::new(ip, port)),
        name: host.ip().is_none().then_some(host),
        port,
        caller: None,
    })
}

fn absolute_port(parts: &Parts) -> Option<u16> {
    let authority = parts.uri.authority()?;
    (parts.uri.scheme_str() == Some("http")).then(|| authority.port_u16().unwrap_or(80))
}

fn refused(pod: &Pod, here: Origin, parts: &Parts, denial: Denial) -> Response<AnswerBody> {
    let identity = Identity::plain(here);
    let plan = pod.policies.current();
    let Stopped { denial, id } =
        Stopped::refused(pod, &plan, &identity, None, &Raw::of(parts), denial);
    answer::refusal(&Shape::Http, &denial, id).map(|body: Bytes| AnswerBody::Own(Full::new(body)))
}

fn nowhere() -> Origin {
    Origin {
        address: None,
        port: 0,
        name: None,
        caller: None,
    }
}

fn parse(host: &str) -> Result<Host, Denial> {
    Host::parse(host).map_err(|error| Denial::new(Reason::InvalidHost, error.to_string()))
}

fn invalid(message: &str) -> Denial {
    Denial::new(Reason::InvalidRequest, message)
}
