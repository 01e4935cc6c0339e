//! The test upstream as a program, for the demo, the examples and tests in other namespaces.
//!
//! It says on its first line where it listens, as JSON, and runs until its standard input ends, so
//! that it never outlives whoever started it.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use clap::Parser;
use exeat_tests::upstream::{Settings, Upstream};

/// A server for tests: TLS and plaintext HTTP on loopback, with a record of all that reached it
#[derive(Debug, Parser)]
struct Arguments {
    /// The address to listen on
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// The TLS port; 0 takes any free one
    #[arg(long, default_value_t = 0)]
    tls_port: u16,
    /// The plaintext port; 0 takes any free one
    #[arg(long, default_value_t = 0)]
    plain_port: u16,
    /// The folder of bare repositories to serve under /git/
    #[arg(long)]
    git_root: Option<PathBuf>,
    /// A name whose requests go to a plaintext server here, as NAME=ADDRESS:PORT
    #[arg(long = "front", value_parser = front)]
    fronts: Vec<(String, SocketAddr)>,
    /// Where each request is written, a JSON object a line
    #[arg(long)]
    log: Option<PathBuf>,
    /// Where the root certificate is written
    #[arg(long)]
    ca_out: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let upstream = Upstream::with(Settings {
        address: arguments.address,
        tls_port: arguments.tls_port,
        plain_port: arguments.plain_port,
        git_root: arguments.git_root,
        fronts: arguments.fronts.into_iter().collect::<BTreeMap<_, _>>(),
        log: arguments.log,
    })
    .await?;
    if let Some(path) = arguments.ca_out {
        std::fs::write(&path, upstream.ca_pem())
            .with_context(|| format!("could not write {}", path.display()))?;
    }
    let listening = serde_json::json!({"tls": upstream.tls(), "plain": upstream.plain()});
    let mut out = std::io::stdout();
    writeln!(out, "{listening}")?;
    out.flush()?;

    // This thread has nothing else to do: the runtime's workers serve.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

fn front(text: &str) -> Result<(String, SocketAddr)> {
    let (name, address) = text.split_once('=').context("expected NAME=ADDRESS:PORT")?;
    Ok((name.to_owned(), address.parse()?))
}
