//! Pages of the desktop's browser that do not go on: such as check for ever whether a person is there,
//! and such as call the tool by a script, which the room does not allow.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

/// How long a page may check before the person hears of it.
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

/// Calls that are told, each once.
const MAX_CALLS: usize = 16;

/// What is known of the pages.
#[derive(Default)]
pub struct Pages {
    /// When the page that checks now has had its time.
    due: Option<Instant>,
    calls: BTreeSet<(String, String)>,
}

impl Pages {
    /// The browser's window has this title.
    pub fn titled(&mut self, title: &str) {
        let checks = CHECKING.iter().any(|beginning| title.starts_with(beginning));
        self.due = checks.then(|| self.due.unwrap_or_else(|| Instant::now() + CHECKS));
    }

    /// Waits until a page has checked for too long.
    pub async fn check_for_ever(&self) {
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// What the person is told of a page that checks for ever; its next one has its time again.
    pub fn checked_for_ever(&mut self) -> String {
        self.due = None;
        let seconds = CHECKS.as_secs();
        format!(
            "The page has been checking for {seconds} s whether a person is there, and does not go on. \
             Reload it once; if it stays so, it does not take this browser: sign in by another method \
             (paste_code or device_code), if the tool offers one, or tell whoever sent you here."
        )
    }

    /// A page's script called a port of the room and was refused: what is told of it, once.
    pub fn call_refused(&mut self, page: String, address: String) -> Option<String> {
        if self.calls.len() >= MAX_CALLS || !self.calls.insert((page.clone(), address.clone())) {
            return None;
        }
        Some(format!(
            "A script of {page} called the tool at {address}, which pages may not do in this room; a \
             page that leads on to the tool may. If the page does not go on, sign in by another method \
             (paste_code or device_code), if the tool offers one, or tell whoever sent you here."
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_page_that_checks_for_ever_is_reported_and_one_that_goes_on_is_not() {
        let mut pages = Pages::default();
        let soon = CHECKS / 2;
        let waits = async |pages: &Pages, time| {
            tokio::time::timeout(time, pages.check_for_ever()).await.is_err()
        };
        pages.titled("Just a moment... - Chromium");
        assert!(waits(&pages, soon).await);
        pages.titled("Sign in - Chromium");
        assert!(waits(&pages, CHECKS * 2).await);
        pages.titled("Just a moment... - Chromium");
        assert!(waits(&pages, soon).await);
        pages.titled("Just a moment... - Chromium");
        assert!(
            !waits(&pages, soon + Duration::from_secs(1)).await,
            "its time runs from its first"
        );
        assert!(pages.checked_for_ever().contains("60 s"));
        assert!(waits(&pages, CHECKS * 2).await);
    }

    #[test]
    fn a_call_is_reported_once() {
        let mut pages = Pages::default();
        let call = |pages: &mut Pages, n: usize| {
            pages.call_refused(format!("https://a{n}.test"), "127.0.0.1:1".into())
        };
        assert!(
            call(&mut pages, 0).is_some_and(|reported| reported.contains("https://a0.test called"))
        );
        assert_eq!(call(&mut pages, 0), None);
        assert_eq!((1..100).filter_map(|n| call(&mut pages, n)).count(), MAX_CALLS - 1);
    }
}
