//! The real OpenTelemetry Collector on the node, and what it wrote down.

use std::{fs, path::PathBuf};

use anyhow::Result;
use serde_json::Value;

use super::Node;

/// The collector; it is a part of the node.
#[derive(Debug)]
pub struct Collector {
    /// Where it takes OTLP over gRPC.
    pub endpoint: String,
    written: PathBuf,
}

// === impl Collector ===

impl Collector {
    pub(super) fn of(node: &Node) -> Self {
        Self {
            endpoint: format!("http://{}:4317", node.address),
            written: node.file("otel.jsonl"),
        }
    }

    /// The log records that hold this text, as the collector wrote them.
    pub fn records(&self, holding: &str) -> Result<Vec<Value>> {
        let text = fs::read_to_string(&self.written).unwrap_or_default();
        let mut found = Vec::new();
        // The last line may still be being written.
        for batch in text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        {
            let scopes = batch["resourceLogs"].as_array().into_iter().flatten();
            let records = scopes
                .filter_map(|resource| resource["scopeLogs"].as_array())
                .flatten()
                .filter_map(|scope| scope["logRecords"].as_array())
                .flatten();
            found.extend(
                records
                    .filter(|record| record.to_string().contains(holding))
                    .cloned(),
            );
        }
        Ok(found)
    }
}
