//! Accepts connections, with TLS or without, and hands each request to [`super::answer`].

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{
    answer,
    record::{Connection, Log, Recorded},
};

/// What all connections of one upstream share.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) git_root: Option<PathBuf>,
    pub(super) fronts: BTreeMap<String, SocketAddr>,
    pub(super) log: Arc<Log>,
}

pub(super) async fn tls(listener: TcpListener, config: Arc<ServerConfig>, site: Arc<Site>) {
    let acceptor = TlsAcceptor::from(config);
    let mut connections = JoinSet::new();
    while let Ok((stream, peer)) = accept(&listener, &mut connections).await {
        let (acceptor, site) = (acceptor.clone(), Arc::clone(&site));
        connections.spawn(async move {
            let index = site.log.connect(connection(peer, true));
            // A refused handshake is a result that tests look for: the connection stays on record
            // without a byte.
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let session = stream.get_ref().1;
            let alpn = session
                .alpn_protocol()
                .map(|protocol| String::from_utf8_lossy(protocol).into_owned());
            let name = session.server_name().map(ToString::to_string);
            site.log.negotiated(index, name, alpn);
            serve(stream, index, site).await;
        });
    }
}

pub(super) async fn plain(listener: TcpListener, site: Arc<Site>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, peer)) = accept(&listener, &mut connections).await {
        let site = Arc::clone(&site);
        connections.spawn(async move {
            let index = site.log.connect(connection(peer, false));
            serve(stream, index, site).await;
        });
    }
}

/// The next connection; what has ended meanwhile is forgotten.
async fn accept(
    listener: &TcpListener,
    connections: &mut JoinSet<()>,
) -> std::io::Result<(TcpStream, SocketAddr)> {
    while connections.try_join_next().is_some() {}
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer))
}

fn connection(peer: SocketAddr, tls: bool) -> Connection {
    Connection {
        peer,
        tls,
        server_name: None,
        alpn: None,
        bytes: Vec::new(),
    }
}

async fn serve<S>(stream: S, index: usize, site: Arc<Site>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let stream = Recorded::new(stream, Arc::clone(&site.log), index);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().half_close(true).max_buf_size(1 << 20);
    builder.http2().enable_connect_protocol();
    let service = service_fn(move |request| answer::answer(request, Arc::clone(&site), index));
    // The other side ended it, or broke it; either way there is nobody to tell.
    let _ended = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await;
}
