//! What was found, how bad it is, and what it comes to.
//!
//! In doubt it is `unknown`: what could not be read is never taken for good.

use serde::Serialize;
use serde_json::{Value, json};

use super::read::{Read, Right};

/// How a finding counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// It holds, but look at it.
    Warning,
    /// Something is not governed, or nothing works.
    Problem,
    /// It could not be found out.
    Unknown,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scope {
    Cluster,
    Namespace,
    Pod,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) scope: Scope,
    /// A word or two, the same for the same check.
    pub(super) subject: &'static str,
    pub(super) level: Level,
    pub(super) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
    /// Whether the answer depends on it, where it is unknown.
    #[serde(skip)]
    pub(super) decisive: bool,
}

/// The findings of one scope, in the order of looking.
#[derive(Debug)]
pub(super) struct Findings {
    scope: Scope,
    list: Vec<Finding>,
}

/// What a read came to, for those who judge it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Look<'a> {
    There(&'a Value),
    Absent,
    /// It could not be read, which has been said.
    Unread,
}

/// All that was found.
#[derive(Debug)]
pub(super) struct Report {
    /// The API server.
    pub(super) server: String,
    pub(super) namespace: Option<String>,
    pub(super) pod: Option<String>,
    pub(super) findings: Vec<Finding>,
}

// === impl Findings ===

impl Findings {
    pub(super) fn of(scope: Scope) -> Self {
        Self {
            scope,
            list: Vec::new(),
        }
    }

    pub(super) fn ok(&mut self, subject: &'static str, message: impl Into<String>) {
        self.add(subject, Level::Ok, message.into(), None, None);
    }

    pub(super) fn warning(
        &mut self,
        subject: &'static str,
        message: impl Into<String>,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let (cause, remedy) = (Some(cause.into()), Some(remedy.into()));
        self.add(subject, Level::Warning, message.into(), cause, remedy);
    }

    pub(super) fn problem(
        &mut self,
        subject: &'static str,
        message: impl Into<String>,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let (cause, remedy) = (Some(cause.into()), Some(remedy.into()));
        self.add(subject, Level::Problem, message.into(), cause, remedy);
    }

    /// Something on which the answer depends could not be found out.
    pub(super) fn unknown(
        &mut self,
        subject: &'static str,
        message: impl Into<String>,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let (cause, remedy) = (Some(cause.into()), Some(remedy.into()));
        self.add(subject, Level::Unknown, message.into(), cause, remedy);
    }

    /// What was read, if it was; otherwise that it could not be, and the right that it takes.
    pub(super) fn read<'a>(
        &mut self,
        subject: &'static str,
        what: &str,
        read: &'a Read,
    ) -> Look<'a> {
        match read {
            Read::Found(value) => return Look::There(value),
            Read::Absent => return Look::Absent,
            Read::Forbidden(right) => self.forbidden(subject, what, right),
            Read::Failed(why) => self.unknown(
                subject,
                format!("could not find out about {what}"),
                why.as_str(),
                "try again; if it stays, look into the API server",
            ),
        }
        Look::Unread
    }

    /// The same where the answer does not depend on it.
    pub(super) fn read_aside<'a>(
        &mut self,
        subject: &'static str,
        what: &str,
        read: &'a Read,
    ) -> Look<'a> {
        let before = self.list.len();
        let found = self.read(subject, what, read);
        for finding in self.list.iter_mut().skip(before) {
            finding.decisive = false;
        }
        found
    }

    pub(super) fn done(self) -> Vec<Finding> {
        self.list
    }

    fn forbidden(&mut self, subject: &'static str, what: &str, right: &Right) {
        self.unknown(
            subject,
            format!("could not find out about {what}"),
            format!("you may not {right}"),
            "have that granted, or ask somebody who may",
        );
    }

    fn add(
        &mut self,
        subject: &'static str,
        level: Level,
        message: String,
        cause: Option<String>,
        remedy: Option<String>,
    ) {
        self.list.push(Finding {
            scope: self.scope,
            subject,
            level,
            message,
            cause,
            remedy,
            decisive: level == Level::Unknown,
        });
    }
}

// === impl Report ===

impl Report {
    /// Whether what was asked about is governed; `None` where that could not be found out.
    pub(super) fn governed(&self) -> Option<bool> {
        if self.count(Level::Problem) > 0 {
            return Some(false);
        }
        let open = self.findings.iter().any(|finding| finding.decisive);
        (!open).then_some(true)
    }

    /// 0 governed, 1 not, 2 could not find out.
    pub(super) fn exit(&self) -> u8 {
        match self.governed() {
            Some(true) => 0,
            Some(false) => 1,
            None => 2,
        }
    }

    pub(super) fn count(&self, level: Level) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.level == level)
            .count()
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        json!({
            "server": self.server,
            "namespace": self.namespace,
            "pod": self.pod,
            "governed": self.governed(),
            "findings": self.findings,
        })
    }
}
