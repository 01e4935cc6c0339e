//! THE page: a connection's and a request's whole life.
//!
//! Every step consumes what the step before made, and none can be left out: `authorize` takes the
//! permit that only `decide` makes and the receipt that only `ledger` makes, and nothing is dialled
//! without what it returns. In doubt each step ends in a refusal, which is recorded as well.

use std::sync::Arc;

use bytes::BytesMut;
use exeat_policy::{Denial, Reason, Treatment};
use http::request::Parts;
use hyper::body::Incoming;

use crate::{
    agent::{
        answer::Shape,
        call,
        identify::Identity,
        origin::Origin,
        sniff::{Sniffed, sniff},
        stream::{Stream, Transport},
    },
    decide::{
        self,
        live::{Facts, FactsProtocol},
    },
    gate::Pod,
    serve::{self, Answer, Ended},
    upstream::{
        authorize::authorize,
        dial,
        forward::{Begun, forward, revoked},
        relay::Source,
        splice,
        upgrade::websocket,
    },
};

/// One connection from the agent, from its first byte to its last.
pub async fn connection(
    pod: &Arc<Pod>,
    mut transport: Transport,
    origin: Origin,
) -> Result<(), Ended> {
    let mut identity = Identity::plain(origin);
    if identity.treatment(&pod.policies.current()) == Treatment::Tcp {
        let ahead = BytesMut::new();
        return Box::pin(opaque(pod, identity, transport, ahead, FactsProtocol::Tcp)).await;
    }
    let mut ahead = BytesMut::new();
    let sniffed = tokio::select! {
        sniffed = Box::pin(sniff(&mut transport, &mut ahead)) => sniffed,
        () = serve::stopping(pod) => return Err(Ended), // it has said nothing yet
    };
    let hello = match sniffed {
        Ok(Sniffed::Tls(hello)) => hello,
        Ok(plain @ (Sniffed::Http1 | Sniffed::Http2)) => {
            let http2 = matches!(plain, Sniffed::Http2);
            let stream = Stream::new(ahead, transport);
            return Box::pin(serve::http(pod, stream, http2, Arc::new(identity))).await;
        }
        Err(error) => return Err(Ended::unread(pod, &identity, transport, error)),
    };
    if let Err(denial) = identity.learn(&hello) {
        return Err(Ended::refused(
            pod,
            &identity,
            Some(transport),
            "tls",
            denial,
        ));
    }
    if identity.treatment(&pod.policies.current()) == Treatment::Passthrough {
        if hello.encrypted_hello {
            let denial = Denial::new(
                Reason::OpaqueNotAllowed,
                "an encrypted ClientHello hides the real name, so it can't be passed through",
            );
            return Err(Ended::refused(
                pod,
                &identity,
                Some(transport),
                "tls",
                denial,
            ));
        }
        return Box::pin(opaque(pod, identity, transport, ahead, FactsProtocol::Tls)).await;
    }
    let address = identity.origin.address.map(|address| address.ip());
    // Each step in a box of its own: an idle connection must not hold the room of them all.
    let accepted = Box::pin(pod.terminator.accept(hello, ahead, transport, address)).await;
    match accepted {
        Ok(tls) => {
            let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
            Box::pin(serve::http(pod, tls, http2, Arc::new(identity))).await
        }
        Err(error) => Err(Ended::handshake(pod, &identity, &error)),
    }
}

/// A connection whose bytes a rule lets pass unread.
async fn opaque(
    pod: &Arc<Pod>,
    identity: Identity,
    mut transport: Transport,
    ahead: BytesMut,
    protocol: FactsProtocol,
) -> Result<(), Ended> {
    let name = if matches!(protocol, FactsProtocol::Tcp) {
        "tcp"
    } else {
        "tls"
    };
    let Some(destination) = identity.destination() else {
        let denial = Denial::new(Reason::InvalidHost, "the connection has no destination");
        return Err(Ended::refused(
            pod,
            &identity,
            Some(transport),
            name,
            denial,
        ));
    };
    let facts = Arc::new(Facts {
        destination,
        protocol,
    });
    let permit = match decide::judge(pod.policies.current(), &identity, facts, name) {
        Ok(permit) => permit,
        Err(refusal) => return Err(Ended::recorded(pod, Some(transport), refusal)),
    };
    let begun = match begin(pod, permit).await {
        Ok(begun) => begun,
        Err(stopped) => return Err(Ended::stopped(Some(transport), stopped)),
    };
    let dialled = tokio::select! {
        dialled = dial::tcp(&begun.authorized, pod.pool.resolver()) => dialled.map_err(Denial::from),
        () = begun.entered.call().revoked() => Err(revoked()),
    };
    let (mut upstream, address) = match dialled {
        Ok(dialled) => dialled,
        Err(denial) => return Err(Ended::failed(transport, &begun.guard, &denial)),
    };
    begun.guard.dialled(address);
    let ended = tokio::select! {
        ended = splice::relay(&mut transport, &mut upstream, ahead, &begun.guard) => ended.map_err(|error| Denial::new(Reason::UpstreamUnreachable, error.to_string())),
        () = begun.entered.call().revoked() => Err(revoked()),
    };
    match ended {
        Ok(()) => begun.guard.settled(),
        Err(denial) => return Err(Ended::failed(transport, &begun.guard, &denial)),
    }
    Ok(())
}

/// One request, from the agent's words to the world and back. The body is taken only if it goes on.
pub async fn request(
    pod: &Arc<Pod>,
    identity: &Identity,
    parts: Parts,
    body: &mut Option<Incoming>,
    shape: &mut Shape,
) -> Result<Answer, serve::Stopped> {
    let plan = pod.policies.current(); // one generation for the whole request
    let raw = serve::Raw::of(&parts);
    let refused = |destination, denial| {
        serve::Stopped::refused(pod, &plan, identity, destination, &raw, denial)
    };
    let destination = identity
        .request(&parts)
        .map_err(|error| refused(None, error.into()))?;
    let mut received =
        call::read(parts, identity.scheme).map_err(|denial| refused(Some(&destination), denial))?;
    *shape = Shape::of(&received.call);
    let need = plan.body_need(&destination, &received.call); // a body is read only if a rule looks into it
    let whole = match body.as_mut() {
        Some(body) => call::read_body(body, need, &mut received.call).await,
        None => Ok(None),
    }
    .map_err(|denial| refused(Some(&destination), denial))?;
    *shape = Shape::of(&received.call);
    let name = received.protocol();
    let http = FactsProtocol::Http(received.call);
    let facts = Arc::new(Facts {
        destination,
        protocol: http,
    });
    let permit = decide::judge(Arc::clone(&plan), identity, facts, name)
        .map_err(|refusal| serve::Stopped::recorded(pod, refusal))?;
    let facts = Arc::clone(permit.facts());
    let FactsProtocol::Http(http) = &facts.protocol else {
        return Err(serve::Stopped::impossible());
    };
    let begun = begin(pod, permit).await?;
    let Some(body) = whole
        .map(Source::Whole)
        .or_else(|| body.take().map(Source::Stream))
    else {
        return Err(serve::Stopped::impossible());
    };
    let (id, guard) = (begun.guard.id(), Arc::clone(&begun.guard));
    let failed = |denial: Denial| {
        guard.failed(format!("{}: {}", denial.reason, denial.message));
        serve::Stopped { denial, id }
    };
    match received.upgrade {
        Some(agent) => Box::pin(websocket(begun, http, agent, received.http2, &pod.pool))
            .await
            .map(Answer::switched),
        None => forward(begun, http, received.http2, body, &pod.pool)
            .await
            .map(Answer::relayed),
    }
    .map_err(failed)
}

/// From a permit to the right to dial: on record, entered among the calls under way, authorised.
async fn begin(pod: &Arc<Pod>, permit: decide::Permit) -> Result<Begun, serve::Stopped> {
    let receipt = match pod.ledger.decide(permit.decision()).await {
        Ok(receipt) => receipt, // durable, or nothing leaves
        Err(error) => return Err(serve::Stopped::unrecorded(pod, permit.id(), &error)),
    };
    pod.metrics.allowed();
    let guard = Arc::new(pod.ledger.guard(&receipt));
    let failed = |denial: Denial| {
        guard.failed(format!("{}: {}", denial.reason, denial.message));
        serve::Stopped {
            denial,
            id: guard.id(),
        }
    };
    let entered = pod.calls.enter(Arc::clone(permit.facts()));
    if !entered.still_allowed(permit.plan(), &pod.policies.current()) {
        return Err(failed(revoked()));
    }
    let authorized = authorize(permit, receipt, &pod.credentials).map_err(failed)?;
    Ok(Begun {
        authorized,
        entered,
        guard,
    })
}

/// A connection to the transparent listener: where to is what the kernel says.
pub async fn transparent(pod: &Arc<Pod>, tcp: tokio::net::TcpStream) -> Result<(), Ended> {
    match crate::agent::origin::original(&tcp, &pod.names, &pod.callers) {
        Ok(origin) => connection(pod, Transport::Tcp(tcp), origin).await,
        Err(error) => Err(Ended::without_origin(pod, tcp, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each connection costs, idle or not: without the boxes above it is 15 KiB.
    #[test]
    fn a_connection_holds_little() {
        fn size<'a, A: 'a, B, F: Future>(_: fn(&'a A, B) -> F) -> usize {
            size_of::<F>()
        }
        let held = size(transparent);
        assert!(held <= 4 * 1024, "{held} bytes");
    }
}
