//! Deaths by an exit code, and starts that failed.

use anteroom_guest_protocol::{NotStarted, ProcessExit};
use anteroom_session::Cause;

use super::claim::{Claim, Diagnosis, ELF, MARKED};
use super::{Death, error_lines, lines, numbers, output, processor};

/// Says why a program ended by itself.
pub fn explain(death: &Death<'_>, code: i32) -> Diagnosis {
    let (exited, after) = (Claim::Exited(code), Claim::After(death.lived_ms));
    if code != 0 {
        if let Some(complaint) = processor::complaint(death) {
            return processor::explain(death, vec![exited, after], complaint);
        }
        if let Some((signal, line)) = output::own_crash_report(death.lines()) {
            let (lived, exit) = (death.lived_ms, ProcessExit::Exited { code });
            let caught = Claim::CaughtFault { signal: Some(signal), lived, exit, line };
            return Diagnosis::new(Cause::Aborted, [caught]);
        }
        if let Some(said) = output::said(death.lines()) {
            let diagnosis = match said.cause {
                Cause::MissingLibrary if code == 127 && lines::is_of_loader(&said.line) => {
                    Diagnosis::new(said.cause, [Claim::CouldNotStart(said.line)])
                }
                _ => Diagnosis::new(said.cause, [exited, after, Claim::LastMessage(said.line)]),
            };
            return diagnosis.advise_if(said.advice);
        }
    }
    let message = error_lines::message(death.lines());
    let (cause, mut claims) = match (code, message) {
        (0, _) => (Cause::EndedBySelf, vec![Claim::EndedWithoutError, after]),
        (126, message) if is_of_shell(message.as_deref(), &CANNOT_EXECUTE) => {
            (Cause::NotExecutable, vec![exited, after, Claim::ShellCouldNot(126)])
        }
        (127, message) if is_of_shell(message.as_deref(), &NOT_THERE) => {
            (Cause::MissingProgram, vec![exited, after, Claim::ShellCouldNot(127)])
        }
        (129.., _) if numbers::ends(code - 128) => {
            (Cause::Unknown, vec![exited, after, Claim::ShellsChild(code - 128)])
        }
        (_, Some(message)) => {
            let claims = [exited, after, Claim::OwnMessage(lines::quoted(&message))];
            return Diagnosis::new(Cause::EndedBySelf, claims);
        }
        (_, None) => {
            return Diagnosis::new(Cause::Unknown, [exited, after, output::shown(death)]).unknown();
        }
    };
    claims.extend(output::printed(death));
    Diagnosis::new(cause, claims)
}

/// What shells and `env` say of a program that is not there, or cannot be executed.
const NOT_THERE: [&str; 4] = ["not found", "No such file", "cannot execute", "not recognized"];
const CANNOT_EXECUTE: [&str; 6] =
    ["denied", "cannot execute", "irectory", "format error", "interpreter", "Text file busy"];

/// Whether a shell's code is borne out by the words beside it; where there are none, it stands alone.
fn is_of_shell(message: Option<&str>, phrase: &[&str]) -> bool {
    message.is_none_or(|message| phrase.iter().any(|word| message.contains(word)))
}

/// A start that failed before the program ran.
pub fn not_started(failure: &NotStarted) -> Diagnosis {
    let (cause, advice) = match failure {
        NotStarted::NoProgram { .. } => (
            Cause::MissingProgram,
            Some(
                "add it to the image's recipe (with the host driver: in a folder of PATH that every user may enter), or correct the command's path",
            ),
        ),
        NotStarted::NoInterpreter { interpreter, .. } if interpreter.ends_with("\\r") => (
            Cause::MissingInterpreter,
            Some("save the file with LF line endings (sed -i 's/\\r$//' FILE)"),
        ),
        // A binary's is a loader of a C library.
        NotStarted::NoInterpreter { interpreter, .. } if is_loader(interpreter) => (
            Cause::MissingInterpreter,
            Some(
                "use the build for this image's C library and for 64 bits, or install the loader (musl, libc6-i386)",
            ),
        ),
        NotStarted::NoInterpreter { .. } => (
            Cause::MissingInterpreter,
            Some("add the interpreter to the image's recipe, or correct the file's first line"),
        ),
        NotStarted::NotExecutable { .. } => {
            (Cause::NotExecutable, Some("set its execute bits (chmod +x) in the image's recipe"))
        }
        NotStarted::NotAProgram { begins_with, .. } if begins_with.starts_with(ELF) => {
            (Cause::NotExecutable, Some("copy or download it again"))
        }
        NotStarted::NotAProgram { begins_with, .. } if begins_with.starts_with(MARKED) => (
            Cause::NotExecutable,
            Some("save it without the mark (sed -i '1s/^\\xef\\xbb\\xbf//' FILE)"),
        ),
        NotStarted::NotAProgram { .. } => (Cause::NotExecutable, None),
        NotStarted::OtherProcessor { .. } => {
            (Cause::NotExecutable, Some("use the build for x86-64 (amd64)"))
        }
        NotStarted::Other { .. } => (Cause::Unknown, None),
    };
    Diagnosis::new(cause, [Claim::NotStarted(failure.clone())]).advise_if(advice)
}

fn is_loader(interpreter: &str) -> bool {
    interpreter.rsplit('/').next().is_some_and(|name| name.starts_with("ld-"))
}

/// Neither a wait status nor a failed start.
pub fn never_ran() -> Diagnosis {
    Diagnosis::new(Cause::Unknown, [Claim::GoneUnseen])
}
