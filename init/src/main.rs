//! `exeat-init`: plans, applies and proves the confinement of the namespace it is started in.

use std::process::ExitCode;

fn main() -> ExitCode {
    exeat_init::command::main(std::env::args_os())
}
