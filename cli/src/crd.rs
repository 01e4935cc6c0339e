//! `exeat crd`: the custom resources, for `kubectl apply -f -`.

use std::io::Write as _;
use std::process::ExitCode;

use exeat_policy::crd;

pub(crate) fn main() -> ExitCode {
    let manifests = [crd::tool_policy(), crd::cluster_tool_policy()];
    let text = manifests.map(|manifest| crd::yaml(&manifest)).join("---\n");
    // A closed pipe is the reader's wish.
    drop(std::io::stdout().lock().write_all(text.as_bytes()));
    ExitCode::SUCCESS
}
