//! Commands on sessions.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anteroom_guest_protocol::{ForeignText, is_harmful};
use anteroom_private::quoted;
use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use super::client::{Client, Connection, read_secret};
use super::credentials::{check_output, fetch};
use super::memory;
use super::output;
use super::table::table;

/// Sign-ins.
#[derive(clap::Subcommand)]
pub enum Auth {
    /// Start a sign-in and print the end user's link.
    Start(Start),
    /// Enter the code that the last page of a sign-in shows.
    Code(Code),
}

/// What `auth code` takes.
#[derive(clap::Args)]
pub struct Code {
    /// The session's id.
    id: String,
    /// The code [default: read from standard input, since every user of this machine can see arguments in
    /// the list of processes].
    #[arg(env = "ANTEROOM_CODE", hide_env_values = true)]
    code: Option<String>,
    /// A file with the code; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "code")]
    code_file: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

/// What `auth start` takes.
#[derive(clap::Args)]
pub struct Start {
    /// The tool: the id of a provider file.
    provider: String,
    /// Wait for the end and show what happens; Ctrl-C ends the session. With --json, the first line is
    /// the started session with the end user's link, the last line the ended one.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    sign_in: SignInOptions,
    /// The age recipient to seal the credential to (`age1…`).
    #[arg(long)]
    recipient: Option<String>,
    /// With --wait: where to write the sealed credential, with FILE.envelope.json next to it, which
    /// `credentials open` needs.
    #[arg(long, short, value_name = "FILE", requires = "wait")]
    output: Option<PathBuf>,
    /// With -o: replace existing files.
    #[arg(long, requires = "output")]
    force: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Options of a sign-in.
#[derive(clap::Args)]
pub struct SignInOptions {
    /// How the end user signs in; `auto` is the first method in the provider file.
    #[arg(long, value_parser = ["auto", "browser", "paste_code", "device_code"])]
    method: Option<String>,
    /// The end user's language, such as `de-AT`.
    #[arg(long)]
    locale: Option<String>,
    /// The end user's time zone, such as `Europe/Vienna`.
    #[arg(long)]
    time_zone: Option<String>,
    /// Whose credential it will be: an id of your choice.
    #[arg(long)]
    user: Option<String>,
    /// Time to live of the session, in seconds [default: 900]: 60 to 3600, unless `serve` has other limits.
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u64>,
}

impl SignInOptions {
    /// Adds them to the body of a start call.
    pub fn add_to(&self, body: &mut Value) {
        for (name, value) in [
            ("userId", &self.user),
            ("method", &self.method),
            ("locale", &self.locale),
            ("timeZone", &self.time_zone),
        ] {
            if let Some(value) = value {
                body[name] = json!(value);
            }
        }
        if let Some(ttl) = self.ttl {
            body["ttlSeconds"] = json!(ttl);
        }
    }
}

/// What `sessions` takes.
#[derive(clap::Args)]
pub struct List {
    /// Measure the memory of the sessions that run: what each has alone, and what it shares.
    #[arg(long)]
    memory: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What `logs` takes.
#[derive(clap::Args)]
pub struct Logs {
    /// The session's id.
    id: String,
    #[command(flatten)]
    connection: Connection,
}

/// What `screenshot` takes.
#[derive(clap::Args)]
pub struct Screenshot {
    /// The session's id.
    id: String,
    /// Where to write the PNG.
    #[arg(long, short, value_name = "FILE", default_value = "screenshot.png")]
    output: PathBuf,
    /// Replace an existing file.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What `cancel` takes.
#[derive(clap::Args)]
pub struct Cancel {
    /// The session's id.
    id: String,
    #[command(flatten)]
    connection: Connection,
}

/// `anteroom auth …`.
pub fn auth(command: &Auth) -> Result<()> {
    let options = match command {
        Auth::Start(options) => options,
        Auth::Code(options) => return submit_code(options),
    };
    if let Some(path) = &options.output {
        check_output(path, options.force)?;
    }
    let client = options.connection.open()?;
    let mut body = json!({ "provider": options.provider });
    if let Some(recipient) = &options.recipient {
        body["recipient"] = json!(recipient);
    }
    options.sign_in.add_to(&mut body);
    let started = client.post("/api/auth/start", &body)?;
    let id = text(&started, "sessionId");
    let shown = show_once(options.connection.json, &started, |started| {
        let link = text(started, "viewerUrl");
        match options.wait {
            true => format!("Open {link}\n"),
            false => format!("session {id}\nopen    {link}\n"),
        }
    });
    cancel_unless(shown, &client, id)?;
    if options.wait { wait(options, &client, id) } else { Ok(()) }
}

/// Follows a session that this command started, and writes its credential.
fn wait(options: &Start, client: &Client, id: &str) -> Result<()> {
    let interrupted = super::interrupts()?;
    let followed = follow(client, id, options.connection.json, &interrupted, Follow::Cancel);
    let ended = followed.with_context(|| {
        let cancel = client.command(&format!("cancel {id}"));
        format!("session {id} may still be running (`{cancel}` ends it)")
    })?;
    let completed = ended.session["reason"]["code"] == "completed";
    let written = options.output.as_ref().filter(|_| completed);
    if let Some(path) = written {
        let saved = fetch(client, id).and_then(|fetched| fetched.save(path, options.force));
        saved.with_context(|| {
            let get = client.command(&format!("credentials get {id} -o FILE"));
            format!(
                "the sign-in succeeded, but its credential was not written (`{get}` fetches it)"
            )
        })?;
    }
    show(options.connection.json, &ended.session, |_| {
        let path = written.map(|path| quoted(path));
        path.map(|path| {
            format!("Wrote {path} and its envelope. To use it: anteroom credentials open {path}\n")
        })
        .unwrap_or_default()
    })?;
    if completed { Ok(()) } else { Err(ended.failure()) }
}

/// Ends a session whose link reached nobody: it would keep its slot until it times out.
pub fn cancel_unless<T>(reported: Result<T>, client: &Client, id: &str) -> Result<T> {
    reported.map_err(|error| {
        let ended = client.post(&format!("/api/auth/session/{id}/cancel"), &Value::Null);
        error.context(match ended {
            Ok(_) => format!("session {id} was cancelled, because its link could not be reported"),
            Err(_) => format!(
                "the link of session {id} could not be reported, and the session could not be cancelled; try `{}`",
                client.command(&format!("cancel {id}"))
            ),
        })
    })
}

/// `anteroom auth code`.
fn submit_code(options: &Code) -> Result<()> {
    let code = match (&options.code_file, &options.code) {
        (None, Some(code)) => code.clone(),
        (file, _) => read_secret(file.as_deref().unwrap_or(Path::new("-")))
            .context("cannot read the code")?,
    };
    let client = options.connection.open()?;
    let path = format!("/api/auth/session/{}/code", options.id);
    let taken = client.post(&path, &json!({ "code": code }))?;
    show(options.connection.json, &taken, |taken| {
        let what = match taken["typed"] == true {
            true => "The code was typed into the tool",
            false => "The code will be typed when the tool asks for it",
        };
        let instead = match taken["replaced"] == true {
            true => ", replacing an earlier one that was not typed yet",
            false => "",
        };
        let why = client.command(&format!("why {}", options.id));
        format!("{what}{instead}. `{why}` shows what happens.\n")
    })
}

/// What the end user has to do, in lines.
pub fn turn(awaiting: &Value, id: &str, client: &Client) -> String {
    let mut lines = format!("\n{}\n", text(awaiting, "instructions"));
    for (label, field) in [("page", "url"), ("code", "code")] {
        if let Some(value) = awaiting[field].as_str() {
            lines.push_str(&format!("{label:<8}{value}\n"));
        }
    }
    for line in awaiting["screen"].as_array().into_iter().flatten() {
        lines.push_str(&format!("        {}\n", line.as_str().unwrap_or_default()));
    }
    if awaiting["takesCode"] == true {
        lines.push_str(&format!("then    {}\n", client.command(&format!("auth code {id}"))));
    }
    lines
}

/// What Ctrl-C does to a session that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// It is cancelled, once; its end is still waited for.
    Cancel,
    /// It goes on without us.
    Leave,
}

/// A session that was followed to its end.
pub struct Ended {
    /// As it is then.
    pub session: Value,
    /// Whether this command cancelled it.
    cancelled: bool,
}

impl Ended {
    /// Why there is no credential.
    pub fn failure(&self) -> anyhow::Error {
        let reason = &self.session["reason"];
        if self.cancelled && reason["code"] == "cancelled" {
            let id = text(&self.session, "sessionId");
            return anyhow!("interrupted; this command has cancelled session {id}");
        }
        anyhow!("the sign-in failed: {}", text(reason, "message"))
    }
}

/// Prints each new timeline entry until the session's sandbox is gone.
pub fn follow(
    client: &Client,
    id: &str,
    quiet: bool,
    interrupted: &AtomicBool,
    at_interrupt: Follow,
) -> Result<Ended> {
    let mut shown = 0;
    let mut turn_shown = Value::Null;
    let mut cancelled = false;
    loop {
        if interrupted.swap(false, Ordering::SeqCst) {
            if at_interrupt == Follow::Leave {
                bail!("interrupted; session {id} continues");
            }
            client.post(&format!("/api/auth/session/{id}/cancel"), &Value::Null)?;
            cancelled = true;
        }
        let session = client.get_json(&format!("/api/auth/session/{id}"))?;
        let created = session["createdAt"].as_u64().unwrap_or_default();
        let timeline = session["timeline"].as_array().cloned().unwrap_or_default();
        for entry in timeline.iter().skip(shown).filter(|_| !quiet) {
            let at = entry["at"].as_u64().unwrap_or(created).saturating_sub(created);
            let (seconds, tenths) = (at / 1000, at % 1000 / 100);
            say(&format!("{seconds:>6}.{tenths} s  {}\n", text(entry, "message")))?;
        }
        shown = timeline.len();
        let awaiting = &session["awaiting"];
        // On the desktop the end user's own page says all of it.
        let reports = awaiting["method"] != "browser" || awaiting["url"].is_null();
        if !quiet && !awaiting.is_null() && reports && *awaiting != turn_shown {
            say(&format!("{}\n", turn(awaiting, id, client)))?;
        }
        turn_shown = awaiting.clone();
        if session["teardown"] == "torn_down" {
            return Ok(Ended { session, cancelled });
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// `anteroom sessions`.
pub fn list(options: &List) -> Result<()> {
    if options.memory {
        let memory = options.connection.open()?.get_json("/api/memory")?;
        return show(options.connection.json, &memory, memory::lines);
    }
    let sessions = options.connection.open()?.get_json("/api/sessions")?;
    show(options.connection.json, &sessions, |sessions| {
        let fields = ["sessionId", "provider", "state", "reason"];
        let row = |session: &Value| fields.map(|field| text(session, field).to_owned());
        let rows = sessions.as_array().into_iter().flatten().map(row);
        table(["SESSION", "PROVIDER", "STATE", "REASON"], rows)
    })
}

/// `anteroom logs`.
pub fn logs(options: &Logs) -> Result<()> {
    let logs = options.connection.open()?.get(&format!("/api/auth/session/{}/logs", options.id))?;
    let logs = String::from_utf8_lossy(&logs).into_owned();
    show(options.connection.json, &json!({ "logs": logs }), |_| logs.clone())
}

/// `anteroom screenshot`.
pub fn screenshot(options: &Screenshot) -> Result<()> {
    output::check(&options.output, options.force)?;
    let png =
        options.connection.open()?.get(&format!("/api/auth/session/{}/screenshot", options.id))?;
    output::write(&options.output, &png, options.force)?;
    let written = json!({ "path": options.output, "bytes": png.len() });
    show(options.connection.json, &written, |_| format!("{}\n", options.output.display()))
}

/// `anteroom cancel`.
pub fn cancel(options: &Cancel) -> Result<()> {
    let client = options.connection.open()?;
    let before = client.get_json(&format!("/api/auth/session/{}", options.id))?;
    client.post(&format!("/api/auth/session/{}/cancel", options.id), &Value::Null)?;
    let had_ended = before["state"] == "ended";
    show(options.connection.json, &json!({ "ended": options.id, "hadEnded": had_ended }), |_| {
        if had_ended {
            format!("The session had already ended: {}\n", text(&before["reason"], "message"))
        } else {
            "The session has ended, and its sandbox is being torn down (see `anteroom sessions`).\n"
                .to_owned()
        }
    })
}

/// JSON as asked for, or the form for people. Much of what is shown is of foreign origin, a guest's or
/// a file's: nothing in it reaches the terminal but as text.
pub fn show(as_json: bool, value: &Value, for_people: impl Fn(&Value) -> String) -> Result<()> {
    say(&form(as_json, value, for_people))
}

/// The same of what is shown this once, a link or a key: that nobody reads it is a failure too.
pub fn show_once(
    as_json: bool,
    value: &Value,
    for_people: impl Fn(&Value) -> String,
) -> Result<()> {
    print(&form(as_json, value, for_people)).context(NOT_PRINTED)
}

fn form(as_json: bool, value: &Value, for_people: impl Fn(&Value) -> String) -> String {
    if as_json { format!("{}\n", harmless_json(value)) } else { for_people(value) }
}

/// Prints lines on the standard output, without what would do something there.
pub fn say(text: &str) -> Result<()> {
    unless_closed(print(text))
}

/// What came of printing: whoever closed the other end of a pipe has seen enough.
pub fn unless_closed(printed: std::io::Result<()>) -> Result<()> {
    match printed {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context(NOT_PRINTED),
    }
}

const NOT_PRINTED: &str = "cannot write to standard output";

fn print(text: &str) -> std::io::Result<()> {
    let text = ForeignText::lines(text).to_string();
    let mut output = std::io::stdout();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// JSON in which strings hold by its own escapes what would do something on a terminal.
fn harmless_json(value: &Value) -> String {
    let mut json = String::new();
    for c in value.to_string().chars() {
        if is_harmful(c) {
            let mut units = [0; 2];
            let units = c.encode_utf16(&mut units).iter();
            json.extend(units.map(|unit| format!("\\u{unit:04x}")));
        } else {
            json.push(c);
        }
    }
    json
}

/// A field's text, or none.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_on_a_terminal_is_text_and_the_same_json() {
        let value = json!({ "a": "x\u{1b}[2J\u{9b}31m\u{202e}\u{e0041}\u{7f}ö" });
        let shown = harmless_json(&value);
        assert!(!shown.chars().any(is_harmful), "{shown:?}");
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value);
    }
}
