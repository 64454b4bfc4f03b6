//! Deaths whose report has more than its last line, or none that reached the output: the C library's, the
//! runtimes', those about the processor.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::death::{Death, assembled, carried, python, shell};

/// In a guest that has SSE4.2 and POPCNT, and no AVX.
pub fn modern(folder: &Path) -> Result<Vec<Death>> {
    let refused = |name, code: &str, says| {
        carried(&assembled(folder, name, code)?, name, "bad_memory_access", says)
    };
    let aborts = |name, source: &str, says| {
        carried(&built(folder, name, source, &[])?, name, "failed_check", says)
    };
    Ok(vec![
        refused(
            "not-aligned",
            "movaps 8(%rsp), %xmm0",
            &["`movaps xmm0, [rsp+8]`", "which is not aligned to 16 bytes"],
        )?,
        refused(
            "no-address",
            "movabs $0x4141414141414141, %rax; mov (%rax), %rbx",
            &["used 0x4141414141414141, which is not a valid address"],
        )?,
        aborts(
            "closed-assert",
            "#include <assert.h>\n#include <unistd.h>\n\
             int main(int tea, char **all) { close(2); assert(tea == 7); return 0; }\n",
            &["its C library's message", "Assertion `tea == 7' failed"],
        )?,
        aborts(
            "heap",
            "#include <stdlib.h>\nint main(void) { char *all = malloc(9); free(all + 8); return 0; }\n",
            &["aborted itself (SIGABRT)", "free(): invalid pointer"],
        )?,
        // No Go is in the image: its report, as runtime/panic.go prints it.
        shell(
            "go-panic",
            "printf 'listening\\npanic: open /etc/offers: no such file or directory\\n\\n\
             goroutine 1 [running]:\\nmain.main()\\n\\t/src/main.go:7 +0x1d\\n' >&2; exit 2",
            "uncaught_exception",
            &["its last message: panic: open /etc/offers: no such file or directory"],
        ),
        // As `fatal error` prints it: the stacks of all goroutines.
        shell(
            "go-stacks",
            "printf 'fatal error: concurrent map writes\\n\\n' >&2; for n in $(seq 40); do printf 'goroutine %d \
             [select]:\\nmain.serve(0xc0)\\n\\t/src/main.go:7 +0x1d\\n\\n' $n >&2; done; exit 2",
            "uncaught_exception",
            &["its last message: fatal error: concurrent map writes"],
        ),
        python(
            "lines",
            "raise RuntimeError('no offer\\nof any kind')",
            "uncaught_exception",
            &["RuntimeError: no offer of any kind"],
        ),
        python(
            "python-library",
            "import ctypes; ctypes.CDLL('libmissing-program.so.3')",
            "missing_library",
            &["libmissing-program.so.3: cannot open shared object file"],
        ),
    ])
}

/// In a guest that has nothing beyond the first x86-64.
pub fn oldest(folder: &Path) -> Result<Vec<Death>> {
    let marked =
        built(folder, "isa-level", "int main(void) { return 0; }\n", &["-Wl,-z,x86-64-v2"])?;
    Ok(vec![
        // The guest's own loader refuses it.
        carried(
            &marked,
            "isa-level",
            "missing_cpu_feature",
            &["saying that its processor lacks", "CPU ISA level is lower than required"],
        )?,
        // The C library of the image is built for all: its words, where it is not.
        shell(
            "glibc-v2",
            "echo 'Fatal glibc error: CPU does not support x86-64-v2' >&2; exit 127",
            "missing_cpu_feature",
            &["its processor lacks x86-64-v2", "lacks ", "SSE4.2"],
        ),
        python(
            "numpy",
            "raise RuntimeError('NumPy was built with baseline optimizations: \\n(X86_V2) but your machine doesn\\'t support:\\n(X86_V2).')",
            "missing_cpu_feature",
            &["its processor lacks x86-64-v2", "lacks "],
        ),
        // It only warned, and went on.
        python(
            "polars",
            "import warnings; warnings.warn('Missing required CPU features.\\n\\nThe following required CPU features were not detected:\\n    avx2, fma\\nContinuing to use this version of Polars on this processor will likely result in a crash.', RuntimeWarning); {}['price']",
            "uncaught_exception",
            &["KeyError: 'price'"],
        ),
    ])
}

/// A program on the guest's own C library.
pub fn built(folder: &Path, name: &str, source: &str, options: &[&str]) -> Result<Vec<u8>> {
    let (code, program) = (folder.join(format!("{name}.c")), folder.join(name));
    std::fs::write(&code, source)?;
    let status = Command::new("gcc")
        .args(["-s", "-w", "-o"])
        .args([&program, &code])
        .args(options)
        .status()
        .context("starting gcc failed")?;
    if !status.success() {
        bail!("gcc could not build {name}");
    }
    Ok(std::fs::read(program)?)
}
