//! `cargo xtask demo`: an agent at work under the gate, then turned against it, then the trail.
//!
//! The servers are real and local, the agent is an ordinary program, and nothing is staged: if a way
//! out works, the demo says so and fails.

mod servers;

use std::{
    env,
    fs::{self, File},
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use self::servers::Servers;
use crate::{
    setup,
    shell::{built, cache, cargo, quietly, root, run},
};

/// What `cargo xtask demo` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Use the programs as they are built
    #[arg(long)]
    built: bool,
}

/// The credentials of the policy. Each secret is made up, and found nowhere but in its file.
const CREDENTIALS: [&str; 4] = ["api", "git", "tools", "openai"];

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    let python = setup::demo()?;
    if !arguments.built {
        eprintln!("setup: building (some minutes, the first time)");
        run(cargo().args([
            "build",
            "--quiet",
            "--package=exeat",
            "--package=exeat-tests",
            "--bins",
        ]))?;
    }
    let folder = cache().join("demo");
    prepare(&folder)?;
    let servers = Servers::start(&folder, &python)?;

    say(INTRODUCTION)?;
    heading("An agent at work")?;
    let agent = agent(&folder, &python).status();
    let agent = agent.context("could not start `exeat run`")?;
    heading("What the servers saw")?;
    say(&seen(&servers.log()?))?;
    heading("The trail")?;
    let journal = folder.join("journal.jsonl");
    for words in [["audit", "verify"], ["audit", "show"]] {
        run(Command::new(built("exeat")).args(words).arg(&journal))?;
    }
    heading("Where to look next")?;
    say(&next(&journal))?;
    ensure!(
        agent.success(),
        "the agent ended with {agent}: something that must not work did"
    );
    Ok(())
}

const INTRODUCTION: &str = "
Exeat gives an AI agent exactly one way out to the network, and puts a gate in it: each call is
judged by a policy, written down, and only then given the credential that the agent never holds.

Four servers are running on this machine: a web API, a git server, a model that speaks as OpenAI's
does, and an MCP server. The policy is examples/demo/policy.yaml; the agent is in examples/demo/agent.
Lines that start with `exeat` are the gate's own.";

/// An empty place for this run: the agent's folder, the secrets, a repository to serve.
fn prepare(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("could not clear {}", folder.display()))?;
    }
    let (work, secrets) = (folder.join("work"), folder.join("secrets"));
    fs::create_dir_all(&work)?;
    fs::create_dir_all(&secrets)?;
    for name in CREDENTIALS {
        fs::write(secrets.join(name), format!("demo-secret-{name}\n"))?;
    }

    let (seed, served) = (folder.join("seed"), folder.join("git/acme/tool.git"));
    let git = |folder: &Path, words: &[&str]| {
        let mut git = Command::new("git");
        quietly(plain_git(&mut git).arg("-C").arg(folder).args(words)).map(drop)
    };
    fs::create_dir_all(&seed)?;
    git(&seed, &["init", "--initial-branch=main"])?;
    fs::write(seed.join("gate.txt"), "one way out\n")?;
    git(&seed, &["add", "."])?;
    git(&seed, &["commit", "--message=A gate in the only way out"])?;
    quietly(
        Command::new("git")
            .args(["clone", "--bare"])
            .args([&seed, &served]),
    )?;
    Ok(())
}

/// The agent, under `exeat run`.
fn agent(folder: &Path, python: &Path) -> Command {
    let demo = root().join("examples/demo");
    let mut command = Command::new(built("exeat"));
    command.arg("run");
    command.arg("--policy").arg(demo.join("policy.yaml"));
    command.arg("--audit").arg(folder.join("journal.jsonl"));
    command
        .arg("--upstream-ca")
        .arg(folder.join("upstream-ca.pem"));
    for name in CREDENTIALS {
        let file = folder.join("secrets").join(name);
        command
            .arg("--credential")
            .arg(format!("{name}={}", file.display()));
    }
    for name in ["api", "git", "tools", "models"] {
        command
            .arg("--resolve")
            .arg(format!("{name}.demo.test={}", servers::ADDRESS));
    }
    command
        .args(["--", "sh"])
        .arg(demo.join("agent/agent.sh"))
        .arg(python)
        .current_dir(folder.join("work"))
        // So that it need not search for what it shall not find.
        .env("EXEAT_DEMO_SECRETS", folder.join("secrets"));
    plain_git(&mut command);
    command
}

/// git as it comes, without this machine's settings and helpers.
fn plain_git(command: &mut Command) -> &mut Command {
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_AUTHOR_NAME", "Agent")
        .env("GIT_AUTHOR_EMAIL", "agent@demo.test")
        .env("GIT_COMMITTER_NAME", "Agent")
        .env("GIT_COMMITTER_EMAIL", "agent@demo.test")
}

/// The servers' side of the story, from the record that they kept themselves.
fn seen(log: &str) -> String {
    let calls = log.lines().count();
    let signed_in = log
        .lines()
        .filter(|line| line.contains("[\"authorization\","))
        .count();
    let agents_own = log
        .lines()
        .filter(|line| line.contains("worth-nothing"))
        .count();
    let list = log
        .lines()
        .filter(|line| line.contains("customer list"))
        .count();
    format!(
        "{calls} calls, {signed_in} of them with a credential that the agent never held.\n\
         The key that the agent brought along arrived {agents_own} times, the customer list {list} times."
    )
}

fn next(journal: &Path) -> String {
    let journal = journal.strip_prefix(root()).unwrap_or(journal).display();
    let exeat = built("exeat");
    let exeat = exeat.strip_prefix(root()).unwrap_or(&exeat).display();
    format!(
        "The policy              examples/demo/policy.yaml\n\
         Change it, ask it       {exeat} policy explain --policy examples/demo/policy.yaml \
         DELETE https://api.demo.test:8443/reports/today\n\
         The trail, and a check  {exeat} audit verify {journal}\n\
         Your own command        {exeat} run --policy FILE -- COMMAND\n\
         How it is built         docs/ARCHITECTURE.md"
    )
}

fn heading(text: &str) -> Result<()> {
    let plain = env::var_os("NO_COLOR").is_some() || !io::stdout().is_terminal();
    let rule = "─".repeat(76_usize.saturating_sub(text.chars().count()));
    if plain {
        say(&format!("\n── {text} {rule}"))
    } else {
        say(&format!("\n\x1b[1m── {text} {rule}\x1b[0m"))
    }
}

fn say(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// A file for what a server says, to be read when the demo fails.
fn said(folder: &Path, name: &str) -> Result<File> {
    let path: PathBuf = folder.join(format!("{name}.log"));
    File::create(&path).with_context(|| format!("could not make {}", path.display()))
}
