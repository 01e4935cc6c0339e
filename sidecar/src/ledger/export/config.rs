//! Where records are exported to, from a flag or from OpenTelemetry's variables.
//!
//! In doubt the gate does not start: an export that was asked for and goes nowhere is worse.

use std::path::PathBuf;

use http::{HeaderName, HeaderValue, Uri};

/// How OTLP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP over gRPC; usually port 4317.
    Grpc,
    /// OTLP over HTTP with protobuf bodies; usually port 4318.
    HttpProtobuf,
}

/// A collector.
#[derive(Clone)]
pub struct ExportConfig {
    pub(super) uri: Uri,
    pub(super) protocol: Protocol,
    /// Often hold a token: they have no printable form.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Files of roots that are trusted beside the system's.
    pub(super) roots: Vec<PathBuf>,
}

/// The collector's address can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not a URL with a host.
    #[error("`{0}` is no OTLP endpoint; write `http://host:4317` or `https://host:4318/v1/logs`")]
    Endpoint(String),
    /// Another protocol.
    #[error("OTLP protocol `{0}` is not known; `grpc` and `http/protobuf` are")]
    Protocol(String),
    /// Headers that are none.
    #[error("OTLP headers can't be read; write `name=value,name=value`")]
    Headers,
    /// No roots to verify the collector with.
    #[error("the collector is reached over TLS, and there is nothing to verify it with: {0}")]
    Roots(String),
}

// === impl ExportConfig ===

impl ExportConfig {
    /// Reads an endpoint. Without `protocol`, a path or port 4318 means HTTP, all else gRPC.
    pub fn new(
        endpoint: &str,
        protocol: Option<&str>,
        headers: Option<&str>,
    ) -> Result<Self, ConfigError> {
        let shown = || ConfigError::Endpoint(without_user(endpoint));
        let uri: Uri = endpoint.trim().parse().map_err(|_| shown())?;
        let authority = uri.authority().ok_or_else(shown)?;
        if !matches!(uri.scheme_str(), Some("http" | "https"))
            || authority.host().is_empty()
            || authority.as_str().contains('@')
            || uri.query().is_some()
        {
            return Err(shown());
        }
        let protocol = match protocol.map(str::trim).filter(|text| !text.is_empty()) {
            Some("grpc") => Protocol::Grpc,
            Some("http/protobuf") => Protocol::HttpProtobuf,
            Some(other) => return Err(ConfigError::Protocol(other.to_owned())),
            None if uri.path() != "/" || uri.port_u16() == Some(4318) => Protocol::HttpProtobuf,
            None => Protocol::Grpc,
        };
        let uri = if protocol == Protocol::HttpProtobuf && !uri.path().ends_with("/v1/logs") {
            // The path of a base address, as OpenTelemetry defines it.
            let base = endpoint.trim().trim_end_matches('/');
            format!("{base}/v1/logs").parse().map_err(|_| shown())?
        } else {
            uri
        };
        let headers = headers.map(parse_headers).transpose()?.unwrap_or_default();
        Ok(Self {
            uri,
            protocol,
            headers,
            roots: Vec::new(),
        })
    }

    /// Reads OpenTelemetry's variables; `None` when they name no endpoint.
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ConfigError> {
        let either = |name: &str| {
            [
                format!("OTEL_EXPORTER_OTLP_LOGS_{name}"),
                format!("OTEL_EXPORTER_OTLP_{name}"),
            ]
            .iter()
            .find_map(|name| variable(name).filter(|value| !value.trim().is_empty()))
        };
        let Some(endpoint) = either("ENDPOINT") else {
            return Ok(None);
        };
        let (protocol, headers) = (either("PROTOCOL"), either("HEADERS"));
        Self::new(&endpoint, protocol.as_deref(), headers.as_deref()).map(Some)
    }

    /// Trusts the roots in these files too, beside the system's.
    #[must_use]
    pub fn trusting(mut self, roots: &[PathBuf]) -> Self {
        self.roots.extend_from_slice(roots);
        self
    }

    /// How it is spoken to.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }
}

impl std::fmt::Debug for ExportConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExportConfig")
            .field("uri", &self.uri)
            .field("protocol", &self.protocol)
            .field("headers", &self.headers.len())
            .finish_non_exhaustive()
    }
}

fn parse_headers(text: &str) -> Result<Vec<(HeaderName, HeaderValue)>, ConfigError> {
    text.split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').ok_or(ConfigError::Headers)?;
            let value = percent_encoding::percent_decode_str(value.trim()).collect::<Vec<_>>();
            let name = name.trim().to_ascii_lowercase();
            let name = HeaderName::try_from(name).map_err(|_| ConfigError::Headers)?;
            let mut value = HeaderValue::try_from(value).map_err(|_| ConfigError::Headers)?;
            value.set_sensitive(true);
            Ok((name, value))
        })
        .collect()
}

/// A mistyped endpoint may hold a password: it is not repeated.
fn without_user(endpoint: &str) -> String {
    match endpoint.rfind('@') {
        Some(at) => format!("…{}", &endpoint[at..]),
        None => endpoint.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn endpoints_mean_what_they_look_like() {
        for (endpoint, protocol, uri, expected) in [
            ("http://c:4317", None, "http://c:4317/", Protocol::Grpc),
            (
                "http://c:4318",
                None,
                "http://c:4318/v1/logs",
                Protocol::HttpProtobuf,
            ),
            (
                "http://c:4318/v1/logs",
                None,
                "http://c:4318/v1/logs",
                Protocol::HttpProtobuf,
            ),
            (
                "https://c/otlp/",
                None,
                "https://c/otlp/v1/logs",
                Protocol::HttpProtobuf,
            ),
            (
                "http://c:9",
                Some("http/protobuf"),
                "http://c:9/v1/logs",
                Protocol::HttpProtobuf,
            ),
            (
                "http://c:4318",
                Some("grpc"),
                "http://c:4318/",
                Protocol::Grpc,
            ),
        ] {
            let config = ExportConfig::new(endpoint, protocol, None).unwrap();
            assert_eq!(
                (config.uri.to_string().as_str(), config.protocol),
                (uri, expected)
            );
        }
    }

    #[test]
    fn what_goes_nowhere_is_refused_and_no_secret_is_repeated() {
        for endpoint in [
            "",
            "c:4317",
            "ftp://c",
            "http://",
            "http://u:secret@c:1",
            "http://c/?k=v",
        ] {
            let error = ExportConfig::new(endpoint, None, None).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert!(ExportConfig::new("http://c", Some("http/json"), None).is_err());
        let config =
            ExportConfig::new("http://c", None, Some("authorization=Bearer%20xyz")).unwrap();
        assert_eq!(config.headers[0].1, "Bearer xyz");
        assert!(!format!("{config:?}").contains("xyz"));
    }

    #[test]
    fn variables_for_logs_come_first() {
        let variable = |name: &str| match name {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://all:4317".to_owned()),
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT" => Some("http://logs:4317".to_owned()),
            _ => None,
        };
        let config = ExportConfig::from_variables(variable).unwrap().unwrap();
        assert_eq!(config.uri.host(), Some("logs"));
        assert!(ExportConfig::from_variables(|_| None).unwrap().is_none());
    }
}
