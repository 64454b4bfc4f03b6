//! Pages of the desktop's browser that do not continue: those that check for ever whether the end user
//! is human, and those that call the tool by a script, which the sandbox does not allow.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anteroom_provider::Provider;
use regex::Regex;

/// How long a page may check before the end user is notified.
const CHECKS: Duration = Duration::from_secs(60);

/// Beginnings of the titles that such pages have, in the languages that they have been seen in.
const CHECKING: [&str; 10] = [
    "Just a moment",
    "Nur einen Moment",
    "Einen Moment",
    "Un instant",
    "Un momento",
    "Um momento",
    "One moment, please",
    "Checking your browser",
    "Verifying you are human",
    "DDoS-Guard",
];

/// Calls that are reported, each once.
const MAX_CALLS: usize = 16;

/// Pages that do not continue, whatever tool is signed in to: those of identity providers that refuse a
/// browser, and Chromium's own for a certificate. A provider file's own pages come first.
// Chromium's titles are those of its English texts (IDS_SSL_V2_TITLE, IDS_CLOCK_ERROR_TITLE in its
// components/security_interstitials_strings.grdp); it has others in other languages. The second comes
// only when Chromium itself knows better what time it is, and has not been seen in a sandbox yet.
const STUCK: [(&str, &str); 3] = [
    (
        "Couldn.t sign you in|[Bb]rowser or app may not be secure|[Bb]rowser is not supported",
        "This page does not accept a sign-in from the sign-in desktop's browser. Go back and sign in another \
         way there, or start again with a method that uses your own browser (paste_code or device_code), \
         if the tool offers one.",
    ),
    (
        "^Privacy error( - |$)",
        "The page's certificate is for another name, its issuer is not trusted, or it is not valid at the \
         current time of the sign-in desktop's clock: somebody may be intercepting the connection, or one \
         of the two clocks is wrong. Close this window and contact whoever sent you here.",
    ),
    (
        "^Clock error( - |$)",
        "The page's certificate is not valid at the current time of the sign-in desktop's clock: one of the \
         two clocks is wrong. Close this window and contact whoever sent you here.",
    ),
];

/// The desktop's pages, as far as they are known.
pub struct Pages {
    /// Titles, and the message for the end user.
    known: Vec<(Regex, String)>,
    /// When the page that checks now has had its time.
    due: Option<Instant>,
    calls: BTreeSet<(String, String)>,
}

impl Pages {
    /// For a sign-in to `provider`.
    ///
    /// # Errors
    /// When a pattern does not compile, which a parsed provider's do.
    pub fn new(provider: &Provider) -> Result<Self, regex::Error> {
        let own = provider.pages.iter().map(|page| (page.title.as_str(), page.says.as_str()));
        let known = own.chain(STUCK).map(|(title, says)| Ok((Regex::new(title)?, says.to_owned())));
        let known = known.collect::<Result<_, regex::Error>>()?;
        Ok(Self { known, due: None, calls: BTreeSet::new() })
    }

    /// The browser's window has this title from `now` on. Returns the message for the end user, if any.
    pub fn titled(&mut self, title: &str, now: Instant) -> Option<&str> {
        let checks = CHECKING.iter().any(|beginning| title.starts_with(beginning));
        self.due = checks.then(|| self.due.unwrap_or(now + CHECKS));
        self.known
            .iter()
            .find(|(pattern, _)| pattern.is_match(title))
            .map(|(_, says)| says.as_str())
    }

    /// When a page will have checked for too long, unless it continues before.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The message about a page that checks for ever; the next page has its full time.
    pub fn checked_for_ever(&mut self) -> String {
        self.due = None;
        let seconds = CHECKS.as_secs();
        format!(
            "The page has been checking for {seconds} s whether you are human, and does not continue. Reload \
             it once. If that does not help, the page does not accept this browser: sign in by another \
             method (paste_code or device_code), if the tool offers one, or contact whoever sent you here."
        )
    }

    /// A page's script called a port of the sandbox and was refused. Returns the message, once for each.
    pub fn call_refused(&mut self, page: String, address: String) -> Option<String> {
        if self.calls.len() >= MAX_CALLS || !self.calls.insert((page.clone(), address.clone())) {
            return None;
        }
        Some(format!(
            "A script of {page} called the tool at {address}, which pages may not do on the sign-in desktop; \
             a page may only redirect to the tool. If the page does not continue, sign in by another \
             method (paste_code or device_code), if the tool offers one, or contact whoever sent you here."
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages() -> Pages {
        let provider = include_str!("../../../providers/demo.toml");
        Pages::new(&Provider::parse("demo", provider).unwrap()).unwrap()
    }

    #[test]
    fn a_page_that_checks_for_ever_is_reported_and_one_that_continues_is_not() {
        let (mut pages, start) = (pages(), Instant::now());
        let soon = CHECKS / 2;
        pages.titled("Just a moment... - Chromium", start);
        assert_eq!(pages.due(), Some(start + CHECKS));
        pages.titled("Sign in - Chromium", start + soon);
        assert_eq!(pages.due(), None);
        pages.titled("Just a moment... - Chromium", start);
        pages.titled("Just a moment... - Chromium", start + soon);
        assert_eq!(pages.due(), Some(start + CHECKS), "its time runs from its first");
        assert!(pages.checked_for_ever().contains("60 s"));
        assert_eq!(pages.due(), None);
    }

    #[test]
    fn a_call_is_reported_once() {
        let mut pages = pages();
        let call = |pages: &mut Pages, n: usize| {
            pages.call_refused(format!("https://a{n}.test"), "127.0.0.1:1".into())
        };
        assert!(
            call(&mut pages, 0).is_some_and(|reported| reported.contains("https://a0.test called"))
        );
        assert_eq!(call(&mut pages, 0), None);
        assert_eq!((1..100).filter_map(|n| call(&mut pages, n)).count(), MAX_CALLS - 1);
    }

    #[test]
    fn pages_that_do_not_continue_are_known_by_their_titles() {
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
}
