//! Anteroom: disposable computers for signing in to command-line tools.

mod cli;
mod embedded;
mod logging;

use std::process::ExitCode;

use anteroom_session::counted;

fn main() -> ExitCode {
    let _armed = anteroom_fail_point::arm();
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A cause may quote a file or a guest.
            let error = format!("{error:#}");
            anstream::eprintln!("error: {}", anteroom_guest_protocol::ForeignText::lines(&error));
            ExitCode::FAILURE
        }
    }
}
