//! One identity per request: virtual address or `CONNECT` name, SNI, and every way HTTP has to say
//! a host must agree, or there is none.
//!
//! hyper accepts absolute-form targets beside any Host, and duplicate or missing Host fields; what
//! they may be is decided here alone. Leans towards refusing: nothing is guessed from a field that
//! is absent.

use exeat_policy::{Denial, Destination, Host, Plan, Reason, Scheme, Treatment};
use http::{Version, header, request::Parts, uri::Authority};

use super::{origin::Origin, sniff::Hello};

/// What the connection has shown of its destination before any request.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Where the connection was meant to go.
    pub origin: Origin,
    /// The name in the ClientHello, where there was one.
    pub sni: Option<Host>,
    /// What requests on this connection are carried by.
    pub scheme: Scheme,
    /// Whether the requests name their own destination (absolute-form on the explicit listener).
    pub proxy_request: bool,
}

/// Why a request has no destination.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct IdentityError {
    /// As it is recorded.
    pub reason: Reason,
    /// As the agent's developer reads it.
    pub message: String,
}

// === impl Identity ===

impl Identity {
    /// The identity of a connection that has said nothing yet.
    #[must_use]
    pub fn plain(origin: Origin) -> Self {
        Self {
            origin,
            sni: None,
            scheme: Scheme::Http,
            proxy_request: false,
        }
    }

    /// Takes in what a ClientHello says.
    ///
    /// A hello without a server name is refused unless the address itself was meant: names that
    /// the gate gave an address for are always sent by clients that mean them.
    pub fn learn(&mut self, hello: &Hello) -> Result<(), Denial> {
        self.scheme = Scheme::Https;
        let Some(name) = hello
            .accepted
            .client_hello()
            .server_name()
            .map(str::to_owned)
        else {
            let literal = self.origin.address.is_some() && self.origin.name.is_none();
            return if literal {
                Ok(())
            } else {
                Err(Denial::new(
                    Reason::MissingSni,
                    "the TLS ClientHello names no server, so nobody can tell whom it is for",
                ))
            };
        };
        let host = Host::parse(&name)
            .map_err(|error| Denial::new(Reason::InvalidHost, error.to_string()))?;
        if let Some(established) = &self.origin.name {
            agree_on("the name that was looked up", established, &host)?;
        }
        self.sni = Some(host);
        Ok(())
    }

    /// How a plan treats a connection with what is known of it so far.
    #[must_use]
    pub fn treatment(&self, plan: &Plan) -> Treatment {
        self.destination()
            .map_or(Treatment::Intercept, |to| plan.treatment(&to.host, to.port))
    }

    /// The destination that the connection alone has established, if any: for what carries no
    /// requests.
    #[must_use]
    pub fn destination(&self) -> Option<Destination> {
        let host = self.sni.clone().or_else(|| self.origin.name.clone());
        let host = host.or_else(|| {
            self.origin
                .address
                .map(|address| Host::from_ip(address.ip()))
        })?;
        Some(Destination {
            host,
            port: self.origin.port,
        })
    }

    /// The destination of one request on this connection.
    pub fn request(&self, parts: &Parts) -> Result<Destination, IdentityError> {
        let (host, port) = self.stated_authority(parts)?;
        let port = port.unwrap_or(self.scheme.default_port());
        if let Some(sni) = &self.sni {
            agree("the TLS server name", sni, &host)?;
        }
        if let Some(name) = &self.origin.name {
            agree("the name that was looked up", name, &host)?;
        }
        if self.sni.is_none()
            && self.scheme == Scheme::Https
            && let Some(address) = self.origin.address
        {
            // No name in the hello: only the address that was dialled can be meant.
            agree(
                "the address that was dialled",
                &Host::from_ip(address.ip()),
                &host,
            )?;
        }
        if let (Some(meant), Some(address)) = (host.ip(), self.origin.address)
            && self.origin.name.is_none()
            && !self.proxy_request
        {
            agree(
                "the address that was dialled",
                &Host::from_ip(address.ip()),
                &Host::from_ip(meant),
            )?;
        }
        if !self.proxy_request && port != self.origin.port {
            return Err(mismatch(format!(
                "the request names port {port}, the connection is to port {}",
                self.origin.port
            )));
        }
        Ok(Destination { host, port })
    }

    /// What the request itself says: target and Host, which must be one.
    fn stated_authority(&self, parts: &Parts) -> Result<(Host, Option<u16>), IdentityError> {
        if let Some(scheme) = parts.uri.scheme_str()
            && !scheme.eq_ignore_ascii_case(self.scheme.as_str())
        {
            return Err(invalid(format!(
                "the request's target says `{scheme}`, the connection is {}",
                self.scheme.as_str()
            )));
        }
        let target = parts.uri.authority().map(parse_authority).transpose()?;
        let mut hosts = parts.headers.get_all(header::HOST).iter();
        let stated = match (hosts.next(), hosts.next()) {
            (_, Some(_)) => return Err(invalid("more than one Host field".to_owned())),
            (Some(value), None) => Some(parse_host_field(value)?),
            (None, None) => None,
        };
        match (target, stated) {
            (Some(target), Some(stated)) => {
                if with_port(&target, self.scheme) != with_port(&stated, self.scheme) {
                    return Err(mismatch(format!(
                        "the request's target is `{}`, its Host field is `{}`",
                        target.0, stated.0
                    )));
                }
                Ok(target)
            }
            (Some(target), None) if parts.version == Version::HTTP_2 => Ok(target),
            (None, Some(stated)) if parts.version != Version::HTTP_2 => Ok(stated),
            (Some(_), None) => Err(invalid("no Host field (RFC 9112 section 3.2)".to_owned())),
            (None, Some(_)) => Err(invalid("no :authority (RFC 9113 section 8.3.1)".to_owned())),
            (None, None) => Err(invalid("the request names no host".to_owned())),
        }
    }
}

fn with_port((host, port): &(Host, Option<u16>), scheme: Scheme) -> (&Host, u16) {
    (host, port.unwrap_or(scheme.default_port()))
}

fn parse_host_field(value: &http::HeaderValue) -> Result<(Host, Option<u16>), IdentityError> {
    let text = value
        .to_str()
        .map_err(|_| invalid("the Host field is not ASCII".to_owned()))?;
    if text.contains(',') {
        return Err(invalid("more than one host in the Host field".to_owned()));
    }
    let authority: Authority = text
        .parse()
        .map_err(|_| invalid("the Host field is not a host".to_owned()))?;
    parse_authority(&authority)
}

fn parse_authority(authority: &Authority) -> Result<(Host, Option<u16>), IdentityError> {
    if authority.as_str().contains('@') {
        return Err(invalid("the host carries user information".to_owned()));
    }
    let host = authority.host();
    let after = &authority.as_str()[host.len()..];
    let port = match after.strip_prefix(':') {
        // RFC 3986 allows an empty port; nobody sends one but to confuse.
        Some(port) => Some(
            port.parse::<u16>()
                .ok()
                .filter(|&number| number != 0 && !port.starts_with('+'))
                .ok_or_else(|| {
                    invalid(format!("the host's port `{}` is none", port.escape_debug()))
                })?,
        ),
        None if after.is_empty() => None,
        None => return Err(invalid("the host has trailing characters".to_owned())),
    };
    let host = Host::parse(host).map_err(|error| IdentityError {
        reason: Reason::InvalidHost,
        message: error.to_string(),
    })?;
    Ok((host, port))
}

fn agree_on(what: &str, established: &Host, stated: &Host) -> Result<(), Denial> {
    if established == stated {
        return Ok(());
    }
    Err(Denial::new(
        Reason::IdentityMismatch,
        format!("{what} is `{established}`, the TLS server name is `{stated}`"),
    ))
}

impl From<IdentityError> for Denial {
    fn from(error: IdentityError) -> Self {
        Self::new(error.reason, error.message)
    }
}

fn agree(what: &str, established: &Host, stated: &Host) -> Result<(), IdentityError> {
    if established == stated {
        return Ok(());
    }
    Err(mismatch(format!(
        "{what} is `{established}`, the request's host is `{stated}`"
    )))
}

fn mismatch(message: String) -> IdentityError {
    IdentityError {
        reason: Reason::IdentityMismatch,
        message,
    }
}

fn invalid(message: String) -> IdentityError {
    IdentityError {
        reason: Reason::InvalidRequest,
        message,
    }
}

#[cfg(test)]
mod tests;
