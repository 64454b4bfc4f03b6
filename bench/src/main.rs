//! What runs Anteroom as its users do: the demo, whole sign-ins as tests, benchmarks. `cargo xtask demo`,
//! `provider`, `bench` and `nested` build this program and hand over to it.

mod bench;
mod boots;
mod certificates;
mod checks;
mod clones;
mod company;
mod contract;
mod cycles;
mod demo;
mod doors;
mod explain;
mod front;
mod health;
mod identity;
mod idle;
mod kvm;
mod leftovers;
mod logins;
mod nested;
mod node_server;
mod pool;
mod processor_time;
mod provider;
mod raw_vm;
mod report;
mod scripted_viewer;
mod server;
mod soak;
mod start;
mod stream;
mod template;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::interrupt;

/// Anteroom, run as its users do.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One sign-in from start to end: builds everything, boots a VM, prints the viewer's link.
    Demo(demo::Options),
    /// Runs the demo's OpenID provider, for a controller started by hand.
    Provider,
    /// Measures; prints one JSON object as its last line.
    Bench(bench::Options),
    /// Runs a command on a machine with KVM, which QEMU emulates.
    Nested(nested::Options),
    /// Whole sign-ins, as `cargo xtask test` runs them.
    #[command(hide = true)]
    SignIns {
        /// The host binary.
        anteroom: PathBuf,
        /// Only the one from a template, and clones.
        #[arg(long)]
        warm: bool,
    },
    /// Whole sign-ins in VMs on a machine with KVM that is emulated, as `cargo xtask test` runs them.
    #[command(hide = true)]
    SignInsNested {
        /// The host binary.
        anteroom: PathBuf,
    },
    /// Whole sign-ins in VMs, on a machine with KVM.
    #[command(hide = true)]
    SignInsWithKvm {
        /// The host binary.
        anteroom: PathBuf,
        /// Where the golden images are.
        images: PathBuf,
        /// The drivers.
        drivers: Vec<String>,
    },
    /// Sign-ins from a template, on a machine with KVM.
    #[command(hide = true)]
    WarmWithKvm {
        /// The host binary.
        anteroom: PathBuf,
        /// Where the golden images are.
        images: PathBuf,
        /// The driver.
        driver: String,
    },
    /// Starts with Firecracker, as `bench start` measures them, on a machine with KVM that is emulated.
    #[command(hide = true)]
    StartWithKvm(start::Inside),
    /// The deaths of whole sandboxes, as `bench explain` has them, with nothing prepared: on a machine with KVM.
    #[command(hide = true)]
    DeathsWithKvm {
        /// The host binary.
        anteroom: PathBuf,
        #[command(flatten)]
        options: explain::Options,
    },
    /// The API against its OpenAPI document, as `cargo xtask test` holds it.
    #[command(hide = true)]
    Contract {
        /// The host binary.
        anteroom: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = interrupt::take_over().and_then(|()| match arguments.command {
        Command::Demo(options) => demo::run(&options),
        Command::Provider => provider::serve(),
        Command::Bench(options) => bench::run(&options),
        Command::Nested(options) => nested::run(&options),
        Command::SignIns { anteroom, warm: true } => checks::run_warm(&anteroom),
        Command::SignIns { anteroom, warm: false } => checks::run(&anteroom),
        Command::SignInsNested { anteroom } => kvm::run_nested(&anteroom),
        Command::SignInsWithKvm { anteroom, images, drivers } => {
            kvm::run(&anteroom, &images, &drivers)
        }
        Command::WarmWithKvm { anteroom, images, driver } => {
            kvm::run_warm(&anteroom, &images, &driver)
        }
        Command::StartWithKvm(options) => start::run_inside(&options),
        Command::DeathsWithKvm { anteroom, options } => explain::of_sandboxes(&anteroom, &options),
        Command::Contract { anteroom } => contract::check(&anteroom),
    });
    interrupt::exit_code(outcome)
}
