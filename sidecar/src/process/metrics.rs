//! Counters, and nothing that the agent can name.
//!
//! Plain atomics behind fixed labels: no host, path, header or rule is ever a label, so neither the
//! number of series nor what they tell can be steered by the agent. Names follow OpenTelemetry's, as
//! Prometheus spells them.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use exeat_policy::Reason;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// A number of things that are there now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

/// One thing that is there for as long as this is kept.
#[derive(Debug)]
pub struct Active<'a>(&'a Gauge);

/// All counters of the gate.
#[derive(Debug)]
pub struct Metrics {
    /// Connections from the agent, redirected by the kernel.
    pub connections_transparent: Counter,
    /// Connections from the agent to the explicit proxy port.
    pub connections_explicit: Counter,
    /// Connections turned away because there was no place.
    pub connections_refused: Counter,
    /// Connections from the agent now.
    pub connections_active: Gauge,
    /// What the DNS server did.
    pub dns: DnsMetrics,
    allowed: Counter,
    denied: Vec<Counter>,
}

/// What the DNS server did.
#[derive(Debug, Default)]
pub struct DnsMetrics {
    /// Questions answered with an address, or that there is none of that type.
    pub answered: Counter,
    /// Questions for names that no rule could allow.
    pub denied: Counter,
    /// Questions dropped in a flood.
    pub throttled: Counter,
    /// Messages that were no question.
    pub malformed: Counter,
}

/// What became of exported records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportFacts {
    /// Records that the collector took.
    pub sent: u64,
    /// Records that it refused for good.
    pub rejected: u64,
    /// Records given up because the collector was away for too long.
    pub dropped: u64,
    /// Attempts that failed.
    pub failures: u64,
}

/// What is not counted but looked up when somebody asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The generation in force, as records name it.
    pub policy_generation: u64,
    /// Whether it is what the files say.
    pub policy_current: bool,
    /// How often what they said was not taken.
    pub policy_refused: u64,
    /// Whether decisions can be recorded.
    pub journal_writable: bool,
    /// The number of the last record.
    pub journal_sequence: u64,
    /// Denials and outcomes that could not be recorded.
    pub journal_lost: u64,
    /// Whether the last self-test passed, if there is one.
    pub self_test: Option<bool>,
    /// How the export fares, if there is one.
    pub export: Option<ExportFacts>,
}

// === impl Counter ===

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl Gauge ===

impl Gauge {
    /// One more, until the result is dropped.
    #[must_use]
    pub fn enter(&self) -> Active<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Active(self)
    }

    /// How many.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Metrics ===

impl Metrics {
    /// A call was allowed.
    pub fn allowed(&self) {
        self.allowed.increment();
    }

    /// A call was denied.
    pub fn denied(&self, reason: Reason) {
        // Every reason has a place of its own; there are no others.
        if let Some(at) = Reason::ALL.iter().position(|known| *known == reason)
            && let Some(counter) = self.denied.get(at)
        {
            counter.increment();
        }
    }

    /// How many calls were denied for this reason.
    #[must_use]
    pub fn denials(&self, reason: Reason) -> u64 {
        let at = Reason::ALL.iter().position(|known| *known == reason);
        at.and_then(|at| self.denied.get(at))
            .map_or(0, Counter::get)
    }

    /// Everything as Prometheus reads it.
    #[must_use]
    pub fn render(&self, facts: &Facts) -> String {
        let mut page = Page(String::with_capacity(4096));
        page.family(
            "exeat_decisions_total",
            "counter",
            "Calls judged, by verdict and reason.",
        );
        page.sample(
            "exeat_decisions_total",
            "decision=\"allow\",reason=\"\"",
            self.allowed.get(),
        );
        for (reason, count) in Reason::ALL.iter().zip(&self.denied) {
            let labels = format!("decision=\"deny\",reason=\"{}\"", reason.code());
            page.sample("exeat_decisions_total", &labels, count.get());
        }
        let name = "exeat_connections_total";
        page.family(
            name,
            "counter",
            "Connections from the agent, by the port they came to.",
        );
        page.sample(
            name,
            "listener=\"transparent\"",
            self.connections_transparent.get(),
        );
        page.sample(
            name,
            "listener=\"explicit\"",
            self.connections_explicit.get(),
        );
        let name = "exeat_connections_refused_total";
        page.family(
            name,
            "counter",
            "Connections turned away for want of a place.",
        );
        page.sample(name, "", self.connections_refused.get());
        let name = "exeat_connections_active";
        page.family(name, "gauge", "Connections from the agent now.");
        page.sample(name, "", self.connections_active.get());
        let name = "exeat_dns_questions_total";
        page.family(name, "counter", "DNS questions, by what became of them.");
        page.sample(name, "outcome=\"answered\"", self.dns.answered.get());
        page.sample(name, "outcome=\"denied\"", self.dns.denied.get());
        page.sample(name, "outcome=\"throttled\"", self.dns.throttled.get());
        page.sample(name, "outcome=\"malformed\"", self.dns.malformed.get());
        facts.render(&mut page);
        page.0
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            connections_transparent: Counter::default(),
            connections_explicit: Counter::default(),
            connections_refused: Counter::default(),
            connections_active: Gauge::default(),
            dns: DnsMetrics::default(),
            allowed: Counter::default(),
            denied: Reason::ALL.iter().map(|_| Counter::default()).collect(),
        }
    }
}

// === impl Facts ===

impl Facts {
    fn render(&self, page: &mut Page) {
        let gauges = [
            (
                "exeat_policy_generation",
                "The policy generation in force.",
                self.policy_generation,
            ),
            (
                "exeat_policy_current",
                "1 if the policy in force is what its files say.",
                self.policy_current.into(),
            ),
            (
                "exeat_journal_writable",
                "1 if decisions can be recorded; at 0 every governed call is denied.",
                self.journal_writable.into(),
            ),
            (
                "exeat_journal_sequence",
                "The number of the last record.",
                self.journal_sequence,
            ),
        ];
        for (name, help, value) in gauges {
            page.family(name, "gauge", help);
            page.sample(name, "", value);
        }
        if let Some(passed) = self.self_test {
            let name = "exeat_self_test_passed";
            page.family(
                name,
                "gauge",
                "1 if the last self-test found the confinement in place.",
            );
            page.sample(name, "", u8::from(passed));
        }
        let name = "exeat_policy_refused_total";
        page.family(
            name,
            "counter",
            "Policies and bundles that were not taken, so that the last good one stayed.",
        );
        page.sample(name, "", self.policy_refused);
        let name = "exeat_journal_lost_total";
        page.family(
            name,
            "counter",
            "Denials and outcomes that could not be recorded.",
        );
        page.sample(name, "", self.journal_lost);
        let export = self.export.unwrap_or_default();
        let name = "exeat_export_records_total";
        page.family(
            name,
            "counter",
            "Journal records exported, by what became of them.",
        );
        page.sample(name, "outcome=\"sent\"", export.sent);
        page.sample(name, "outcome=\"rejected\"", export.rejected);
        page.sample(name, "outcome=\"dropped\"", export.dropped);
        let name = "exeat_export_failures_total";
        page.family(name, "counter", "Attempts to export that failed.");
        page.sample(name, "", export.failures);
    }
}

struct Page(String);

impl Page {
    // Writing to a string does not fail.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _written = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _written = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn every_series_is_there_from_the_start_and_once() {
        let metrics = Metrics::default();
        let page = metrics.render(&Facts::default());
        let mut series: Vec<_> = page.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(series.iter().all(|line| line.ends_with(" 0")), "{page}");
        let all = series.len();
        series.sort_unstable();
        series.dedup();
        assert_eq!(series.len(), all);
        for reason in Reason::ALL {
            assert!(page.contains(&format!("reason=\"{}\"", reason.code())));
        }
    }

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::default();
        metrics.allowed();
        metrics.denied(Reason::NoRule);
        metrics.denied(Reason::NoRule);
        let active = metrics.connections_active.enter();
        let facts = Facts {
            policy_generation: 7,
            journal_writable: true,
            ..Facts::default()
        };
        let page = metrics.render(&facts);
        assert!(page.contains("exeat_decisions_total{decision=\"allow\",reason=\"\"} 1\n"));
        assert!(page.contains("exeat_decisions_total{decision=\"deny\",reason=\"no_rule\"} 2\n"));
        assert!(page.contains("exeat_connections_active 1\n"));
        assert!(page.contains("exeat_policy_generation 7\n"));
        drop(active);
        assert_eq!(metrics.connections_active.get(), 0);
        assert_eq!(metrics.denials(Reason::NoRule), 2);
    }
}
