//! Programs that look at the processor themselves, find that it lacks what they need, and say so.
//!
//! What they say is held to the processor that they ran on: a complaint that it does not bear out is
//! reported as a contradiction.

use std::collections::BTreeSet;

use anteroom_cpu::{CpuProfile, Feature, Standing};
use anteroom_guest_protocol::ProcessExit;
use anteroom_session::Cause;

use super::claim::{Claim, Diagnosis};
use super::{Cpu, Death, error_lines, lines, output};

/// A complaint, and the words it was made in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The line or lines, joined and shortened.
    pub phrase: String,
    /// What is said to be needed.
    needs: Needs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Needs {
    Features(BTreeSet<Feature>),
    /// A level of the x86-64 psABI, by the name of its profile.
    Level(&'static str),
    /// The words do not say what.
    Unnamed,
}

/// Lines from the end that are looked through.
const LINES: usize = 24;

/// Lines that one complaint may take: Polars lists a feature a line.
const JOINED: usize = 8;

const SIGILL: i32 = 4;

/// The first line of what Polars lists, below its own line that this is a warning.
const POLARS: &str = "required CPU features were not detected";

/// Complaints that name nothing, or are made in several lines. The words of glibc, NumPy, Go, .NET,
/// GraalVM, Polars, OpenCV and Julia were looked up; the others, and where each source has them, are
/// from memory.
const KNOWN: [&[&str]; 16] = [
    // glibc, elf/dl-load.c and sysdeps/x86/cpu-features.c.
    &["CPU ISA level is lower than required"],
    &["CPU does not support x86-64-v"],
    // NumPy, numpy/_core/src/common/npy_cpu_features.c.
    &["baseline optimizations", "your machine doesn't support"],
    // Go, runtime/asm_amd64.s.
    &["can only be run on AMD64 processors with v"],
    // .NET, src/coreclr/vm/codeman.cpp and the native AOT runtime.
    &["The current CPU is missing one or more of the"],
    &["required instruction sets are not supported by the current CPU"],
    // GraalVM, CPUFeatureAccess.
    &["current machine does not support all of the following CPU features"],
    // Polars, _cpu_check.py.
    &[POLARS],
    // OpenCV, modules/core/src/system.cpp.
    &["OpenCV build doesn't support current CPU"],
    // TensorFlow, tsl/platform/cpu_feature_guard.cc.
    &["was compiled to use", "instructions, but these aren't available on your machine"],
    // DPDK, lib/eal/x86/rte_cpuflags.c.
    &["ERROR: This system does not support \""],
    // ClickHouse, programs/main.cpp.
    &["Instruction check fail", "does not support"],
    // Julia, src/processor.cpp.
    &["Unable to find compatible target in"],
    // Intel's compilers, and its Math Kernel Library.
    &["Please verify that both the operating system and the processor support"],
    &["This program was not built to run on the processor in your system"],
    &["The processor must support the Intel(R)"],
];

/// What a sentence about a processor speaks of.
const SUBJECTS: [&str; 9] = [
    "cpu",
    "processor",
    "your machine",
    "this machine",
    "current machine",
    "this hardware",
    "hardware on this system",
    "instruction set",
    "microarchitecture",
];

/// How such a sentence says that something is not there.
const LACKS: [&str; 20] = [
    "not support",
    "n't support",
    "unsupported",
    "lacks",
    "lacking",
    "missing",
    "requires",
    "required",
    "not available",
    "n't available",
    "not have",
    "n't have",
    "has no ",
    "have no ",
    "not meet",
    "n't meet",
    "not detected",
    "only run on",
    "only be run on",
    "lower than",
];

/// The complaint that the program died of, if it made one: nothing else is reported after it. Who only
/// warns goes on, and died of that only where an illegal instruction followed.
pub fn complaint(death: &Death<'_>) -> Option<Complaint> {
    let lines = death.lines();
    let first = lines.len().saturating_sub(LINES);
    let at = (first..lines.len()).rev().find(|at| complains(&lines[*at..]))?;
    let crashed = matches!(output::own_crash_report(lines), Some((SIGILL, _)))
        || match death.exit {
            Some(ProcessExit::Signalled { signal }) => signal == SIGILL,
            // A shell's way to say it.
            Some(ProcessExit::Exited { code }) => code == 128 + SIGILL,
            None => false,
        };
    let text = joined(&lines[at..]);
    if !crashed
        && (is_warning(&lines[at])
            || lines::meaningful_after(lines, at) > JOINED
            || lines[at + 1..].iter().any(|line| is_other_error(line)))
    {
        return None;
    }
    Some(Complaint { phrase: lines::quoted(&text), needs: needs(&text) })
}

/// Whether it is said of something that the program does without.
fn is_warning(line: &str) -> bool {
    const SOFT: [&str; 8] = [
        "warning: ",
        "warn]",
        "falling back",
        "fall back",
        "fallback",
        "slow",
        "performance",
        "disabling",
    ];
    const LEVELS: [&str; 5] = ["warn", "note:", "info", "hint:", "debug"];
    let lower = line.trim_start_matches(['[', ' ', '(']).to_ascii_lowercase();
    LEVELS.iter().any(|level| lower.starts_with(level))
        || SOFT.iter().any(|phrase| lower.contains(phrase))
        || lower.contains(&POLARS.to_ascii_lowercase())
}

/// Whether another error is reported that has nothing to do with the processor.
fn is_other_error(line: &str) -> bool {
    let lower = line.to_ascii_lowercase();
    error_lines::is_error(line) && !SUBJECTS.iter().any(|subject| lower.contains(subject))
}

/// Names of features that are names of other things, too.
const AMBIGUOUS: [&str; 6] = ["aes", "sha", "sse", "adx", "hle", "rtm"];

/// Whether its words are of instructions, where what it names may be something else.
fn is_of_instructions(lower: &str) -> bool {
    lower.contains("cpu") || lower.contains("instruction") || lower.contains("microarchitecture")
}

/// Whether a complaint begins in the first of these lines.
fn complains(lines: &[String]) -> bool {
    let (line, text) = (&lines[0], joined(lines));
    let known = KNOWN
        .iter()
        .any(|all| line.contains(all[0]) && all.iter().all(|phrase| text.contains(phrase)));
    known || {
        let lower = line.to_ascii_lowercase();
        let any = |phrase: &[&str]| phrase.iter().any(|word| lower.contains(word));
        any(&SUBJECTS)
            && any(&LACKS)
            && (is_of_instructions(&lower) || !is_ambiguous(line))
            && (needs(line) != Needs::Unnamed || lower.contains("instruction set"))
    }
}

/// Whether all that a line names may be something else.
fn is_ambiguous(line: &str) -> bool {
    let line = &joined_names(line);
    let phrase = line.split(|c: char| !(c.is_ascii_alphanumeric() || "_.-".contains(c)));
    let mut named = phrase.filter(|word| feature(word.trim_matches(['.', '-', '_'])).is_some());
    level(line).is_none()
        && named.all(|word| AMBIGUOUS.contains(&word.to_ascii_lowercase().as_str()))
}

/// A complaint's lines as one: those that follow belong to it while it has not ended.
fn joined(lines: &[String]) -> String {
    let mut text = lines[0].trim().to_owned();
    for line in lines[1..].iter().take(JOINED - 1) {
        let line = line.trim();
        let goes_on = text.ends_with([':', ',', '(', '[']) || line.starts_with('(');
        if !line.is_empty() && !goes_on {
            break;
        }
        if !line.is_empty() {
            text.push(' ');
            text.push_str(line);
        }
    }
    text
}

/// What a complaint names. Where it lists what it was built with first, what it lacks comes last.
fn needs(text: &str) -> Needs {
    let text = text.rsplit_once("doesn't support:").map_or(text, |(_, lacks)| lacks);
    // What it has comes after what it lacks.
    let has = [" only supports ", " supports only ", " only has "];
    let text = has.iter().find_map(|has| text.split_once(has)).map_or(text, |(lacks, _)| lacks);
    let text = joined_names(text);
    if let Some(level) = level(&text) {
        return Needs::Level(level);
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let names = text.split(|c| !is_part(c)).map(|name| name.trim_matches(['.', '-', '_']));
    let features: BTreeSet<Feature> = names.filter_map(feature).collect();
    if features.is_empty() { Needs::Unnamed } else { Needs::Features(features) }
}

/// With names of features as one word.
fn joined_names(text: &str) -> String {
    text.replace("SSE 4", "SSE4").replace("AVX 512", "AVX512")
}

fn feature(name: &str) -> Option<Feature> {
    match name.to_ascii_lowercase().as_str() {
        "avx512" | "avx-512" => Some(Feature::Avx512F),
        "fma3" => Some(Feature::Fma),
        "sse4" => Some(Feature::Sse4_1),
        "aes-ni" | "aesni" | "aes_ni" => Some(Feature::Aes),
        "pclmul" => Some(Feature::Pclmulqdq),
        "bmi" => Some(Feature::Bmi1),
        _ => Feature::from_name(name),
    }
}

/// `x86-64-v3`, NumPy's `X86_V3`, Go's `AMD64 processors with v3 microarchitecture`.
fn level(text: &str) -> Option<&'static str> {
    const LEVELS: [(&str, &str); 3] =
        [("v2", "x86-64-v2"), ("v3", "x86-64-v3"), ("v4", "x86-64-v4")];
    let lower = text.to_ascii_lowercase().replace('_', "-");
    // The highest that is named contains the others.
    LEVELS.into_iter().rev().find_map(|(short, name)| {
        let forms =
            [name.to_owned(), format!("x86-{short}"), format!("amd64 processors with {short} ")];
        forms.iter().any(|form| lower.contains(form)).then_some(name)
    })
}

/// Says why, by a complaint; `how` is how the program ended.
pub fn explain(death: &Death<'_>, mut how: Vec<Claim>, complaint: Complaint) -> Diagnosis {
    let phrase = complaint.phrase;
    let (named, features) = match complaint.needs {
        Needs::Unnamed => {
            how.push(Claim::Complaint { lacks: None, phrase });
            return Diagnosis::new(Cause::MissingCpuFeature, how)
                .advise("use a build for older processors, or a CPU profile with more");
        }
        Needs::Level(level) => (level.to_owned(), features_of(level)),
        Needs::Features(features) => (list(features.iter()), features),
    };
    let advice = format!("use a build that does not need {named}, or a CPU profile with it");
    // Of a list it may say that something of it is missing.
    let some = features.len() > 1
        && ["one or more of", "not support all of", "Please verify that"]
            .iter()
            .any(|of| phrase.contains(of));
    let lacks = if some { format!("some of {named}") } else { named };
    how.push(Claim::Complaint { lacks: Some(lacks), phrase });
    let standing = held_to(death.cpu, &features);
    let cause = match standing {
        Claim::CpuLacks { .. } | Claim::CpuUnknown => Cause::MissingCpuFeature,
        _ => Cause::Unknown,
    };
    how.push(standing);
    let diagnosis = Diagnosis::new(cause, how);
    if cause == Cause::Unknown { diagnosis } else { diagnosis.advise(advice) }
}

/// What is said of a processor that is to have these.
pub fn held_to(cpu: Option<&Cpu>, features: &BTreeSet<Feature>) -> Claim {
    let Some(Cpu { name, profile }) = cpu else { return Claim::CpuUnknown };
    let (cpu, missing) = (name.clone(), super::instruction::missing(features, profile));
    if !missing.is_empty() {
        return Claim::CpuLacks { cpu, features: missing };
    }
    let is_on = |feature: &Feature| profile.standing(*feature) == Standing::On;
    let (all, features) = (features.iter().all(is_on), features.iter().copied().collect());
    if all { Claim::CpuHasAll { cpu, features } } else { Claim::CpuLeavesToHost { cpu, features } }
}

fn features_of(level: &str) -> BTreeSet<Feature> {
    CpuProfile::named(level).map(|profile| profile.features(Standing::On)).unwrap_or_default()
}

fn list<'a>(features: impl Iterator<Item = &'a Feature>) -> String {
    features.map(|feature| feature.name()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(exit: ProcessExit, text: &str) -> Option<Complaint> {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        complaint(&Death {
            service: "injected",
            exit: Some(exit),
            lived_ms: None,
            last_lines: Some(&lines),
            evidence: &anteroom_guest_protocol::Evidence::default(),
            cpu: None,
        })
    }

    fn of(text: &str) -> Option<Complaint> {
        ended(ProcessExit::Exited { code: 1 }, text)
    }

    fn features(names: &[&str]) -> Needs {
        Needs::Features(names.iter().map(|name| Feature::from_name(name).unwrap()).collect())
    }

    #[test]
    fn each_program_s_complaint_is_understood() {
        let level = Needs::Level;
        let cases = [
            ("Fatal glibc error: CPU does not support x86-64-v2", level("x86-64-v2")),
            (
                "a: error while loading shared libraries: libx.so: CPU ISA level is lower than required",
                Needs::Unnamed,
            ),
            (
                "Traceback (most recent call last):\n  File \"a.py\", line 1, in <module>\nRuntimeError: NumPy was built with baseline optimizations: \n(SSE SSE2 X86_V2) but your machine doesn't support:\n(X86_V2).",
                level("x86-64-v2"),
            ),
            (
                "RuntimeError: NumPy was built with baseline optimizations: \n(SSE SSE2 SSE3) but your machine doesn't support:\n(SSE3 SSSE3 SSE41 POPCNT SSE42).",
                features(&["SSE3", "SSSE3", "SSE4.1", "POPCNT", "SSE4.2"]),
            ),
            (
                "This program can only be run on AMD64 processors with v3 microarchitecture support.",
                level("x86-64-v3"),
            ),
            (
                "2026-01-01 00:00:00.0: F tensorflow/core/platform/cpu_feature_guard.cc:38] The TensorFlow library was compiled to use AVX2 instructions, but these aren't available on your machine.",
                features(&["AVX2"]),
            ),
            (
                "Instruction check fail. The CPU does not support SSSE3 instruction set.",
                features(&["SSSE3"]),
            ),
            (
                "The current CPU is missing one or more of the baseline instruction sets.",
                Needs::Unnamed,
            ),
            (
                "The current machine does not support all of the following CPU features that are required by the image: [CX8, CMOV, FXSR, MMX, SSE, SSE2, SSE4_2, POPCNT, AVX].\nPlease rebuild the executable with an appropriate setting of the -march option.",
                features(&["CX8", "CMOV", "FXSR", "MMX", "SSE", "SSE2", "SSE4.2", "POPCNT", "AVX"]),
            ),
            (
                "The hardware on this system lacks support for SSE3 instructions.",
                features(&["SSE3"]),
            ),
            ("scylla requires a processor with SSE 4.2 support", features(&["SSE4.2"])),
            ("ERROR: This system does not support \"AVX2\".", features(&["AVX2"])),
            (
                "CPU lacks AVX support. Please consider upgrading to a newer CPU.",
                features(&["AVX"]),
            ),
            (
                "error: this binary needs a CPU with AVX-512, which is not available",
                features(&["AVX-512F"]),
            ),
            ("runtime: this CPU has no SSE2 support", features(&["SSE2"])),
            ("Error: This CPU doesn't have AES-NI instructions", features(&["AES"])),
            ("panic: CPU does not meet the x86_64-v2 microarchitecture level", level("x86-64-v2")),
            ("error: this build requires AVX2; your CPU only supports SSE4.2", features(&["AVX2"])),
            (
                "This binary requires a processor with SSE 4.2 and PCLMUL support; aborting",
                features(&["SSE4.2", "PCLMULQDQ"]),
            ),
            (
                "Please verify that both the operating system and the processor support Intel(R) X87, SSE4_2, POPCNT and AVX2 instructions.",
                features(&["SSE4.2", "POPCNT", "AVX2"]),
            ),
            (
                "Fatal Error: This program was not built to run on the processor in your system.\nThe allowed processors are: Intel(R) processors.",
                Needs::Unnamed,
            ),
        ];
        for (text, needs) in cases {
            assert_eq!(of(text).map(|found| found.needs), Some(needs), "{text}");
        }
    }

    #[test]
    fn what_is_no_complaint_or_was_survived_is_none() {
        for text in [
            "",
            "fatal: this machine requires a login",
            "CPU usage 95 %, SSE stream closed",
            "error: unsupported processor architecture",
            "warn: CPU lacks AVX support, strange crashes may occur\nlistening\nfatal: no database",
            "missing AES key",
            "error: this command requires AES encryption of the keyring, which is not available on this machine",
            "Error: this machine does not support SHA 1 login tokens; please upgrade",
            "Error: your machine doesn't have ADX access",
            "Error: this machine is missing the proxy setting required for SSE",
            "error: the payment processor for AES tokens is missing",
            "[warn] AVX2 not supported by this CPU, using the slow path\n[error] connect ECONNREFUSED",
            "note: this CPU does not support AVX2",
            "this CPU does not support AVX2\nloading all the same\nerror: invalid password",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
        let bun = "warn: CPU lacks AVX support, strange crashes may occur.\npanic(main thread): Illegal instruction at address 0x1";
        assert_eq!(of(bun).unwrap().needs, features(&["AVX"]));
    }

    #[test]
    fn what_came_after_a_warning_is_put_down_to_it_only_where_it_was_an_illegal_instruction() {
        // As Polars prints it, and goes on.
        let polars = "a/polars/_cpu_check.py:259: RuntimeWarning: Missing required CPU features.\n\nThe following required CPU features were not detected:\n    avx2, fma\nContinuing to use this version of Polars on this processor will likely result in a crash.\nInstall `polars[rtcompat]` instead of `polars` to run Polars with better compatibility.\n\nHint: If you are on an Apple ARM machine (e.g. M1) this is likely due to running Python under Rosetta.\n\nIf you believe this warning to be a false positive, you can set the `POLARS_SKIP_CPU_CHECK` environment variable to bypass this check.\n\n  warnings.warn(";
        let failed = format!(
            "{polars}\nTraceback (most recent call last):\n  File \"a.py\", line 3, in <module>\nKeyError: 'price'"
        );
        assert_eq!(of(&failed), None);
        assert_eq!(of(polars), None);
        assert_eq!(of("a.py:3: UserWarning: this CPU does not support AVX2, falling back"), None);
        for exit in [ProcessExit::Exited { code: 132 }, ProcessExit::Signalled { signal: 4 }] {
            assert_eq!(ended(exit, polars).unwrap().needs, features(&["AVX2", "FMA"]));
        }
    }
}
