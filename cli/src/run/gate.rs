//! The gate of a run: the sidecar's own, with the listeners that the keeper made.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use exeat_sidecar::gate::{DEFAULT_JOURNAL_BYTES, Settings};
pub(super) use exeat_sidecar::gate::{Gate, Listeners, StartError};
use exeat_sidecar::ledger::{self, JournalConfig, Principal};
use exeat_sidecar::process::reload::{Labels, PolicySource};

use super::Durability;
use super::network::Kind;
use super::prepare::Prepared;

/// Sorts what the keeper sent.
pub(super) fn listeners(kinds: &[Kind], fds: Vec<OwnedFd>) -> io::Result<Listeners> {
    if kinds.len() != fds.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut listeners = Listeners::default();
    for (kind, fd) in kinds.iter().zip(fds) {
        match kind {
            Kind::Transparent => listeners.transparent.push(fd.into()),
            Kind::Explicit => listeners.explicit.push(fd.into()),
            Kind::DnsUdp => listeners.dns_udp.push(fd.into()),
            Kind::DnsTcp => listeners.dns_tcp.push(fd.into()),
        }
    }
    Ok(listeners)
}

/// What the gate is set up with.
#[expect(
    clippy::disallowed_methods,
    reason = "the gate of a run calls on the user's behalf, with the user's roots"
)]
pub(super) fn settings(prepared: &Prepared, policy: PolicySource) -> Settings {
    let mut settings = Settings::new(policy, prepared.audit.clone());
    settings.labels = Labels {
        given: prepared.labels.clone(),
        file: None,
    };
    settings.journal = JournalConfig {
        path: prepared.audit.clone(),
        durability: match prepared.durability {
            Durability::Written => ledger::Durability::Written,
            Durability::Synced => ledger::Durability::Synced,
        },
        max_bytes: DEFAULT_JOURNAL_BYTES,
    };
    settings.credential_files.clone_from(&prepared.credentials);
    settings.upstream_ca.clone_from(&prepared.upstream_ca);
    // The user's own choice of roots holds for the gate too: it calls on the user's behalf.
    let chosen = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    settings
        .upstream_ca
        .extend(chosen.filter(|file| file.is_file()));
    settings.resolve.clone_from(&prepared.resolve);
    settings.otlp.clone_from(&prepared.otlp);
    // Only the listeners are in the command's network namespace.
    settings.elsewhere = true;
    settings.principal = Principal {
        pod: Some(format!("run-{}", std::process::id())),
        uid: Some(nix::unistd::Uid::effective().to_string()),
        labels: prepared.labels.clone().unwrap_or_default(),
        ..Principal::default()
    };
    settings
}
