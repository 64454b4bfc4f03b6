//! Deaths by an exit code, and starts that failed.

use anteroom_guest_protocol::NotStarted;

use anteroom_session::{Cause, Confidence, Explanation};

use super::{Death, processor, seconds, signal, told, words};

/// Says why a program ended by itself.
pub fn explain(death: &Death<'_>, code: i32) -> Explanation {
    let (service, lived) = (death.service, seconds(death.lived_ms));
    if code != 0
        && let Some(complaint) = processor::complaint(death.lines())
    {
        let how = format!("{service} exited {code} after {lived}");
        return processor::explain(death, &how, &complaint);
    }
    if let Some((number, line)) = words::own_crash_report(death.lines())
        && code != 0
    {
        return told(
            Cause::Aborted,
            Confidence::Likely,
            format!(
                "{service} caught {} of its own after {lived}, reported it and exited {code}: {line}",
                signal::name(number)
            ),
        );
    }
    if let Some(said) = words::said(death.lines())
        && code != 0
    {
        let sentence = match said.cause {
            Cause::MissingLibrary if code == 127 => {
                format!("{service} could not start: {}", said.line)
            }
            _ => format!("{service} exited {code} after {lived}; its last words: {}", said.line),
        };
        let explanation = told(said.cause, Confidence::Likely, sentence);
        return match said.advice {
            Some(advice) => explanation.advise(&advice),
            None => explanation,
        };
    }
    let last = words::last(death.lines());
    match (code, last) {
        (0, last) => told(
            Cause::EndedBySelf,
            Confidence::Certain,
            format!(
                "{service} ended with exit code 0, so without an error, after {lived}{}",
                after(last)
            ),
        ),
        (126, last) => told(
            Cause::NotExecutable,
            Confidence::Likely,
            format!(
                "{service} exited 126 after {lived}, as a shell does when a program is there and cannot be executed{}",
                after(last)
            ),
        ),
        (127, last) => told(
            Cause::MissingProgram,
            Confidence::Likely,
            format!(
                "{service} exited 127 after {lived}, as a shell does when a program is not there{}",
                after(last)
            ),
        ),
        (129..=192, last) => told(
            Cause::Unknown,
            Confidence::Unknown,
            format!(
                "{service} exited {code} after {lived}, a shell's way to say that its child was ended by {}{}",
                signal::name(code - 128),
                after(last)
            ),
        ),
        (code, Some(line)) => told(
            Cause::EndedBySelf,
            Confidence::Likely,
            format!("{service} exited {code} after {lived}, after its own message: {line}"),
        ),
        (code, None) => told(
            Cause::Unknown,
            Confidence::Unknown,
            format!("{service} exited {code} after {lived}{}", death.silence()),
        ),
    }
}

fn after(last: Option<String>) -> String {
    last.map_or_else(String::new, |line| format!("; its last line: {line}"))
}

/// A start that failed before the program ran.
pub fn not_started(death: &Death<'_>, failure: &NotStarted) -> Explanation {
    let service = death.service;
    let could_not = |cause, why: String| {
        told(cause, Confidence::Certain, format!("{service} could not start: {why}"))
    };
    match failure {
        NotStarted::NoProgram { program } => {
            could_not(Cause::MissingProgram, format!("there is no program {program}"))
                .advise("install it in the image's recipe (with the host driver: in a folder of PATH that every user may enter), or mend the command's path")
        }
        NotStarted::NoInterpreter { program, interpreter } if interpreter.ends_with("\\r") => {
            could_not(
                Cause::MissingInterpreter,
                format!(
                    "the interpreter {interpreter} of {program} does not exist: its first line ends in a carriage return"
                ),
            )
            .advise("save the file with LF line ends (sed -i 's/\\r$//' FILE)")
        }
        NotStarted::NoInterpreter { program, interpreter } => could_not(
            Cause::MissingInterpreter,
            format!("the interpreter {interpreter} of {program} does not exist"),
        )
        .advise("install the interpreter in the image's recipe, or mend the file's first line"),
        NotStarted::NotExecutable { program, mode } => could_not(
            Cause::NotExecutable,
            format!("{program} may not be executed by its user (mode {:o})", mode & 0o7777),
        )
        .advise("set its execute bits (chmod +x) in the image's recipe"),
        NotStarted::NotAProgram { program, begins_with } => could_not(
            Cause::NotExecutable,
            format!(
                "{program} is neither a script with a first line like #!/bin/sh nor a binary for this machine (it begins with the bytes {begins_with})"
            ),
        ),
        NotStarted::OtherProcessor { program, processor } => could_not(
            Cause::NotExecutable,
            format!("{program} is a program for another processor: {processor}, and this machine's is x86-64"),
        )
        .advise("take the build for x86-64 (amd64)"),
        NotStarted::Other { program, errno } => told(
            Cause::Unknown,
            Confidence::Unknown,
            format!(
                "{service} could not start: executing {program} failed with error number {errno}"
            ),
        ),
    }
}

/// Neither a wait status nor a failed start.
pub fn never_ran(death: &Death<'_>) -> Explanation {
    told(
        Cause::Unknown,
        Confidence::Unknown,
        format!("{} is gone and how it ended was not seen", death.service),
    )
}
