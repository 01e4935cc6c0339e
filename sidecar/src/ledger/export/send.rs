//! One request to a collector, over gRPC or HTTP, and what its answer means for the records.
//!
//! In doubt an answer means "later": a record is given up only when the collector says that it will
//! never take it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use prost::Message as _;
use rustls::RootCertStore;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Code;
use tonic::metadata::{Ascii, MetadataKey, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use crate::upstream::tls::roots;

use super::config::{ConfigError, ExportConfig, Protocol};

/// What is read of an answer: a status, and a message to be shown.
const ANSWER_LIMIT: usize = 64 * 1024;

/// What a message of the collector may take in our records.
const MESSAGE_LIMIT: usize = 200;

/// What the collector did with a batch.
pub(super) enum Answer {
    /// It has all of it.
    Taken,
    /// It has all but so many.
    Partly { rejected: u64, message: String },
    /// It has none, and never will.
    Refused(String),
    /// It has none, now.
    Later {
        message: String,
        wait: Option<Duration>,
    },
}

/// The way to a collector. Connections are made when first needed, and again after a failure.
pub(super) struct Sender {
    config: ExportConfig,
    way: Way,
}

enum Way {
    Grpc {
        endpoint: Box<Endpoint>,
        client: Option<LogsServiceClient<Channel>>,
    },
    Http {
        tls: Option<TlsConnector>,
        connection: Option<SendRequest<Full<Bytes>>>,
    },
}

// === impl Sender ===

impl Sender {
    pub(super) fn new(config: ExportConfig) -> Result<Self, ConfigError> {
        let secure = config.uri.scheme_str() == Some("https");
        let trusted =
            || roots(&config.roots).map_err(|error| ConfigError::Roots(error.to_string()));
        let way = match config.protocol {
            Protocol::Grpc => {
                let mut endpoint = Channel::builder(config.uri.clone());
                if secure {
                    let tls = ClientTlsConfig::new().trust_anchors(trusted()?.roots);
                    endpoint = endpoint
                        .tls_config(tls)
                        .map_err(|error| ConfigError::Roots(error.to_string()))?;
                }
                Way::Grpc {
                    endpoint: Box::new(endpoint),
                    client: None,
                }
            }
            Protocol::HttpProtobuf => {
                let tls = if secure {
                    Some(connector(trusted()?)?)
                } else {
                    None
                };
                Way::Http {
                    tls,
                    connection: None,
                }
            }
        };
        Ok(Self { config, way })
    }

    pub(super) async fn send(&mut self, request: &ExportLogsServiceRequest) -> Answer {
        match &mut self.way {
            Way::Grpc { endpoint, client } => {
                // Made here because a channel needs the runtime about it.
                let client =
                    client.get_or_insert_with(|| LogsServiceClient::new(endpoint.connect_lazy()));
                grpc(client, &self.config, request).await
            }
            Way::Http { tls, connection } => {
                let body = Bytes::from(request.encode_to_vec());
                // Taken out, so that a request given up half-way takes its connection along.
                let reused = connection.take();
                match post(reused, tls.as_ref(), &self.config, body).await {
                    Ok((answer, kept)) => {
                        *connection = Some(kept);
                        answer
                    }
                    Err(error) => Answer::Later {
                        message: shown(&error.to_string()),
                        wait: None,
                    },
                }
            }
        }
    }
}

async fn grpc(
    client: &mut LogsServiceClient<Channel>,
    config: &ExportConfig,
    request: &ExportLogsServiceRequest,
) -> Answer {
    let mut request = tonic::Request::new(request.clone());
    for (name, value) in &config.headers {
        if let (Ok(name), Ok(value)) = (
            MetadataKey::<Ascii>::from_bytes(name.as_str().as_bytes()),
            MetadataValue::<Ascii>::try_from(value.as_bytes()),
        ) {
            request.metadata_mut().insert(name, value);
        }
    }
    match client.export(request).await {
        Ok(answer) => taken(answer.into_inner().partial_success),
        Err(status) if status.code() == Code::InvalidArgument => {
            Answer::Refused(shown(&format!("{}: {}", status.code(), status.message())))
        }
        Err(status) => {
            let message = shown(&format!("{}: {}", status.code(), status.message()));
            Answer::Later {
                message,
                wait: None,
            }
        }
    }
}

async fn post(
    reused: Option<SendRequest<Full<Bytes>>>,
    tls: Option<&TlsConnector>,
    config: &ExportConfig,
    body: Bytes,
) -> anyhow::Result<(Answer, SendRequest<Full<Bytes>>)> {
    let mut connection = match reused {
        Some(connection) if connection.is_ready() => connection,
        _ => connect(tls, config).await?,
    };
    let authority = config
        .uri
        .authority()
        .map_or("", |authority| authority.as_str());
    let mut request = Request::post(config.uri.path())
        .header(HOST, authority)
        .header(CONTENT_TYPE, "application/x-protobuf");
    for (name, value) in &config.headers {
        request = request.header(name, value);
    }
    let response = connection
        .send_request(request.body(Full::new(body))?)
        .await?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_LIMIT).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
    let answer = match head.status {
        status if status.is_success() => match ExportLogsServiceResponse::decode(body) {
            Ok(answer) => taken(answer.partial_success),
            // Taken, by one who answers in another format.
            Err(_) => Answer::Taken,
        },
        status @ (StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE) => {
            Answer::Refused(format!("the collector answered {status}"))
        }
        // A wrong path or a missing token is mended by people, and then nothing must be lost.
        status => Answer::Later {
            message: format!("the collector answered {status}"),
            wait: head
                .headers
                .get(RETRY_AFTER)
                .and_then(|wait| wait.to_str().ok()?.parse().ok())
                .map(Duration::from_secs),
        },
    };
    Ok((answer, connection))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the operator's collector, named on the command line, and no call of an agent's"
)]
async fn connect(
    tls: Option<&TlsConnector>,
    config: &ExportConfig,
) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let host = config
        .uri
        .host()
        .unwrap_or_default()
        .trim_matches(['[', ']']);
    let port = config
        .uri
        .port_u16()
        .unwrap_or(if tls.is_some() { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await?;
    let Some(tls) = tls else {
        return handshake(TokioIo::new(stream)).await;
    };
    let name = ServerName::try_from(host.to_owned())?;
    handshake(TokioIo::new(tls.connect(name, stream).await?)).await
}

async fn handshake<I>(io: I) -> anyhow::Result<SendRequest<Full<Bytes>>>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(io).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the collector's connection ended");
        }
    });
    Ok(sender)
}

fn connector(roots: RootCertStore) -> Result<TlsConnector, ConfigError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::Roots(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(client)))
}

fn taken(partial: Option<ExportLogsPartialSuccess>) -> Answer {
    match partial {
        Some(partial) if partial.rejected_log_records > 0 => Answer::Partly {
            rejected: partial.rejected_log_records.unsigned_abs(),
            message: shown(&partial.error_message),
        },
        _ => Answer::Taken,
    }
}

fn shown(message: &str) -> String {
    message[..message.floor_char_boundary(MESSAGE_LIMIT)].to_owned()
}
