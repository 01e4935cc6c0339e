//! What the images take from this machine: programs with the libraries that they load, trust roots,
//! and for the tests' agent the packages that an agent's image has.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::tree::Tree;
use crate::shell::{find, quietly};

/// Where systems keep the roots that they trust, as one file.
const ROOTS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// The packet filters' programs that `exeat-init` drives, and what it looks for the iptables by.
const FILTERS: [&str; 9] = [
    "nft",
    "iptables-nft-restore",
    "iptables-nft-save",
    "ip6tables-nft-restore",
    "ip6tables-nft-save",
    "iptables-legacy-restore",
    "iptables-legacy-save",
    "ip6tables-legacy-restore",
    "ip6tables-legacy-save",
];

/// The names that the filters print protocols by: without them rules are read back as numbers, and
/// are not the ones that were written.
const PROTOCOLS: &str = "icmp 1 ICMP
igmp 2 IGMP
tcp 6 TCP
udp 17 UDP
ipv6-icmp 58 IPv6-ICMP
sctp 132 SCTP
udplite 136 UDPLite
";

/// The matches and targets that the rules are made of: parts that iptables loads by name.
const EXTENSIONS: [&str; 16] = [
    "libip6t_REJECT.so",
    "libip6t_hl.so",
    "libip6t_icmp6.so",
    "libipt_REJECT.so",
    "libipt_icmp.so",
    "libxt_CONNMARK.so",
    "libxt_MARK.so",
    "libxt_REDIRECT.so",
    "libxt_addrtype.so",
    "libxt_connmark.so",
    "libxt_conntrack.so",
    "libxt_mark.so",
    "libxt_owner.so",
    "libxt_standard.so",
    "libxt_tcp.so",
    "libxt_udp.so",
];

/// What an agent's image is made of, for the tests.
const AGENT: [&str; 12] = [
    "coreutils",
    "curl",
    "dash",
    "git",
    "grep",
    "iproute2",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "procps",
    "python3-minimal",
    "python3.11-minimal",
    "util-linux",
];

/// Their users' reading, which no program opens.
const READING: [&str; 6] = [
    "/usr/share/doc",
    "/usr/share/man",
    "/usr/share/locale",
    "/usr/share/lintian",
    "/usr/share/info",
    "/usr/share/bash-completion",
];

/// The roots that this machine trusts, in the place where every library looks first.
pub(super) fn trust_roots(tree: &mut Tree) -> Result<()> {
    let found = ROOTS.iter().find_map(|path| fs::read(path).ok());
    let Some(bytes) = found else {
        bail!("this machine has no trust roots to put in\nhint: apt-get install ca-certificates");
    };
    tree.file(ROOTS[0], bytes, 0o644);
    Ok(())
}

/// The programs of every packet filter, with their libraries.
pub(super) fn packet_filters(tree: &mut Tree) -> Result<()> {
    let mut libraries = BTreeSet::new();
    for name in FILTERS {
        let program = find(name).with_context(|| {
            format!("`{name}` is missing\nhint: apt-get install nftables iptables")
        })?;
        let program = tree.take(&program)?;
        libraries.extend(self::libraries(&program)?);
    }
    let folder = extensions()?;
    for name in EXTENSIONS {
        // Several names are links to one file, which is taken with the first.
        let path = tree.take(&folder.join(name))?;
        libraries.extend(self::libraries(&path)?);
    }
    for library in libraries {
        tree.take(&library)?;
    }
    tree.file("/etc/protocols", PROTOCOLS.into(), 0o644);
    // For the lock of legacy iptables; a pod's own volume is mounted there.
    tree.folder("/run", 0o755);
    Ok(())
}

/// What an agent's image has, from the packages that are installed here.
pub(super) fn agent(tree: &mut Tree) -> Result<()> {
    let mut libraries = BTreeSet::new();
    for package in AGENT {
        let listed = quietly(Command::new("dpkg").args(["-L", package]))
            .with_context(|| format!("hint: apt-get install {package}"))?;
        for path in listed.lines().map(Path::new) {
            let unread = READING.iter().any(|folder| path.starts_with(folder));
            if unread || path == Path::new("/.") || !path.exists() {
                continue;
            }
            let place = tree.take(path)?;
            if is_program(&place) {
                libraries.extend(self::libraries(&place)?);
            }
        }
    }
    for library in libraries {
        tree.take(&library)?;
    }
    trust_roots(tree)?;
    for link in ["/bin", "/sbin", "/lib", "/lib64"] {
        if Path::new(link).is_symlink() {
            tree.take(Path::new(link))?;
        }
    }
    if !Path::new("/usr/bin/sh").exists() {
        tree.link("/usr/bin/sh", "dash");
    }
    tree.link("/usr/bin/python3", "python3.11");
    tree.file(
        "/etc/passwd",
        b"root:x:0:0::/:/bin/sh\nagent:x:1000:1000::/home/agent:/bin/sh\n".to_vec(),
        0o644,
    );
    tree.file("/etc/group", b"root:x:0:\nagent:x:1000:\n".to_vec(), 0o644);
    tree.file(
        "/etc/protocols",
        fs::read("/etc/protocols").unwrap_or_default(),
        0o644,
    );
    tree.folder("/home/agent", 0o777);
    tree.folder("/tmp", 0o1777);
    Ok(())
}

/// The libraries that a program loads, as the system's own loader finds them; none if it is static.
pub(super) fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .env("LC_ALL", "C")
        .output()
        .context("could not start `ldd`")?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || said.contains("statically linked") {
        let why = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success() || why.contains("not a dynamic executable"),
            "`ldd {}` failed: {why}",
            program.display()
        );
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for line in said.lines() {
        ensure!(
            !line.contains("not found"),
            "{} needs a library that is missing: {}",
            program.display(),
            line.trim()
        );
        let path = line.split_whitespace().find(|word| word.starts_with('/'));
        found.extend(path.map(PathBuf::from));
    }
    Ok(found)
}

/// The folder that iptables loads its parts from.
fn extensions() -> Result<PathBuf> {
    let triple = format!("/usr/lib/{}-linux-gnu/xtables", std::env::consts::ARCH);
    [triple.as_str(), "/usr/lib/xtables", "/usr/lib64/xtables"]
        .into_iter()
        .map(PathBuf::from)
        .find(|folder| folder.is_dir())
        .context("the parts of iptables are missing\nhint: apt-get install iptables")
}

fn is_program(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"))
}
