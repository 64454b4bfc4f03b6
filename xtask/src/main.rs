//! The project's own commands. `cargo xtask demo` and `cargo xtask test` are the two that the
//! README promises: on a fresh machine each does everything, set-up included.

mod bench;
mod build;
mod contract;
mod demo;
mod fuzz;
mod interrupt;
mod machine;
mod raw_vm;
mod shell;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What a shell expects of a program that ended by Ctrl-C: 128 and the signal's number.
const INTERRUPTED: u8 = 130;

/// Anteroom's development commands.
#[derive(Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One sign-in from start to end: builds everything, boots a VM, prints the viewer's link.
    Demo(demo::Options),
    /// All tests, as CI runs them.
    Test(test::Options),
    /// Fuzzes what reads foreign bytes; an input that breaks it is kept and named.
    Fuzz(fuzz::Options),
    /// Runs the demo's OpenID provider, for a controller started by hand.
    Provider,
    /// Builds the guest agent, the viewer and the host binary, target/release/anteroom.
    Build(build::Options),
    /// Measures; prints one JSON object as its last line.
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Command::Demo(options) => demo::run(&options),
        Command::Provider => demo::serve_provider(),
        Command::Test(options) => test::run(&options),
        Command::Build(options) => machine::prepare().and_then(|()| build::run(&options)),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Bench(options) => bench::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // What failed then failed because its other side got Ctrl-C too.
        Err(_) if interrupt::happened() => {
            eprintln!("\ninterrupted");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}
