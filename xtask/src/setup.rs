//! Fetches what tests and demo use, once: a second run finds everything there and does nothing.
//!
//! A step's stamp is a copy of what it was made from, so a changed list of requirements is made
//! again and an interrupted step is not taken for a finished one.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::shell::{cache, cargo, find, is_root, quietly, root, run};

/// A program, and the Debian package that brings it.
pub(crate) type Need = (&'static str, &'static str);

const DEMO: &[Need] = &[
    ("python3", "python3"),
    ("node", "nodejs"),
    ("curl", "curl"),
    ("git", "git"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables-restore", "iptables"),
];

const TESTS: &[Need] = &[
    ("npm", "npm"),
    ("wget", "wget"),
    ("go", "golang-go"),
    ("javac", "default-jdk-headless"),
    ("keytool", "default-jre-headless"),
    ("openssl", "openssl"),
    ("tcpdump", "tcpdump"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
];

/// What `cargo xtask setup` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only what the demo and the examples use; prints the Python that has it
    #[arg(long)]
    demo: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    if arguments.demo {
        let python = demo()?;
        writeln!(io::stdout(), "{}", python.display())?;
        return Ok(());
    }
    everything()
}

/// All that the tests use.
pub(crate) fn everything() -> Result<()> {
    packages(&[DEMO, TESTS].concat())?;
    python("python", "tests/clients/python/requirements.txt")?;
    node()?;
    go()?;
    java()
}

/// The little that the demo uses, and the Python to run its agent with.
pub(crate) fn demo() -> Result<PathBuf> {
    packages(DEMO)?;
    python("demo-python", "examples/demo/requirements.txt")
}

/// A tool of cargo's that is installed from its crate, kept in the cache.
pub(crate) fn cargo_tool(name: &str) -> Result<PathBuf> {
    if let Some(found) = find(name) {
        return Ok(found);
    }
    let tools = cache().join("tools");
    let program = tools.join("bin").join(name);
    if !program.exists() {
        eprintln!("setup: {name}, built from its crate (some minutes)");
        run(cargo()
            .args(["install", "--quiet", "--locked", "--root"])
            .arg(&tools)
            .arg(name))?;
    }
    Ok(program)
}

fn packages(needs: &[Need]) -> Result<()> {
    let mut missing: Vec<&str> = needs
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if !has_venv() {
        missing.extend(["python3", "python3-venv"]);
    }
    missing.sort_unstable();
    missing.dedup();
    install(&missing)
}

/// The programs' packages that are missing, from the system's own package client.
pub(crate) fn programs(needs: &[Need]) -> Result<()> {
    let missing: Vec<&str> = needs
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    install(&missing)
}

fn install(missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let missing_words = missing.join(" ");
    if !is_root() {
        bail!(
            "these packages are missing and only root can install them\n\
             hint: sudo apt-get install {missing_words}"
        );
    }
    eprintln!("setup: system packages: {missing_words}");
    quietly(Command::new("apt-get").args(["-qq", "update"]))?;
    quietly(
        Command::new("apt-get")
            .args(["-qq", "install", "--yes", "--no-install-recommends"])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(missing),
    )?;
    Ok(())
}

/// The system's Python where there is one: others come and go with their users' settings.
fn system_python() -> PathBuf {
    let system = PathBuf::from("/usr/bin/python3");
    if system.exists() {
        system
    } else {
        find("python3").unwrap_or(system)
    }
}

fn has_venv() -> bool {
    quietly(Command::new(system_python()).args(["-c", "import ensurepip, venv"])).is_ok()
}

fn python(folder: &str, requirements: &str) -> Result<PathBuf> {
    let (venv, requirements) = (cache().join(folder), root().join(requirements));
    let python = venv.join("bin/python");
    step(folder, &[&requirements], || {
        eprintln!("setup: Python packages for {folder}");
        let _absent = fs::remove_dir_all(&venv);
        quietly(
            Command::new(system_python())
                .args(["-m", "venv"])
                .arg(&venv),
        )?;
        quietly(
            Command::new(&python)
                .args(["-m", "pip", "install", "--quiet", "--requirement"])
                .arg(&requirements),
        )?;
        Ok(())
    })?;
    Ok(python)
}

fn node() -> Result<()> {
    let (source, folder) = (root().join("tests/clients/node"), cache().join("node"));
    let (package, lock) = (
        source.join("package.json"),
        source.join("package-lock.json"),
    );
    step("node", &[&package, &lock], || {
        eprintln!("setup: node modules");
        fs::create_dir_all(&folder)?;
        fs::copy(&package, folder.join("package.json"))?;
        fs::copy(&lock, folder.join("package-lock.json"))?;
        quietly(
            Command::new("npm")
                .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
                .current_dir(&folder),
        )?;
        Ok(())
    })
}

fn go() -> Result<()> {
    let (source, bin) = (root().join("tests/clients/go"), cache().join("bin"));
    step("go", &[&source.join("main.go")], || {
        eprintln!("setup: the Go client");
        fs::create_dir_all(&bin)?;
        quietly(
            Command::new("go")
                .args(["build", "-o"])
                .arg(bin.join("go-client"))
                .arg(".")
                .env("CGO_ENABLED", "0")
                .env("GOTOOLCHAIN", "local")
                .current_dir(&source),
        )?;
        Ok(())
    })
}

fn java() -> Result<()> {
    let source = root().join("tests/clients/java/Client.java");
    let classes = cache().join("java");
    step("java", &[&source], || {
        eprintln!("setup: the Java client");
        fs::create_dir_all(&classes)?;
        quietly(Command::new("javac").arg("-d").arg(&classes).arg(&source))?;
        Ok(())
    })
}

/// Does the work unless the stamp says that it was done with exactly these sources.
pub(crate) fn step(name: &str, sources: &[&Path], work: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut wanted = String::new();
    for source in sources {
        wanted += &fs::read_to_string(source)
            .with_context(|| format!("could not read {}", source.display()))?;
    }
    let stamps = cache().join("stamps");
    let stamp = stamps.join(name);
    if fs::read_to_string(&stamp).is_ok_and(|had| had == wanted) {
        return Ok(());
    }
    work().with_context(|| format!("setting up {name}"))?;
    fs::create_dir_all(&stamps)?;
    fs::write(&stamp, wanted)?;
    Ok(())
}
