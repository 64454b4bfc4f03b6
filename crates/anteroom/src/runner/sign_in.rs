//! The sign-in from the runner's side: the CLI's terminal, what the provider file makes of it, and
//! who else looks at it.

use std::time::Duration;

use anteroom_guest_link::{LinkStream, Opener};
use anteroom_guest_protocol::{Desktop, StreamKind, printable};
use anteroom_provider::{Login, Provider};
use anteroom_session::{EndReason, Method};
use anteroom_sign_in::{Action, CodeRefused, Over, RuleEngine, Screen, Terminal};
use regex::Regex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::guest::{link_failed, violation};
use super::no_keyring;
use super::pace::pace;
use super::pages::Pages;

/// Between two things that are typed: a tool that gets a code and Enter at once takes both for one
/// paste.
const BETWEEN_KEYS: Duration = Duration::from_millis(250);

/// What waits to be typed while a CLI takes no keys.
const MAX_KEYS: usize = 1024;

/// How often a viewer's terminal is drawn at most.
const DRAW_EVERY: Duration = Duration::from_millis(50);

/// The longest piece that a viewer types, in bytes.
const MAX_TYPED: usize = 4096;

/// From so many characters on, what a viewer types at once is pasted, and may be a secret.
const PASTED: usize = 6;

/// What a CLI may write for long, a second, and at once: a screen of text is 5 KB, a redrawing tool
/// writes some of them a second.
const BYTES_PER_SECOND: usize = 128 * 1024;
const BYTE_BURST: usize = 1024 * 1024;

/// How long what a CLI has written may take to come: more than its pace takes for all that is kept.
const CATCH_UP: Duration = Duration::from_secs(10);

/// How long a CLI's last words may come after its end.
const LATE: Duration = Duration::from_millis(300);

/// Pages that do not go on, whatever tool is signed in to: those of identity providers that refuse a
/// browser, and Chromium's own for a certificate. A provider file's own pages come first.
// Chromium's titles are those of its English texts (IDS_SSL_V2_TITLE, IDS_CLOCK_ERROR_TITLE in its
// components/security_interstitials_strings.grdp); it has others in other languages. The second comes
// only when Chromium itself knows better what time it is, and has not been seen in a room yet.
const STUCK: [(&str, &str); 3] = [
    (
        "Couldn.t sign you in|[Bb]rowser or app may not be secure|[Bb]rowser is not supported",
        "This page does not take a sign-in in the desktop's browser. Go back and sign in another way there, \
         or start again with a method that uses a browser of your own (paste_code or device_code), if the \
         tool offers one.",
    ),
    (
        "^Privacy error( - |$)",
        "The page's certificate is not one for its name, by nobody that the desktop's browser knows, or \
         not valid at this time: somebody may stand between it and the room, or one of the two clocks is \
         wrong. Close this window and tell whoever sent you here.",
    ),
    (
        "^Clock error( - |$)",
        "The page's certificate is not valid at the time that the room's clock shows: one of the two \
         clocks is wrong. Close this window and tell whoever sent you here.",
    ),
];

/// Whether this way of signing in needs the desktop.
pub fn desktop(method: Method) -> Desktop {
    match method {
        Method::Browser => Desktop::Used,
        Method::PasteCode | Method::DeviceCode => Desktop::Spare,
    }
}

/// A sign-in under way.
pub struct SignIn {
    terminal: Terminal,
    rules: RuleEngine,
    pages: Vec<(Regex, String)>,
    /// What the desktop's browser shows.
    shown_pages: Pages,
    url_timeout: Duration,
    /// When the CLI must have given its address.
    url_by: Option<Instant>,
    written: mpsc::Receiver<Vec<u8>>,
    keys: mpsc::Sender<Keys>,
    typed: mpsc::Receiver<String>,
    screen: watch::Sender<Screen>,
    view: TerminalView,
    /// Bytes of the terminal that were taken.
    taken: u64,
    /// Whether the CLI, which failed, had written its credential.
    pub left_credential: bool,
    /// Whether its room has a keyring.
    has_keyring: bool,
}

/// What goes to the terminal.
enum Keys {
    /// For a person, with pauses as theirs.
    Typed(String),
    /// By the person, or by the terminal itself.
    AtOnce(String),
}

/// What happens next.
pub enum Step {
    /// To be done.
    Actions(Vec<Action>),
    /// The person types.
    Typed(String),
}

/// A viewer's way to the terminal. Cheap to clone.
#[derive(Clone)]
pub struct TerminalView {
    screen: watch::Receiver<Screen>,
    typed: mpsc::Sender<String>,
}

impl SignIn {
    /// Opens the CLI's terminal, which is there as soon as it starts.
    pub async fn open(
        opener: &Opener,
        provider: &Provider,
        login: &Login,
    ) -> Result<Self, EndReason> {
        // A parsed provider's patterns compile.
        let unusable = |error: regex::Error| EndReason::VmNotStarted {
            cause: format!("the provider's patterns cannot be used: {error}"),
        };
        let rules = RuleEngine::new(provider, login).map_err(unusable)?;
        let known = provider.pages.iter().map(|page| (page.title.as_str(), page.says.as_str()));
        let pages = known
            .chain(STUCK)
            .map(|(title, says)| Ok((Regex::new(title).map_err(unusable)?, says.to_owned())));
        let stream = opener.open(StreamKind::Terminal).await.map_err(link_failed)?;
        let (reader, writer) = tokio::io::split(stream);
        let (sender, written) = mpsc::channel(16);
        tokio::task::spawn_local(read(reader, sender));
        let (keys, to_type) = mpsc::channel(MAX_KEYS);
        tokio::task::spawn_local(write(writer, to_type));
        let terminal = Terminal::default();
        let (screen, seen) = watch::channel(terminal.screen());
        let (typed_sender, typed) = mpsc::channel(16);
        Ok(Self {
            terminal,
            rules,
            has_keyring: !provider.credential.keyring.is_empty(),
            pages: pages.collect::<Result<_, EndReason>>()?,
            shown_pages: Pages::default(),
            url_timeout: Duration::from_secs(login.url_timeout_seconds),
            url_by: None,
            written,
            keys,
            typed,
            screen,
            view: TerminalView { screen: seen, typed: typed_sender },
            taken: 0,
            left_credential: false,
        })
    }

    /// For a viewer.
    pub fn view(&self) -> TerminalView {
        self.view.clone()
    }

    /// The sign-in page, once the CLI has given its address.
    pub fn url(&self) -> Option<&str> {
        self.rules.url()
    }

    /// The CLI has started: its time to give an address runs.
    pub fn started(&mut self) {
        self.url_by = Some(Instant::now() + self.url_timeout);
    }

    /// Waits for what comes next; may be dropped and called again.
    ///
    /// # Errors
    /// When the CLI gave no address, and its terminal shows nothing to go by.
    pub async fn next(&mut self) -> Result<Step, EndReason> {
        let late = async {
            // Not any more when it is the person's turn.
            match self.url_by.filter(|_| self.rules.awaited().is_none()) {
                Some(by) => tokio::time::sleep_until(by).await,
                None => std::future::pending().await,
            }
        };
        let still = async {
            match self.rules.due() {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // What was written comes before what waits for nothing to be written.
            biased;
            Some(bytes) = self.written.recv() => Ok(Step::Actions(self.shown(&bytes))),
            Some(text) = self.typed.recv() => Ok(Step::Typed(text)),
            () = still => Ok(Step::Actions(self.rules.rest(&self.terminal, now()))),
            () = self.shown_pages.check_for_ever() => {
                Ok(Step::Actions(vec![Action::Say(self.shown_pages.checked_for_ever())]))
            }
            () = late => match self.rules.stuck(&self.terminal) {
                actions if actions.is_empty() => Err(EndReason::NoSignInUrl {
                    waited_ms: u64::try_from(self.url_timeout.as_millis()).unwrap_or(u64::MAX),
                    last_lines: Vec::new(),
                    ignored: self.rules.ignored().map(printable),
                }),
                actions => Ok(Step::Actions(actions)),
            },
        }
    }

    /// The CLI wrote this.
    fn shown(&mut self, bytes: &[u8]) -> Vec<Action> {
        self.taken += bytes.len() as u64;
        self.terminal.feed(bytes);
        let answers = self.terminal.take_answers();
        if !answers.is_empty() {
            let _ = self.keys.try_send(Keys::AtOnce(answers));
        }
        self.screen.send_replace(self.terminal.screen());
        self.rules.see(&self.terminal, now())
    }

    /// What all shows that the CLI wrote until it had its credential: so many bytes. They come on a
    /// stream of their own, and are waited for.
    pub async fn caught_up(&mut self, bytes: u64) -> Vec<Action> {
        let by = Instant::now() + CATCH_UP;
        let mut actions = Vec::new();
        while self.taken < bytes
            && let Ok(Some(bytes)) = tokio::time::timeout_at(by, self.written.recv()).await
        {
            actions.extend(self.shown(&bytes));
        }
        actions
    }

    /// The reason with what is known here beside it.
    pub fn explained(&self, mut reason: EndReason) -> EndReason {
        if let EndReason::CliExited { left_credential, .. } = &mut reason {
            *left_credential = self.left_credential;
        }
        reason
    }

    /// What its terminal shows at the end, which may come a moment later than the end itself: why the
    /// sign-in is over, if the provider file knows.
    pub async fn last_words(&mut self) -> Option<Over> {
        let mut over = None;
        while let Ok(Some(bytes)) = tokio::time::timeout(LATE, self.written.recv()).await {
            over = over.or(over_by(self.shown(&bytes)));
        }
        over
    }

    /// The CLI starts a browser with this address.
    ///
    /// # Errors
    /// When it is none.
    pub fn opened(&mut self, url: String) -> Result<Vec<Action>, EndReason> {
        let url = web_address(&url)
            .ok_or_else(|| violation("the guest sent a sign-in address that is none"))?;
        Ok(self.rules.opened(url, &self.terminal))
    }

    /// The person's code.
    ///
    /// # Errors
    /// When it is not typed.
    pub fn enter_code(&mut self, code: &str) -> Result<Vec<Action>, CodeRefused> {
        self.rules.enter_code(code, &self.terminal, now())
    }

    /// What there is to say about the page with this title.
    pub fn titled(&mut self, title: &str) -> Option<Action> {
        self.shown_pages.titled(title);
        let known = self.pages.iter().find(|(pattern, _)| pattern.is_match(title));
        known.map(|(_, says)| Action::Say(says.clone()))
    }

    /// A page's script was kept from a port of the room.
    pub fn call_refused(&mut self, page: String, address: String) -> Option<Action> {
        self.shown_pages.call_refused(page, address).map(Action::Say)
    }

    /// What there is to say of a tool that ended for want of a keyring.
    pub fn wanted_keyring(&self) -> Option<Action> {
        let says = no_keyring::advice(&self.terminal.text(), self.has_keyring)?;
        Some(Action::Say(says.to_owned()))
    }

    /// Passes on what a viewer types, as it comes.
    pub fn pass_keys(&self, keys: String) {
        let _ = self.keys.try_send(Keys::AtOnce(keys));
    }

    /// Types into the terminal. A CLI that takes no keys loses those beyond many.
    pub fn type_keys(&self, keys: String) {
        let _ = self.keys.try_send(Keys::Typed(keys));
    }

    /// Whether what a viewer types may be a secret.
    pub fn may_be_secret(typed: &str) -> bool {
        typed.chars().filter(|c| !c.is_control()).count() >= PASTED
    }
}

/// The director's clock, which stands still in tests as the runtime's does.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// Why the sign-in is over, if it is.
fn over_by(actions: Vec<Action>) -> Option<Over> {
    actions.into_iter().find_map(|action| match action {
        Action::End(over) => Some(over),
        _ => None,
    })
}

/// An address that a browser may be sent to, in the characters that one has (RFC 3986).
fn web_address(url: &str) -> Option<String> {
    let parsed = url::Url::parse(url).ok().filter(|_| url.len() <= 8 * 1024)?;
    matches!(parsed.scheme(), "http" | "https").then(|| parsed.into())
}

async fn read(mut terminal: ReadHalf<LinkStream>, written: mpsc::Sender<Vec<u8>>) {
    let mut buffer = [0; 4096];
    let pace = pace(BYTES_PER_SECOND, BYTE_BURST);
    // The link's own end tells why there is no more.
    while let Ok(count @ 1..) = terminal.read(&mut buffer).await {
        pace.acquire(count).await;
        if written.send(buffer[..count].to_vec()).await.is_err() {
            return;
        }
    }
}

async fn write(mut terminal: WriteHalf<LinkStream>, mut keys: mpsc::Receiver<Keys>) {
    while let Some(next) = keys.recv().await {
        let (Keys::Typed(text) | Keys::AtOnce(text)) = &next;
        let written = async {
            terminal.write_all(text.as_bytes()).await?;
            terminal.flush().await
        };
        if written.await.is_err() {
            return;
        }
        if matches!(next, Keys::Typed(_)) {
            tokio::time::sleep(BETWEEN_KEYS).await;
        }
    }
}

/// Takes the text, but for the beginning of a character whose rest has not come.
fn whole_characters(bytes: &mut Vec<u8>) -> String {
    let whole = match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    };
    let rest = bytes.split_off(whole);
    String::from_utf8_lossy(&std::mem::replace(bytes, rest)).into_owned()
}

impl TerminalView {
    /// Draws the terminal on a viewer's, and takes what they type, until one side ends.
    pub async fn serve(self, stream: LinkStream) -> std::io::Result<()> {
        let Self { mut screen, typed } = self;
        let (mut from_viewer, mut to_viewer) = tokio::io::split(stream);
        let draw = async {
            let mut shown = screen.borrow_and_update().clone();
            to_viewer.write_all(shown.drawn().as_bytes()).await?;
            loop {
                to_viewer.flush().await?;
                if screen.changed().await.is_err() {
                    return Ok(());
                }
                tokio::time::sleep(DRAW_EVERY).await;
                let now = screen.borrow_and_update().clone();
                to_viewer.write_all(now.drawn_after(&shown).as_bytes()).await?;
                shown = now;
            }
        };
        let take = async {
            let mut buffer = [0; MAX_TYPED];
            let mut bytes = Vec::new();
            loop {
                let count = from_viewer.read(&mut buffer).await?;
                bytes.extend_from_slice(&buffer[..count]);
                let text = whole_characters(&mut bytes);
                if count == 0 || typed.send(text).await.is_err() {
                    return Ok(());
                }
            }
        };
        tokio::select! { drawn = draw => drawn, taken = take => taken }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_an_address_s_characters() {
        let same = "https://a.test/x?state=b&code_challenge=c-_~";
        assert_eq!(web_address(same).as_deref(), Some(same));
        let clean = web_address("https://a.test/\u{202e}x y").unwrap();
        assert!(clean.is_ascii() && !clean.contains(' '), "{clean}");
        for none in ["", "javascript:x", "file:///x", &format!("https://a/{}", "x".repeat(9000))] {
            assert_eq!(web_address(none), None);
        }
    }

    #[test]
    fn pages_that_do_not_go_on_are_known_by_their_titles() {
        let of = |title: &str| {
            let known =
                STUCK.iter().find(|(pattern, _)| Regex::new(pattern).unwrap().is_match(title));
            known.map_or("", |(_, says)| says)
        };
        assert!(of("Couldn't sign you in - Chromium").contains("desktop's browser"));
        assert!(of("Privacy error - Chromium").contains("certificate"));
        assert!(of("Clock error").contains("clock"));
        assert_eq!(of("Your privacy error settings - Chromium"), "");
    }

    #[test]
    fn a_character_in_two_pieces_is_one() {
        let mut bytes = "aé".as_bytes()[..2].to_vec();
        assert_eq!(whole_characters(&mut bytes), "a");
        bytes.push(0xa9);
        assert_eq!(whole_characters(&mut bytes), "é");
        bytes.extend([b'x', 0xff, b'y']);
        assert_eq!(whole_characters(&mut bytes), "x\u{fffd}y");
        assert!(bytes.is_empty());
    }
}
