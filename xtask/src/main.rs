//! The project's own commands. `cargo xtask demo` and `cargo xtask test` are the two that the
//! README promises: on a fresh machine each does everything, set-up included.

mod fuzz;
mod test;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use xtask::{build, interrupt, machine};

/// Anteroom's development commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One sign-in from start to end: builds everything, boots a VM, prints the viewer's link.
    #[command(disable_help_flag = true)]
    Demo(Rest),
    /// All tests, as CI runs them.
    Test(test::Options),
    /// Fuzzes what reads foreign bytes; an input that breaks it is kept and named.
    Fuzz(fuzz::Options),
    /// Runs the demo's OpenID provider, for a controller started by hand.
    #[command(disable_help_flag = true)]
    Provider(Rest),
    /// Builds the guest agent, the viewer and the host binary, target/release/anteroom.
    Build(build::Options),
    /// Measures; prints one JSON object as its last line.
    #[command(disable_help_flag = true)]
    Bench(Rest),
    /// Runs a command on a machine with KVM, which QEMU emulates.
    #[command(disable_help_flag = true)]
    Nested(Rest),
}

/// What the program in `bench/` reads, `--help` included.
#[derive(clap::Args)]
struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    arguments: Vec<OsString>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Command::Demo(rest) => hand_over("demo", &rest),
        Command::Provider(rest) => hand_over("provider", &rest),
        Command::Bench(rest) => hand_over("bench", &rest),
        Command::Nested(rest) => hand_over("nested", &rest),
        Command::Test(options) => test::run(&options),
        Command::Build(options) => machine::prepare().and_then(|()| build::run(&options)),
        Command::Fuzz(options) => fuzz::run(&options),
    };
    interrupt::exit_code(outcome)
}

/// Becomes the program in `bench/`, which gets Ctrl-C then and says how it ends.
fn hand_over(what: &str, rest: &Rest) -> Result<()> {
    let mut command = build::bench(what);
    Err(command.args(&rest.arguments).exec()).context("starting cargo failed")
}
