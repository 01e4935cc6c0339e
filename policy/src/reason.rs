//! Why a call was refused: one closed set for the whole gate, so that records, replies, metrics
//! and tests use the same words.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:literal;)+) => {
        /// Why a call was refused. `code()` is stable: records and replies carry it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[$doc])* $name,)+
        }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The stable name, in snake case.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)+
                }
            }

            /// The status of an HTTP reply that tells it.
            #[must_use]
            pub fn http_status(self) -> u16 {
                match self {
                    $(Self::$name => $status,)+
                }
            }
        }
    };
}

reasons! {
    /// No policy applies to the caller.
    NoPolicy = "no_policy", 403;
    /// No rule allows it.
    NoRule = "no_rule", 403;
    /// A deny rule matches it.
    DeniedByRule = "denied_by_rule", 403;
    /// A rule fits, but its `when` is false.
    ExpressionFalse = "expression_false", 403;
    /// A rule fits, but its `when` could not be evaluated.
    ExpressionError = "expression_error", 403;
    /// A rule fits but for the method.
    MethodNotAllowed = "method_not_allowed", 403;
    /// No rule lists the MCP tool or method.
    ToolNotAllowed = "tool_not_allowed", 403;
    /// No rule lists the model.
    ModelNotAllowed = "model_not_allowed", 403;
    /// The request has the provider run a tool, which no rule can allow yet.
    HostedToolNotAllowed = "hosted_tool_not_allowed", 403;
    /// No rule could allow the name, so DNS does not answer it.
    NameNotAllowed = "name_not_allowed", 403;
    /// No rule lets bytes pass unread, and these can't be read.
    OpaqueNotAllowed = "opaque_not_allowed", 403;
    /// The address is special-purpose and no rule names it.
    AddressForbidden = "address_forbidden", 403;
    /// The host is none.
    InvalidHost = "invalid_host", 400;
    /// The request is malformed or ambiguous.
    InvalidRequest = "invalid_request", 400;
    /// The body of a governed call can't be understood.
    BodyInvalid = "body_invalid", 403;
    /// The body of a governed call is over the limit.
    BodyTooLarge = "body_too_large", 403;
    /// SNI, Host and address do not name one destination.
    IdentityMismatch = "identity_mismatch", 403;
    /// A TLS connection without a server name.
    MissingSni = "missing_sni", 403;
    /// Neither TLS, HTTP nor declared tcp.
    UnrecognisedProtocol = "unrecognised_protocol", 403;
    /// The gate was asked to call itself.
    SelfCall = "self_call", 403;
    /// The caller may not use this gate.
    CallerNotAllowed = "caller_not_allowed", 403;
    /// The policy that allowed it is no longer in force.
    PolicyChanged = "policy_changed", 403;
    /// A limit of the gate is reached.
    LimitExceeded = "limit_exceeded", 429;
    /// The decision could not be recorded.
    JournalUnavailable = "journal_unavailable", 503;
    /// The credential could not be read.
    CredentialUnavailable = "credential_unavailable", 503;
    /// The gate is stopping.
    ShuttingDown = "shutting_down", 503;
    /// No connection to the upstream.
    UpstreamUnreachable = "upstream_unreachable", 502;
    /// The upstream's certificate is not the destination's.
    UpstreamUntrusted = "upstream_untrusted", 502;
    /// The upstream broke its protocol.
    UpstreamInvalid = "upstream_invalid", 502;
    /// The upstream did not answer in time.
    UpstreamTimeout = "upstream_timeout", 504;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}
