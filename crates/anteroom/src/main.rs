//! Anteroom: disposable computers for signing in to command-line tools.

mod cli;
mod clock;
mod controller;
mod embedded;
mod gate;
mod logging;
mod private;
mod runner;
mod runner_protocol;

use std::process::ExitCode;

fn main() -> ExitCode {
    let _armed = anteroom_fail_point::arm();
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
