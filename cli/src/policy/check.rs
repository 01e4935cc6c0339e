//! `exeat policy check`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use exeat_policy::{Mode, Plan, compile};
use serde_json::json;

use super::{Format, complain_of, input, print};

/// What `exeat policy check` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Policy files, judged together
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Judge conflicts only among policies that select a pod with these labels
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// How to print the result
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let sources = input::sources(&arguments.files)?;
    let labels = input::labels(&arguments.labels)?;
    let compiled = compile(&sources, labels.as_ref(), 0);
    match (&compiled, arguments.format) {
        (Ok(plan), Format::Text) => print(&summary(plan)),
        (Ok(plan), Format::Json) => {
            let policies: Vec<&str> = plan.policies().iter().map(AsRef::as_ref).collect();
            print(&json!({"ok": true, "digest": plan.digest(), "mode": plan.mode().as_str(), "policies": policies, "diagnostics": []}).to_string());
        }
        (Err(found), Format::Text) => complain_of(found),
        (Err(found), Format::Json) => {
            print(&json!({"ok": false, "diagnostics": found}).to_string());
        }
    }
    Ok(if compiled.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn summary(plan: &Plan) -> String {
    let count = plan.policies().len();
    let noun = if count == 1 { "policy" } else { "policies" };
    let mode = match plan.mode() {
        Mode::Enforce => "",
        Mode::Shadow => ", none of them enforced (Shadow)",
    };
    format!("{count} {noun} compiled{mode}\ndigest {}", plan.digest())
}
