//! The deaths: the fault that is injected, and the cause and the phrases that its explanation must have.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::death::{
    Death, assembled, carried, command, compiled, instruction, limited, of, python, shell, watched,
};
use super::reports;

/// Deaths in a guest that has SSE4.2 and POPCNT, and no AVX.
pub fn modern(folder: &Path) -> Result<Vec<Death>> {
    let mut deaths = programs(folder)?;
    deaths.extend(scripts());
    deaths.extend(reports::modern(folder)?);
    Ok(deaths)
}

/// Deaths in a guest that has nothing beyond the first x86-64.
pub fn oldest(folder: &Path) -> Result<Vec<Death>> {
    let mut deaths = reports::oldest(folder)?;
    deaths.extend([
        instruction(folder, "sse4-2", "crc32b %al, %ebx", &["needs SSE4.2", "lacks SSE4.2"])?,
        instruction(folder, "popcnt", "popcnt %eax, %ebx", &["needs POPCNT", "lacks POPCNT"])?,
        instruction(folder, "ssse3", "pshufb %xmm0, %xmm1", &["needs SSSE3", "lacks SSSE3"])?,
    ]);
    Ok(deaths)
}

/// Lines of a provider file that put what they need into the sandbox.
pub fn files(deaths: &[Death]) -> String {
    deaths.iter().map(|death| death.file.as_str()).chain([FILES]).collect()
}

/// Files that a sandbox needs for some of them, as a provider file names them.
const FILES: &str = r##"
[[files]]
path = "/tmp/no-interpreter"
owner = "person"
mode = 0o755
content = "#!/usr/bin/node-12\n"

[[files]]
path = "/tmp/no-format"
owner = "person"
mode = 0o755
content = "injected"

[[files]]
path = "/tmp/other-processor"
owner = "person"
mode = 0o755
content = "\u007fELF\u0001\u0001\u0001\u0000\u0000\u0000\u0000\u0000\u0000\u0000\u0000\u0000\u0002\u0000\u0028\u0000\u0001\u0000\u0000\u0000"
"##;

fn programs(folder: &Path) -> Result<Vec<Death>> {
    let missing = |name, code, says| instruction(folder, name, code, says);
    let fault = |name, number: u32, cause, says| {
        let source = xtask::shell::root().join("bench/injected-faults/faults.c");
        let define = format!("-DDEATH={number}");
        carried(&compiled(folder, name, &source, &define)?, name, cause, says)
    };
    Ok(vec![
        missing(
            "avx",
            "vaddps %ymm0, %ymm1, %ymm2",
            &["`vaddps ymm2, ymm1, ymm0`", "needs AVX;", "lacks AVX"],
        )?,
        missing(
            "avx2",
            "vpmovzxbd (%rsp), %ymm0",
            &["`vpmovzxbd ymm0, [rsp]` at avx2+0x", "needs AVX2", "lacks AVX2"],
        )?,
        missing("avx512", "vaddps %zmm0, %zmm1, %zmm2", &["zmm", "needs AVX-512F"])?,
        missing("bmi2", "pdep %eax, %ebx, %ecx", &["needs BMI2", "lacks BMI2"])?,
        missing("fma", "vfmadd132ps %xmm0, %xmm1, %xmm2", &["needs FMA", "lacks FMA"])?,
        trap(folder, "ud2", "ud2")?,
        trap(folder, "int3", "int3")?,
        privileged(folder)?,
        fault(
            "null-write",
            1,
            "bad_memory_access",
            &["wrote to address 0x18, a null pointer", "injected"],
        )?,
        fault("code", 2, "bad_memory_access", &["wrote to address", "does not allow this access"])?,
        fault(
            "jump",
            3,
            "bad_memory_access",
            &["jumped to 0x700000001000, where nothing is mapped"],
        )?,
        fault("recursion", 4, "stack_overflow", &["overflowed its stack", "deeper"])?,
        fault("division", 5, "bad_arithmetic", &["an integer division by zero"])?,
        fault("seccomp", 6, "forbidden_system_call", &["its seccomp filter forbids", "39"])?,
        no_library(folder)?,
    ])
}

/// Deaths of a shell or of Python without a program of ours.
fn scripts() -> Vec<Death> {
    [by_signals(), that_say_why(), by_exit_codes(), that_never_start(), that_hang()]
        .into_iter()
        .flatten()
        .collect()
}

/// Signals that somebody or the kernel sends.
fn by_signals() -> Vec<Death> {
    vec![
        shell(
            "kill-9",
            "kill -9 $$",
            "killed_by_signal",
            &["signal 9 (SIGKILL)", "no lack of memory"],
        ),
        shell(
            "kill-15",
            "kill -15 $$",
            "killed_by_signal",
            &["signal 15 (SIGTERM)", "came from a process"],
        ),
        shell(
            "sent-segv",
            "(sleep 1; kill -SEGV $$) & exec sleep 60",
            "killed_by_signal",
            &["SIGSEGV", "the process with PID "],
        ),
        python(
            "pipe",
            "import os,signal; signal.signal(13,signal.SIG_DFL); r,w=os.pipe(); os.close(r); os.write(w,b'x')",
            "killed_by_signal",
            &["SIGPIPE", "nobody reads"],
        ),
        python(
            "alarm",
            "import signal,time; signal.alarm(1); time.sleep(60)",
            "killed_by_signal",
            &["SIGALRM", "alarm"],
        ),
        shell(
            "cpu-limit",
            "ulimit -S -t 1; while :; do :; done",
            "limit_reached",
            &["CPU time limit"],
        ),
        shell(
            "file-limit",
            "ulimit -f 1; exec head -c 100000 /dev/zero > /tmp/injected-file",
            "limit_reached",
            &["exceeded its file size limit"],
        ),
        of(
            "child-memory",
            "command = [\"sh\", \"-c\", \"python3 -c 'x=[bytearray(1<<20) for _ in range(4000)]'; exit 1\"]\nmemory_mib = 48",
            "out_of_memory",
            &["exited with code 1 just after the kernel killed python3", "limit is 48 MiB"],
        ),
        limited(
            "memory",
            "memory_mib = 48",
            "x=[bytearray(1<<20) for _ in range(4000)]",
            "out_of_memory",
            &["out of memory; its memory limit is 48 MiB; its peak was 4"],
        ),
    ]
}

/// Programs that say why, each in its way.
fn that_say_why() -> Vec<Death> {
    vec![
        python(
            "null-read",
            "import ctypes; ctypes.string_at(8)",
            "bad_memory_access",
            &["read address 0x8, a null pointer", "libc.so.6+0x"],
        ),
        python(
            "bus",
            "import mmap,os; f=os.open('/tmp/injected-map',os.O_RDWR|os.O_CREAT); os.ftruncate(f,8192); m=mmap.mmap(f,8192); os.ftruncate(f,0); m[5000]",
            "bad_memory_access",
            &["a bus error", "/tmp/injected-map"],
        ),
        python(
            "abort",
            "import os,sys; print('out of tea', flush=True); os.abort()",
            "aborted",
            &["aborted itself", "out of tea"],
        ),
        python(
            "own-report",
            "import faulthandler,ctypes; faulthandler.enable(); ctypes.string_at(0)",
            "aborted",
            &["caught a fault, reported it", "Fatal Python error: Segmentation fault"],
        ),
        python(
            "assertion",
            "assert 1 == 2, 'sums differ'",
            "failed_check",
            &["AssertionError: sums differ"],
        ),
        python("exception", "print({}['offer'])", "uncaught_exception", &["KeyError: 'offer'"]),
        python(
            "syntax",
            "a b",
            "syntax_error",
            &["SyntaxError", "it will not be restarted, because that would not help"],
        ),
        python(
            "module",
            "import injected_nowhere",
            "missing_library",
            &["No module named 'injected_nowhere'"],
        ),
        python("recursion-error", "f=lambda: f()\nf()", "stack_overflow", &["RecursionError"]),
        python(
            "denied",
            "open('/etc/shadow')",
            "permission_denied",
            &["PermissionError", "/etc/shadow"],
        ),
        python(
            "port-taken",
            "import socket; a=socket.socket(); a.bind(('127.0.0.1',8098)); a.listen(); socket.socket().bind(('127.0.0.1',8098))",
            "already_in_use",
            &["Address already in use"],
        ),
    ]
}

/// Exit codes, with and without words.
fn by_exit_codes() -> Vec<Death> {
    vec![
        shell("quiet", "exit 3", "unknown", &["exited with code 3", "printed nothing"]),
        shell(
            "no-offer",
            "sleep 2; echo no offer; exit 1",
            "ended_by_self",
            &["exited with code 1 after", "it reported: no offer"],
        ),
        shell("orderly", "echo done", "ended_by_self", &["without an error"]),
        shell("daemon", "sleep 30 & exit 0", "ended_by_self", &["without an error"]),
        shell(
            "closed-output",
            "exec >&- 2>&-; sleep 1; exit 7",
            "unknown",
            &["exited with code 7", "printed nothing"],
        ),
        shell(
            "not-found",
            "exec missing-program",
            "missing_program",
            &["exited with code 127", "not found"],
        ),
        shell(
            "not-executable",
            "exec /etc/passwd",
            "not_executable",
            &["exited with code 126", "Permission denied"],
        ),
    ]
}

/// Starts that fail.
fn that_never_start() -> Vec<Death> {
    vec![
        of(
            "no-program",
            "command = [\"missing-program\"]",
            "missing_program",
            &["the program missing-program does not exist"],
        ),
        of(
            "no-right",
            "command = [\"/etc/passwd\"]",
            "not_executable",
            &["/etc/passwd is not executable", "mode 644"],
        ),
        file(
            "no-interpreter",
            "missing_interpreter",
            &["the interpreter /usr/bin/node-12 of /tmp/no-interpreter does not exist"],
        ),
        file(
            "other-processor",
            "not_executable",
            &["is a program for another processor (32-bit ARM)", "this machine's is x86-64"],
        ),
        file("no-format", "not_executable", &["neither a script with a first line"]),
    ]
}

/// Services that are there and do not answer.
fn that_hang() -> Vec<Death> {
    vec![
        watched(
            "stopped",
            "os.kill(os.getpid(), signal.SIGSTOP)",
            &["stopped responding for 3 s", "it was stopped by a signal"],
        ),
        watched(
            "deadlock",
            "l=threading.Lock(); l.acquire(); l.acquire()",
            &["stopped responding for 3 s", "futex wait"],
        ),
        of(
            "never-ready",
            "command = [\"sleep\", \"100\"]\nready = { port = 8097 }\nready_seconds = 15",
            "stall",
            &["did not become ready within 15 s (port 8097)", "nanosleep"],
        ),
    ]
}

/// A file that the provider puts into the sandbox: see [`FILES`].
fn file(name: &'static str, cause: &'static str, says: &'static [&'static str]) -> Death {
    of(name, &command(&[&format!("/tmp/{name}")]), cause, says)
}

fn trap(folder: &Path, name: &'static str, code: &str) -> Result<Death> {
    let program = assembled(folder, name, code)?;
    carried(
        &program,
        name,
        "deliberate_trap",
        &["on purpose", "not because of a missing CPU feature"],
    )
}

fn privileged(folder: &Path) -> Result<Death> {
    let program = assembled(folder, "halt", "hlt")?;
    carried(&program, "halt", "bad_instruction", &["`hlt`", "is reserved for the kernel"])
}

/// A program that needs a library which the guest does not have.
fn no_library(folder: &Path) -> Result<Death> {
    let source = folder.join("library.c");
    std::fs::write(&source, "int injected(void) { return 1; }\n")?;
    let library = folder.join("libinjected.so.2");
    let main = folder.join("uses.c");
    std::fs::write(&main, "int injected(void); int main(void) { return injected(); }\n")?;
    let program = folder.join("no-library");
    let run = |arguments: &[&std::ffi::OsStr]| -> Result<()> {
        let status = Command::new("gcc").args(arguments).status().context("starting gcc failed")?;
        if status.success() { Ok(()) } else { bail!("gcc could not build no-library") }
    };
    let soname = "-Wl,-soname,libinjected.so.2".as_ref();
    run(&[
        "-shared".as_ref(),
        "-fPIC".as_ref(),
        soname,
        "-o".as_ref(),
        library.as_ref(),
        source.as_ref(),
    ])?;
    run(&["-s".as_ref(), "-o".as_ref(), program.as_ref(), main.as_ref(), library.as_ref()])?;
    carried(
        &std::fs::read(program)?,
        "no-library",
        "missing_library",
        &["could not start", "libinjected.so.2"],
    )
}
