//! A service that will die, and the ways to make one.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use xtask::shell::root;

/// A service that will die.
pub struct Death {
    /// Its name.
    pub name: &'static str,
    /// The kind of cause that is right.
    pub cause: &'static str,
    /// What the sentence must hold, all of it.
    pub says: &'static [&'static str],
    /// The service's lines in TOML, after its name.
    pub(super) service: String,
    /// A file that it needs in the sandbox, as lines of a provider file.
    pub(super) file: String,
}

/// The file of services for `serve`.
pub fn services(deaths: &[Death]) -> String {
    let entry = |death: &Death| {
        format!("[[services]]\nname = \"{}\"\nneeded = false\n{}\n", death.name, death.service)
    };
    deaths.iter().map(entry).collect()
}

/// A death of a service with these lines, which is not started again.
pub fn of(
    name: &'static str,
    service: &str,
    cause: &'static str,
    says: &'static [&'static str],
) -> Death {
    Death { name, cause, says, service: format!("{service}\nrestarts = 0\n"), file: String::new() }
}

pub(super) fn command(arguments: &[&str]) -> String {
    format!("command = {}", serde_json::json!(arguments))
}

pub(super) fn shell(
    name: &'static str,
    script: &str,
    cause: &'static str,
    says: &'static [&'static str],
) -> Death {
    of(name, &command(&["sh", "-c", script]), cause, says)
}

pub(super) fn python(
    name: &'static str,
    script: &str,
    cause: &'static str,
    says: &'static [&'static str],
) -> Death {
    of(name, &command(&["python3", "-c", script]), cause, says)
}

pub(super) fn limited(
    name: &'static str,
    limit: &str,
    script: &str,
    cause: &'static str,
    says: &'static [&'static str],
) -> Death {
    of(name, &format!("{}\n{limit}", command(&["python3", "-c", script])), cause, says)
}

/// A server that answers for a while and then does `then`.
pub(super) fn watched(name: &'static str, then: &str, says: &'static [&'static str]) -> Death {
    let port = if name == "stopped" { 8096 } else { 8095 };
    let script = format!(
        "import os,signal,socket,threading,time\ns=socket.socket(); s.bind(('127.0.0.1',{port})); s.listen(1)\n\
         for _ in range(3):\n  c,_a=s.accept(); c.sendall(b'hello'); c.close()\n{then}\n"
    );
    let probe = format!("{{ greeting = {{ port = {port}, begins = \"hello\" }} }}");
    let service = format!(
        "{}\nready = {probe}\nwatchdog = {{ probe = {probe}, seconds = 3 }}",
        command(&["python3", "-c", &script])
    );
    of(name, &service, "stall", says)
}

pub(super) fn instruction(
    folder: &Path,
    name: &'static str,
    code: &str,
    says: &'static [&'static str],
) -> Result<Death> {
    carried(&assembled(folder, name, code)?, name, "missing_cpu_feature", says)
}

pub(super) fn assembled(folder: &Path, name: &str, code: &str) -> Result<Vec<u8>> {
    let source = root().join("bench/injected-faults/instruction.S");
    compiled(folder, name, &source, &format!("-DINSTRUCTION={code}"))
}

pub(super) fn compiled(folder: &Path, name: &str, source: &Path, define: &str) -> Result<Vec<u8>> {
    let program = folder.join(name);
    let options =
        ["-nostdlib", "-static", "-O1", "-fno-stack-protector", "-fno-optimize-sibling-calls"];
    let status = Command::new("gcc")
        .args(options)
        .args(["-fno-pie", "-no-pie", "-Wl,--build-id", "-Wno-infinite-recursion", define, "-o"])
        .arg(&program)
        .arg(source)
        .status()
        .context("starting gcc failed")?;
    if !status.success() {
        bail!("gcc could not build {name}");
    }
    std::fs::read(&program).with_context(|| format!("reading {} failed", program.display()))
}

/// The program itself travels in the command line, compressed, and replaces the shell that unpacks it.
pub(super) fn carried(
    program: &[u8],
    name: &'static str,
    cause: &'static str,
    says: &'static [&'static str],
) -> Result<Death> {
    use std::io::Write;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(program)?;
    let text = STANDARD.encode(packed.finish()?);
    let script = format!(
        "echo {text} | base64 -d | gunzip > /tmp/{name} && chmod +x /tmp/{name} && exec /tmp/{name}"
    );
    Ok(shell(name, &script, cause, says))
}

/// Programs too large for a command line travel as an injected file; `script` runs them in a folder of
/// the death's name below /tmp.
pub fn carried_files(
    name: &'static str,
    programs: &[&Path],
    script: &str,
    cause: &'static str,
    says: &'static [&'static str],
) -> Result<Death> {
    let mut tar = Command::new("tar");
    tar.arg("-cz");
    for program in programs {
        let (folder, file) = (program.parent(), program.file_name());
        let (folder, file) =
            folder.zip(file).context("the program of an injected fault has no folder")?;
        tar.arg("-C").arg(folder).arg(file);
    }
    let packed = tar.output().context("starting tar failed")?.stdout;
    let text = STANDARD.encode(packed);
    let unpack = format!("mkdir /tmp/{name} && base64 -d /tmp/{name}.b64 | tar -xz -C /tmp/{name}");
    let mut death = shell(name, &format!("{unpack} && {script}"), cause, says);
    death.file = format!(
        "[[files]]\npath = \"/tmp/{name}.b64\"\nowner = \"person\"\nmode = 0o644\ncontent = \"{text}\"\n"
    );
    Ok(death)
}
