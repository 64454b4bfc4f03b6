//! All evidence, and what may be said of it: no claim without a field that carries it, and nothing
//! certain that the kernel or the processor did not say.

use anteroom_cpu::Standing;
use proptest::prelude::*;

use super::*;
use crate::fault::decoded;
use crate::instruction::Kind;
use crate::{Cpu, Death, diagnosis};

mod carried;
mod generated;

use carried::is_carried;
use generated::deaths;

/// Whether somebody who decides (the kernel, the processor, the start of it) said that it was this.
fn is_decided(cause: Cause, death: &Death<'_>) -> bool {
    let evidence = death.evidence;
    let fault = evidence.fault.as_deref();
    let raised = |signals: &[i32]| fault.is_some_and(|f| f.code > 0 && signals.contains(&f.signal));
    let decoded = fault.and_then(decoded);
    match cause {
        Cause::MissingCpuFeature => {
            let lacking = |cpu: &Cpu| {
                let mut needs = decoded.iter().flat_map(|decoded| decoded.needs.iter());
                needs.any(|feature| cpu.profile.standing(*feature) == Standing::Off)
            };
            raised(&[4]) && death.cpu.is_some_and(lacking)
        }
        Cause::DeliberateTrap => raised(&[4, 5]),
        Cause::BadInstruction => {
            raised(&[11]) && decoded.is_some_and(|decoded| decoded.kind == Kind::Privileged)
        }
        Cause::BadMemoryAccess => raised(&[7, 11]),
        Cause::BadArithmetic => raised(&[8]),
        Cause::ForbiddenSystemCall => raised(&[31]),
        Cause::OutOfMemory => evidence.out_of_memory.as_ref().is_some_and(|o| o.child.is_none()),
        Cause::Aborted => fault.is_some_and(|fault| fault.sender == Some(Sender::Itself)),
        Cause::LimitReached => fault.is_some_and(|f| f.signal == 24 && f.code == 128),
        Cause::Stall => evidence.stall.is_some(),
        Cause::KilledBySignal => match death.exit {
            Some(ProcessExit::Signalled { signal: 4 | 5 | 6 | 7 | 8 | 11 | 24 | 25 | 31 }) => {
                fault.is_some_and(|f| f.sender != Some(Sender::Itself) && f.code <= 0)
            }
            Some(ProcessExit::Signalled { signal: 13 | 14 }) => fault.is_some(),
            exit => matches!(exit, Some(ProcessExit::Signalled { .. })),
        },
        Cause::EndedBySelf => death.exit == Some(ProcessExit::Exited { code: 0 }),
        Cause::MissingProgram | Cause::MissingInterpreter | Cause::NotExecutable => {
            evidence.not_started.is_some()
        }
        _ => false,
    }
}

type Seen = fn(&Death<'_>) -> bool;

/// Words of a sentence, and what must have been seen where they stand.
const PHRASES: [(&str, Seen); 14] = [
    ("printed nothing", |death| death.last_lines.is_some()),
    ("its last message", |death| death.last_lines.is_some()),
    ("its last line", |death| death.last_lines.is_some()),
    ("its own message", |death| death.last_lines.is_some()),
    ("not captured", |death| {
        death.last_lines.is_none() || death.exit.is_none() || no_registers(death)
    }),
    ("no lack of memory", |death| death.evidence.kernel_log_read),
    ("log was not read", |death| !death.evidence.kernel_log_read),
    ("out of memory", |death| death.evidence.out_of_memory.is_some()),
    ("no core dump", |death| death.evidence.fault.is_none() || no_own_dump(death)),
    ("mapped", |death| death.evidence.fault.is_some()),
    ("seccomp", |death| death.evidence.fault.is_some()),
    ("the profile", |death| death.cpu.is_some()),
    ("C library's message", |death| death.evidence.fault.is_some()),
    ("the processor", |death| death.evidence.fault.is_some()),
];

fn no_registers(death: &Death<'_>) -> bool {
    death.evidence.fault.as_ref().is_some_and(|fault| fault.registers.is_empty())
}

fn no_own_dump(death: &Death<'_>) -> bool {
    let fault = death.evidence.fault.as_ref();
    fault.is_some_and(|f| death.exit != Some(ProcessExit::Signalled { signal: f.signal }))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn no_sentence_says_what_was_not_observed(owned in deaths()) {
        let death = owned.death();
        let said = diagnosis(&death);
        for claim in &said.claims {
            prop_assert!(is_carried(claim, &death), "{claim:?}");
        }
        let confidence = said.confidence();
        if confidence == Confidence::Certain {
            prop_assert!(is_decided(said.cause, &death), "{:?} of {:?}", said.cause, said.claims);
        }
        prop_assert!(said.cause != Cause::Unknown || confidence == Confidence::Unknown);
        let explanation = crate::explain(&death);
        prop_assert!(explanation.sentence.starts_with("injected "));
        for (phrase, seen) in PHRASES {
            prop_assert!(!explanation.sentence.contains(phrase) || seen(&death), "{phrase}");
        }
    }
}
