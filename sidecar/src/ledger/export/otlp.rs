//! A journal's line as an OpenTelemetry log record.
//!
//! The body is the line as it stands in the journal, so an export can be verified like one; the
//! attributes are for those who search. Names follow OpenTelemetry's conventions where there is one,
//! else `exeat.`. In doubt a field is only in the body.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::tail::Record;
use crate::ledger::record::Principal;
use crate::ledger::shared::{CLOSED, DECISION, OPENED, OUTCOME};

/// Where a field of a decision or outcome goes. The first part of each is a JSON pointer.
const ATTRIBUTES: [(&str, &str); 42] = [
    ("/id", "log.record.uid"),
    ("/seq", "exeat.seq"),
    ("/hash", "exeat.hash"),
    ("/decision_id", "exeat.decision.id"),
    ("/decision", "exeat.decision"),
    ("/reason", "exeat.decision.reason"),
    ("/message", "exeat.decision.message"),
    ("/mode", "exeat.policy.mode"),
    ("/generation", "exeat.policy.generation"),
    ("/bundle", "exeat.policy.digest"),
    ("/plan", "exeat.policy.plan"),
    ("/policy", "security_rule.ruleset.name"),
    ("/rule", "security_rule.name"),
    ("/shadowed/reason", "exeat.shadowed.reason"),
    ("/shadowed/rule", "exeat.shadowed.rule"),
    ("/credential", "exeat.credential.ref"),
    ("/caller/uid", "exeat.caller.uid"),
    ("/count", "exeat.count"),
    ("/destination/host", "server.address"),
    ("/destination/port", "server.port"),
    ("/destination/address", "network.local.address"),
    ("/protocol", "exeat.protocol"),
    ("/http/method", "http.request.method"),
    ("/http/scheme", "url.scheme"),
    ("/http/path", "url.path"),
    ("/http/query", "url.query"),
    ("/http/user_agent", "user_agent.original"),
    ("/inference/dialect", "exeat.inference.dialect"),
    ("/inference/model", "gen_ai.request.model"),
    ("/inference/stream", "gen_ai.request.stream"),
    ("/inference/max_output_tokens", "gen_ai.request.max_tokens"),
    ("/dns/name", "dns.question.name"),
    ("/dns/type", "exeat.dns.type"),
    ("/tcp/opaque", "exeat.opaque"),
    ("/tcp/server_name", "tls.client.server_name"),
    ("/status", "http.response.status_code"),
    ("/bytes/sent", "exeat.bytes.sent"),
    ("/bytes/received", "exeat.bytes.received"),
    ("/duration_us", "exeat.duration_us"),
    ("/usage/input_tokens", "gen_ai.usage.input_tokens"),
    ("/usage/output_tokens", "gen_ai.usage.output_tokens"),
    ("/error", "error.type"),
];

/// Reasons that mean the gate could not do its work, not that a rule said no.
const FAULTS: [&str; 3] = [
    "journal_unavailable",
    "credential_unavailable",
    "expression_error",
];

/// What is the same in every request.
pub(super) struct Envelope {
    resource: Resource,
    scope: InstrumentationScope,
}

// === impl Envelope ===

impl Envelope {
    pub(super) fn new(principal: &Principal) -> Self {
        let mut attributes = vec![
            attribute("service.name", text("exeat")),
            attribute("service.version", text(env!("CARGO_PKG_VERSION"))),
        ];
        for (key, value) in [
            ("k8s.namespace.name", &principal.namespace),
            ("k8s.pod.name", &principal.pod),
            ("k8s.pod.uid", &principal.uid),
            ("exeat.service_account", &principal.service_account),
        ] {
            if let Some(value) = value {
                attributes.push(attribute(key, text(value)));
            }
        }
        for (key, value) in &principal.labels {
            attributes.push(attribute(&format!("k8s.pod.label.{key}"), text(value)));
        }
        let scope = InstrumentationScope {
            name: "exeat".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..InstrumentationScope::default()
        };
        Self {
            resource: Resource {
                attributes,
                ..Resource::default()
            },
            scope,
        }
    }

    pub(super) fn request(&self, records: &[Record]) -> ExportLogsServiceRequest {
        ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                resource: Some(self.resource.clone()),
                scope_logs: vec![ScopeLogs {
                    scope: Some(self.scope.clone()),
                    log_records: records.iter().map(log_record).collect(),
                    schema_url: String::new(),
                }],
                schema_url: String::new(),
            }],
        }
    }
}

fn log_record(record: &Record) -> LogRecord {
    let value = &record.value;
    let event = value["event"].as_str().unwrap_or_default();
    let nanos = value["time"]
        .as_str()
        .and_then(|time| OffsetDateTime::parse(time, &Rfc3339).ok())
        .and_then(|time| u64::try_from(time.unix_timestamp_nanos()).ok())
        .unwrap_or_default();
    LogRecord {
        time_unix_nano: nanos,
        observed_time_unix_nano: nanos,
        severity_number: severity(event, value).into(),
        body: Some(AnyValue {
            value: Some(text(&record.line)),
        }),
        attributes: attributes(value),
        trace_id: bytes(&value["trace_id"]),
        span_id: bytes(&value["span_id"]),
        event_name: event.into(),
        ..LogRecord::default()
    }
}

/// A denial is the gate at work: a warning. An error is a gate that could not do its work.
fn severity(event: &str, value: &Value) -> SeverityNumber {
    let fault = value["reason"]
        .as_str()
        .is_some_and(|reason| FAULTS.contains(&reason));
    match event {
        DECISION if fault => SeverityNumber::Error,
        DECISION if value["decision"] == "allow" => SeverityNumber::Info,
        DECISION => SeverityNumber::Warn,
        OUTCOME if value.get("error").is_some() => SeverityNumber::Warn,
        OUTCOME | OPENED | CLOSED => SeverityNumber::Info,
        _ => SeverityNumber::Error,
    }
}

fn attributes(value: &Value) -> Vec<KeyValue> {
    let mut attributes: Vec<_> = ATTRIBUTES
        .iter()
        .filter_map(|(pointer, key)| Some(attribute(key, any(value.pointer(pointer)?)?)))
        .collect();
    if let Some(address) = value["address"].as_str()
        && let Some((address, port)) = address.rsplit_once(':')
    {
        attributes.push(attribute(
            "network.peer.address",
            text(address.trim_matches(['[', ']'])),
        ));
        if let Ok(port) = port.parse() {
            attributes.push(attribute("network.peer.port", Any::IntValue(port)));
        }
    }
    let calls = value["mcp"]["calls"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let of = |key| {
        calls
            .iter()
            .filter_map(|call| call[key].as_str())
            .collect::<Vec<_>>()
    };
    match (of("method").as_slice(), of("name").as_slice()) {
        ([], _) => {}
        ([method], names) => {
            attributes.push(attribute("mcp.method.name", text(method)));
            if let ([name], "tools/call") = (names, *method) {
                attributes.push(attribute("gen_ai.tool.name", text(name)));
            }
        }
        (methods, names) => {
            attributes.push(attribute("exeat.mcp.methods", list(methods)));
            attributes.push(attribute("exeat.mcp.names", list(names)));
        }
    }
    attributes
}

fn any(value: &Value) -> Option<Any> {
    match value {
        Value::String(value) => Some(text(value)),
        Value::Bool(value) => Some(Any::BoolValue(*value)),
        // OTLP has no unsigned numbers; one beyond is the greatest there is.
        Value::Number(value) => Some(Any::IntValue(value.as_i64().unwrap_or(i64::MAX))),
        _ => None,
    }
}

fn text(value: &str) -> Any {
    Any::StringValue(value.to_owned())
}

fn list(values: &[&str]) -> Any {
    let values = values
        .iter()
        .map(|value| AnyValue {
            value: Some(text(value)),
        })
        .collect();
    Any::ArrayValue(ArrayValue { values })
}

fn attribute(key: &str, value: Any) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// The bytes of a hexadecimal id; none where there is no id.
fn bytes(value: &Value) -> Vec<u8> {
    let digits = value.as_str().unwrap_or_default().as_bytes();
    digits
        .chunks(2)
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}
