//! `cargo xtask images`: container images of static programs, without a daemon or a registry.
//!
//! Each is an OCI archive that `ctr images import`, `skopeo` and `podman load` read, and holds what
//! its program needs and nothing else: no shell, no package manager. The same sources give the same
//! digests. In doubt it fails: an image without a library that it needs is not written.

mod contents;
mod oci;
mod tar;
mod tree;

use std::{
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use self::{oci::Image, tree::Tree};
use crate::shell::{cargo, find, quietly, root, run};

/// What `cargo xtask images` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The build profile; `dev` builds faster, for tests
    #[arg(long, default_value = "release")]
    profile: String,
    /// What comes before each image's name
    #[arg(long, default_value = "localhost/exeat")]
    prefix: String,
    /// The folder for the archives
    #[arg(long, default_value = "target/images")]
    out: PathBuf,
    /// Also the images of the tests' agents and servers
    #[arg(long)]
    tests: bool,
}

/// The largest that the sidecar's image may be as it is fetched, with its trust roots.
const SIDECAR_BYTES: usize = 12 << 20;

/// The sidecar's user and group: nobody else's in any pod.
const SIDECAR_USER: &str = "64100:64100";

/// The operator's: any that is not root's.
const OPERATOR_USER: &str = "65532:65532";

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    let out = root().join(&arguments.out);
    fs::create_dir_all(&out).with_context(|| format!("could not make {}", out.display()))?;
    let built = build(arguments)?;
    let program = |name: &str| stripped(&built.join(name), &out);

    let mut sidecar = Image::new("sidecar", SIDECAR_USER, &["/exeat-sidecar"]);
    sidecar
        .tree
        .file("/exeat-sidecar", program("exeat-sidecar")?, 0o755);
    contents::trust_roots(&mut sidecar.tree)?;
    let mut init = Image::new("init", "0:0", &["/exeat-init"]);
    init.tree.file("/exeat-init", program("exeat-init")?, 0o755);
    contents::packet_filters(&mut init.tree)?;
    let mut images = vec![sidecar, init];
    if root().join("operator").exists() {
        let mut operator = Image::new("operator", OPERATOR_USER, &["/exeat-operator"]);
        operator
            .tree
            .file("/exeat-operator", program("exeat-operator")?, 0o755);
        images.push(operator);
    }
    if arguments.tests {
        let mut agent = Image::new("test-agent", "1000:1000", &["/bin/sleep", "infinity"]);
        contents::agent(&mut agent.tree)?;
        images.push(agent);
    }

    for image in images {
        let written = image.write(&arguments.prefix, env!("CARGO_PKG_VERSION"), &out)?;
        ensure!(
            image.name != "sidecar"
                || arguments.profile != "release"
                || written.bytes <= SIDECAR_BYTES,
            "the sidecar's image has {} bytes, more than {SIDECAR_BYTES}",
            written.bytes
        );
        eprintln!(
            "images: {} ({:.1} MiB)",
            written.archive.display(),
            mebibytes(written.bytes)
        );
        writeln!(io::stdout(), "{}", written.reference)?;
    }
    Ok(())
}

/// The image that a pod's own container is of, for the cluster of the tests.
pub(crate) fn pause(program: &Path, archive: &Path) -> Result<()> {
    let mut image = Image::new("pause", "65535:65535", &["/pause"]);
    image.tree.file("/pause", fs::read(program)?, 0o755);
    image.archive("localhost", "1", archive)?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "shown to a tenth")]
fn mebibytes(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Builds the programs so that they need no library, and says in which folder they are.
fn build(arguments: &Arguments) -> Result<PathBuf> {
    let said = quietly(Command::new("rustc").arg("-vV"))?;
    let triple = said
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("`rustc -vV` does not say what it compiles for")?;
    let flags = format!(
        "CARGO_TARGET_{}_RUSTFLAGS",
        triple.to_uppercase().replace('-', "_")
    );
    let operator = root().join("operator").exists();
    run(cargo()
        .args(["build", "--locked", "--quiet", "--target", triple])
        .args(["--profile", &arguments.profile])
        .args(["-p", "exeat-sidecar", "-p", "exeat-init", "--bins"])
        .args(
            operator
                .then_some(["-p", "exeat-operator"])
                .iter()
                .flatten(),
        )
        .env(flags, "-C target-feature=+crt-static"))?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into);
    let folder = match arguments.profile.as_str() {
        "dev" => "debug",
        profile => profile,
    };
    Ok(target.join(triple).join(folder))
}

/// A program without its symbols, if the build left some.
fn stripped(program: &Path, out: &Path) -> Result<Vec<u8>> {
    let at = out.join("stripped");
    let strip = find("strip").context("`strip` is missing\nhint: apt-get install binutils")?;
    quietly(Command::new(strip).arg("-o").arg(&at).arg(program))?;
    let bytes = fs::read(&at)?;
    fs::remove_file(&at)?;
    ensure!(
        contents::libraries(program)?.is_empty(),
        "{} needs libraries; an image of its own has none",
        program.display()
    );
    Ok(bytes)
}

// So that the parts above are named once.
impl Image {
    fn new(name: &'static str, user: &'static str, entrypoint: &'static [&'static str]) -> Self {
        Self {
            name,
            user,
            entrypoint,
            tree: Tree::default(),
        }
    }
}
