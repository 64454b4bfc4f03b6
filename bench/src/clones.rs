//! `cargo xtask bench clones`: whether clones of one template ever draw the same value.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::provider::OpenIdProvider;
use crate::server::Server;
use crate::template::{Template, until_loaded};
use xtask::{build, interrupt};

/// The host that the guest's browser knows the page by.
const HOST: &str = "random.test";

/// A value that the tool printed has at least so many characters: what is shorter is not one.
const LONG: usize = 16;

/// How many clones.
#[derive(clap::Args)]
pub struct Options {
    /// Clones of one template, each compared with all others: 46 are 1,035 pairs.
    #[arg(long, default_value_t = 46)]
    clones: usize,
    /// The CPU profile of the VMs: x86-64-v2 has no RDRAND.
    #[arg(long, value_name = "PROFILE")]
    cpu: Option<String>,
}

/// The page: what a script can draw, sent to where it came from, and a connection by TLS.
const PAGE: &str = "<!doctype html><title>Random</title><script>
const hex = (bytes) => [...bytes].map((b) => b.toString(16).padStart(2, '0')).join('');
fetch('/drawn', { method: 'POST', body: JSON.stringify({
  get_random_values: hex(crypto.getRandomValues(new Uint8Array(32))),
  math_random: String(Math.random()),
}) }).finally(() => fetch('https://random.test/').catch(() => 0));
</script>";

/// What the tool of a clone prints: each value on a line, after its name. Of the cookie its hash: itself is
/// kept out of logs.
const TOOL: &str = "echo kernel_uuid=$(cat /proc/sys/kernel/random/uuid); \
    echo machine_id=$(cat /etc/machine-id); \
    echo urandom=$(od -An -tx1 -N16 /dev/urandom | tr -d ' '); \
    echo of_x=$(sha256sum < $XAUTHORITY | cut -c1-24); \
    xdg-open http://random.test/; exec sleep 1000";

/// Measures; prints one JSON object as its last line.
pub fn bench(anteroom: &Path, options: &Options) -> Result<()> {
    build::golden_image(anteroom, true)?;
    let folder = tempfile::Builder::new().prefix("xtask-bench-").tempdir()?;
    let provider = OpenIdProvider::start(folder.path())?;
    let authority = provider.authority_pem.clone();
    let mut vm = vec!["--allow-unverified-images"];
    if let Some(cpu) = &options.cpu {
        vm.extend(["--cpu", cpu]);
    }
    let template = Template::make(anteroom, folder.path(), &vm, &authority)?;
    compare(anteroom, folder.path(), &template, &vm, &authority, options.clones)
}

/// Starts so many clones of a template and compares what they draw, each with all others; `vm` is how they
/// are booted, `authority` whom their template trusts.
pub fn compare(
    anteroom: &Path,
    folder: &Path,
    template: &Template,
    vm: &[&str],
    authority: &str,
    clones: usize,
) -> Result<()> {
    let (page, tls) = (Listener::new(answer_page)?, Listener::new(hello)?);
    let provider = provider_file(page.port, tls.port, authority);
    let mut server = template.serve(anteroom, &folder.join("clones"), &provider, vm)?;
    until_loaded(&server)?;
    let mut drawn: BTreeMap<String, HashMap<String, usize>> = BTreeMap::new();
    for clone in 1..=clones {
        interrupt::check()?;
        let session = server.start_session_without_recipient()?;
        let values = values_of(&server, &session.id, &page, &tls)
            .with_context(|| format!("clone {clone} did not say what it drew"));
        server.cancel(&session.id)?;
        server.wait_until_torn_down(&session.id, Duration::from_secs(90))?;
        for (name, value) in values? {
            *drawn.entry(name).or_default().entry(value).or_default() += 1;
        }
    }
    server.stop()?;
    let same =
        |values: &HashMap<String, usize>| values.values().filter(|count| **count > 1).count();
    let equal: BTreeMap<&String, usize> =
        drawn.iter().map(|(name, values)| (name, same(values))).collect();
    let total: usize = equal.values().sum();
    let pairs = clones * clones.saturating_sub(1) / 2;
    println!("{}", json!({ "clones": clones, "pairs": pairs, "equal": total, "of_each": equal }));
    ensure!(total == 0, "clones of one template drew the same values: {equal:?}");
    Ok(())
}

/// All that one clone drew.
fn values_of(
    server: &Server,
    session: &str,
    page: &Listener,
    tls: &Listener,
) -> Result<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    let said: Value = serde_json::from_str(&page.heard()?)?;
    for (name, value) in said.as_object().context("the page sent no object")? {
        values.insert(name.clone(), value.as_str().unwrap_or_default().to_owned());
    }
    let hello = tls.heard()?;
    // Record header 5, handshake header 4, version 2; then 32 bytes, and the session's id with its length.
    values.insert("tls_client_random".into(), hello.get(22..86).context("a short hello")?.into());
    values.insert("tls_session_id".into(), hello.get(88..152).context("a short hello")?.into());
    let log = server.logs(session)?;
    for name in ["kernel_uuid", "machine_id", "urandom", "of_x"] {
        let after = log.split(&format!("{name}=")).nth(1);
        let value = after.and_then(|rest| rest.split_whitespace().next());
        let value = value.with_context(|| format!("the tool printed no {name}:\n{log}"))?;
        ensure!(value.len() >= LONG, "{name} is only {value:?}");
        values.insert(name.into(), value.into());
    }
    Ok(values)
}

fn provider_file(page: u16, tls: u16, authority: &str) -> String {
    format!(
        "id = \"demo\"\nname = \"Random\"\nkind = \"demo\"\nimage = \"demo\"\n\n[[login]]\n\
         method = \"browser\"\ncommand = [\"sh\", \"-c\", '''{TOOL}''']\n\
         instructions = \"None.\"\nurl_timeout_seconds = 300\n\n[credential]\n\
         [[credential.files]]\npath = \"~/.never\"\nrequired = [\"/never\"]\n\n\
         [egress]\nallow = [\"{HOST}\", \"{HOST}:80\"]\nextra_ca_pem = '''\n{authority}'''\n\n\
         [[egress.map]]\nhost = \"{HOST}\"\nport = 80\nto = \"127.0.0.1:{page}\"\n\n\
         [[egress.map]]\nhost = \"{HOST}\"\nport = 443\nto = \"127.0.0.1:{tls}\"\n"
    )
}

/// A server on loopback that hands on what it heard.
struct Listener {
    port: u16,
    heard: mpsc::Receiver<String>,
}

impl Listener {
    fn new(serve: fn(TcpStream) -> Result<Option<String>>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let (sender, heard) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    // A browser opens connections that it does not use.
                    if let Ok(Some(heard)) = serve(stream) {
                        let _ = sender.send(heard);
                    }
                });
            }
        });
        Ok(Self { port, heard })
    }

    fn heard(&self) -> Result<String> {
        self.heard.recv_timeout(Duration::from_secs(120)).context("nothing came within 120 s")
    }
}

/// The page, or what it sends.
fn answer_page(mut stream: TcpStream) -> Result<Option<String>> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut request, mut length) = (String::new(), 0);
    reader.read_line(&mut request)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    if length > 4096 {
        bail!("the page sends too much");
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let answer = if request.starts_with("GET / ") { PAGE } else { "" };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
        answer.len()
    )?;
    Ok(request.starts_with("POST /drawn ").then(|| String::from_utf8_lossy(&body).into_owned()))
}

/// The beginning of a TLS client's first message, in hexadecimal.
fn hello(mut stream: TcpStream) -> Result<Option<String>> {
    let mut bytes = [0; 100];
    stream.read_exact(&mut bytes)?;
    Ok(Some(hex::encode(bytes)))
}
