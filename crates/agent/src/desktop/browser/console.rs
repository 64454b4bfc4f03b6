//! What Chromium writes of pages' consoles: only that it kept a page's script from this machine.
//!
//! A page may call the port where a tool waits for its sign-in's end; the sandbox does not allow it, and
//! the page fails without a message that an end user would see.

use anteroom_guest_protocol::GuestMessage;

use crate::supervise::LogLine;

/// Has Chromium write to its standard error what pages write to their consoles.
pub const FLAGS: [&str; 2] = ["--enable-logging=stderr", "--log-level=0"];

/// Looks at a line.
pub fn look(line: &str) -> LogLine {
    if !line.contains(":INFO:") {
        return LogLine::Logged;
    }
    match refused(line) {
        Some((page, address)) => LogLine::Reported(GuestMessage::PageCallRefused { page, address }),
        None => LogLine::Dropped,
    }
}

/// The page and the address that it was kept from (Chromium's text of CORS errors for local addresses).
fn refused(line: &str) -> Option<(String, String)> {
    let (_, message) = line.split_once(":INFO:CONSOLE")?;
    let (_, message) = message.split_once("\"Access to ")?;
    let (_, message) = message.split_once(" at '")?;
    let (address, message) = message.split_once("' from origin '")?;
    let (page, why) = message.split_once("' has been blocked")?;
    let address = url::Url::parse(address).ok()?;
    let is_here = match address.host()? {
        url::Host::Domain(name) => name == "localhost" || name.ends_with(".localhost"),
        url::Host::Ipv4(address) => address.is_loopback(),
        url::Host::Ipv6(address) => address.is_loopback(),
    };
    let place = format!("{}:{}", address.host_str()?, address.port_or_known_default()?);
    (is_here && why.contains("address space")).then(|| (page.to_owned(), place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_kept_from_the_tool_is_reported_and_no_page_s_text_is_logged() {
        let line = "[95:95:1127/184023.712701:INFO:CONSOLE:0] \"Access to fetch at \
            'http://127.0.0.1:45739/cancel?code=secret' from origin 'http://page.example.org' has been \
            blocked by CORS policy: The request client is not a secure context and the resource is in \
            more-private address space `loopback`.\", source: http://page.example.org/ (0)";
        let (page, address) = ("http://page.example.org".to_owned(), "127.0.0.1:45739".to_owned());
        assert_eq!(look(line), LogLine::Reported(GuestMessage::PageCallRefused { page, address }));
        for dropped in [
            "[1:1:1127/1:INFO:CONSOLE:1] \"token=abc\", source: https://x.test/ (1)",
            &line.replace("127.0.0.1:45739", "example.com"),
            "[1:1:1127/1:INFO:net/x.cc:1] chatter",
        ] {
            assert_eq!(look(dropped), LogLine::Dropped, "{dropped}");
        }
        assert_eq!(look("[1:1:1127/1:ERROR:dbus/bus.cc:405] Failed"), LogLine::Logged);
    }
}
