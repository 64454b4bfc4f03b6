//! Deaths in real runtimes: Node.js, Bun, Rust, and code in a library. Their image is that of the real
//! CLIs, with Bun beside them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use xtask::shell;

use super::death::{Death, carried_files, of};

/// The image's name.
pub const IMAGE: &str = "runtimes";

/// Bun for processors without AVX2, as npm's registry has it.
const BUN: &str = r#"
[[npm]]
package = "@oven/bun-linux-x64-baseline@1.4.5"
integrity = "sha512-s8yMwYcFnnrA178gji0gZbkE2WVDej/Ti1x770oPfihxyRxSMNhGhiAQNXV53aDeraZxksdvKV/RAdQBCd0qPA=="
path = "/opt/bun"

[[programs]]
name = "bun"
command = ["/opt/bun/bin/bun", "--version"]
prints = "1.4.5"
"#;

/// The recipe: that of the shipped image of real CLIs, and Bun.
pub fn recipe() -> Result<String> {
    let root = shell::root();
    let shipped = std::fs::read_to_string(root.join("images/signin.toml"))?;
    let files = format!("source = \"{}/images/files/", root.display());
    let renamed = shipped
        .replace("name = \"signin\"\n", &format!("name = \"{IMAGE}\"\n"))
        .replace("source = \"files/", &files);
    Ok(format!("{renamed}{BUN}"))
}

/// Deaths in a guest that has SSE4.2 and POPCNT, and no AVX.
pub fn modern(folder: &Path) -> Result<Vec<Death>> {
    let mut deaths = node();
    deaths.extend(bun());
    deaths.push(rust(folder)?);
    deaths.push(library(folder)?);
    Ok(deaths)
}

/// Deaths in a guest that has nothing beyond the first x86-64: the case that a user of npm's package
/// meets on QEMU's usual CPU.
pub fn oldest() -> Vec<Death> {
    let says =
        &["the service claude crashed with an illegal instruction", "needs SSE4.1", "lacks SSE4.1"];
    vec![of("claude", "command = [\"claude\", \"--version\"]", "missing_cpu_feature", says)]
}

/// A script that a JavaScript runtime takes on its command line.
fn script(
    runtime: &str,
    name: &'static str,
    script: &str,
    cause: &'static str,
    says: &'static [&'static str],
) -> Death {
    let command = serde_json::json!([runtime, "-e", script]);
    of(name, &format!("command = {command}"), cause, says)
}

fn node() -> Vec<Death> {
    let run = |name, text: &str, cause, says| script("node", name, text, cause, says);
    vec![
        run(
            "node-throw",
            "const answer = (offer) => offer(); answer(7)",
            "uncaught_exception",
            &["TypeError: offer is not a function"],
        ),
        run(
            "node-undefined",
            "let session; session.proxyConfig",
            "uncaught_exception",
            &["TypeError: Cannot read properties of undefined (reading 'proxyConfig')"],
        ),
        run(
            "node-rejection",
            "Promise.reject(new Error('signalling answered 429'))",
            "uncaught_exception",
            &["Error: signalling answered 429"],
        ),
        run("node-syntax", "session?.", "syntax_error", &["SyntaxError: Unexpected end of input"]),
        run("node-module", "require('wrtc')", "missing_library", &["Cannot find module 'wrtc'"]),
        run(
            "node-denied",
            "require('fs').readFileSync('/etc/shadow')",
            "permission_denied",
            &["EACCES", "/etc/shadow"],
        ),
        run(
            "node-port",
            "const {createServer} = require('net'); createServer().listen(8094, () => createServer().listen(8094))",
            "already_in_use",
            &["EADDRINUSE", "8094"],
        ),
        run(
            "node-no-file",
            "require('fs').readFileSync('/srv/config.json')",
            "uncaught_exception",
            &["ENOENT", "/srv/config.json"],
        ),
        of(
            "node-heap",
            "command = [\"node\", \"--max-old-space-size=24\", \"-e\", \
             \"const all = []; for (;;) all.push(new Array(1e4).fill({}))\"]",
            "out_of_memory",
            &["heap out of memory"],
        ),
        of(
            "node-v8",
            "command = [\"node\", \"--abort-on-contradictory-flags\", \"--jitless\", \
             \"--always-sparkplug\", \"-e\", \"1\"]",
            "failed_check",
            &["its last message: Flag --always-sparkplug: value implied by --jitless conflicts"],
        ),
        run("node-abort", "process.abort()", "aborted", &["node-abort aborted itself (SIGABRT)"]),
        run(
            "node-60s",
            "console.log('waiting for an offer'); setTimeout(() => { console.error('no offer'); process.exit(1) }, 60200)",
            "ended_by_self",
            &["exited with code 1 after ", "it reported: no offer"],
        ),
        run("node-quiet", "process.exit(9)", "unknown", &["exited with code 9", "printed nothing"]),
    ]
}

fn bun() -> Vec<Death> {
    let run = |name, text: &str, cause, says| script("/opt/bun/bin/bun", name, text, cause, says);
    vec![
        run(
            "bun-throw",
            "const answer = (offer) => offer(); answer(7)",
            "uncaught_exception",
            &["TypeError", "offer is not a function"],
        ),
        run(
            "bun-crash",
            "require('bun:ffi').read.u8(24)",
            "aborted",
            &["caught a fault, reported it", "Segmentation fault at address 0x18"],
        ),
    ]
}

fn rust(folder: &Path) -> Result<Death> {
    let source = folder.join("panics.rs");
    let text = "fn main() { let all = vec![1]; let at = std::env::args().count() + 1; \
                println!(\"{}\", all[at]); }";
    std::fs::write(&source, text)?;
    let program = folder.join("rust-panic");
    let options = ["-C", "opt-level=s", "-C", "strip=symbols", "-C", "panic=abort", "-o"];
    build(Command::new("rustc").args(options).arg(&program).arg(&source))?;
    let says = &["panicked at", "index out of bounds: the len is 1 but the index is 2"];
    let script = "exec /tmp/rust-panic/rust-panic";
    carried_files("rust-panic", &[&program], script, "failed_check", says)
}

/// The instruction is not in the program but in a library of it.
fn library(folder: &Path) -> Result<Death> {
    let (source, main) = (folder.join("scale.S"), folder.join("scales.c"));
    let code = ".globl scale\n.type scale, @function\nscale: vpaddd %ymm0, %ymm1, %ymm2\nret\n.size scale, .-scale\n\
                .section .note.GNU-stack,\"\",@progbits\n";
    std::fs::write(&source, code)?;
    std::fs::write(&main, "int scale(void); int main(void) { return scale(); }\n")?;
    let (library, program) = (folder.join("libscale.so.1"), folder.join("scales"));
    build(
        Command::new("gcc")
            .args(["-shared", "-Wl,-soname,libscale.so.1", "-Wl,--build-id", "-o"])
            .args([&library, &source]),
    )?;
    build(Command::new("gcc").args(["-s", "-o"]).args([&program, &main, &library]))?;
    let script = "export LD_LIBRARY_PATH=/tmp/library; exec /tmp/library/scales";
    let says =
        &["`vpaddd ymm2, ymm1, ymm0` at libscale.so.1+0x", "scale", "needs AVX2", "lacks AVX2"];
    carried_files("library", &[&library, &program], script, "missing_cpu_feature", says)
}

fn build(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("starting {program} failed"))?;
    if status.success() {
        Ok(())
    } else {
        bail!("{program} could not build the program of an injected fault")
    }
}
