//! The server's name in a TLS hello. Pure.
//!
//! rustls reads the hello, as its server would. Two servers behind one address know by this name whom
//! a connection is for, so it must be the name by which the connection was allowed. An encrypted
//! hello has another name inside, for the same server to decrypt; the one outside is checked.

use rustls::server::Acceptor;

/// Bytes before a record's own (RFC 8446, 5.1).
pub const RECORD_HEADER: usize = 5;

/// The longest record that any version has, in bytes (RFC 5246, 6.2.3).
const MAX_RECORD: usize = (1 << 14) + 2048;

/// The longest hello, in bytes: those of browsers have 2 KiB.
const MAX_HELLO: usize = 32 * 1024;

/// Types of records.
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const HEARTBEAT: u8 = 24;

/// Whether a connection that begins like this is meant to be TLS.
pub(crate) fn is_tls(first: u8) -> bool {
    first == HANDSHAKE
}

/// How many bytes follow a record's header.
///
/// # Errors
/// When it is none.
pub fn record_length(header: [u8; RECORD_HEADER]) -> Result<usize, BadHello> {
    let [kind, major, _, high, low] = header;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let is_record = (CHANGE_CIPHER_SPEC..=HEARTBEAT).contains(&kind) && major == 3;
    if is_record && length <= MAX_RECORD { Ok(length) } else { Err(BadHello::NoTls) }
}

/// Why a connection with TLS is not carried on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHello {
    /// Not what TLS looks like.
    #[error("the data is not TLS")]
    NoTls,
    /// It begins, and cannot be read.
    #[error("its TLS hello is not valid: {0}")]
    Unreadable(String),
    /// It is too long.
    #[error("its TLS hello is longer than {MAX_HELLO} bytes")]
    TooLong,
    /// It has no name.
    #[error("its TLS hello names no server")]
    NoName,
    /// It has another.
    #[error("its TLS hello names another server: {0}")]
    OtherName(String),
}

/// What to do with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is a part of a hello: keep it until the hello is whole.
    Hold,
    /// Pass it on, and what was held.
    Pass,
}

/// Looks at what a guest sends on one connection, record by record.
pub struct Hellos {
    host: String,
    state: State,
}

enum State {
    /// In a hello, of which so many bytes have come.
    Hello(Box<Acceptor>, usize),
    /// After one: a server may ask for a second (RFC 8446, 4.1.4).
    AfterHello,
    /// No further hello comes in clear.
    Past,
}

impl Hellos {
    /// For a connection that was opened to this (normalised) host.
    #[must_use]
    pub fn new(host: &str) -> Self {
        Self { host: host.to_owned(), state: State::Hello(Box::default(), 0) }
    }

    /// Looks at the next whole record, its header included.
    ///
    /// # Errors
    /// When the connection must not go on.
    pub fn record(&mut self, record: &[u8]) -> Result<Next, BadHello> {
        let (header, fragment) = record.split_at_checked(RECORD_HEADER).ok_or(BadHello::NoTls)?;
        if matches!(self.state, State::AfterHello) && header[0] == HANDSHAKE {
            self.state = match fragment {
                // Its type, a length below 64 KiB, and the version that every hello since 2008 has.
                [1, 0, _, _, 3, 3, ..] => State::Hello(Box::default(), 0),
                // Too short to decide, and for any message but a piece of one.
                [] | [_] | [_, _] | [_, _, _] | [_, _, _, _] | [_, _, _, _, _] => {
                    return Err(BadHello::Unreadable(
                        "it comes in too many small pieces".to_owned(),
                    ));
                }
                // TLS 1.2 goes on with its keys; a hello after them is encrypted.
                _ => State::Past,
            };
        }
        let State::Hello(acceptor, length) = &mut self.state else { return Ok(Next::Pass) };
        if header[0] != HANDSHAKE {
            return Err(BadHello::NoTls);
        }
        *length += record.len();
        if *length > MAX_HELLO {
            return Err(BadHello::TooLong);
        }
        match read(acceptor, record)? {
            None => Ok(Next::Hold),
            Some(name) => {
                self.check(name)?;
                self.state = State::AfterHello;
                Ok(Next::Pass)
            }
        }
    }

    /// An address has no name in TLS (RFC 6066, 3); every other host must be named.
    fn check(&self, name: Option<String>) -> Result<(), BadHello> {
        let has_name = matches!(url::Host::parse(&self.host), Ok(url::Host::Domain(_)));
        match name {
            None if has_name => Err(BadHello::NoName),
            None => Ok(()),
            Some(name) if name.strip_suffix('.').unwrap_or(&name) == self.host => Ok(()),
            Some(name) => Err(BadHello::OtherName(name)),
        }
    }
}

/// Gives a record to the reader; the name, in lower case, once the hello is whole.
fn read(acceptor: &mut Acceptor, mut record: &[u8]) -> Result<Option<Option<String>>, BadHello> {
    let unreadable = |cause: String| BadHello::Unreadable(cause);
    while !record.is_empty() {
        acceptor.read_tls(&mut record).map_err(|error| unreadable(error.to_string()))?;
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(_)) if !record.is_empty() => {
                return Err(unreadable("something else follows it in its record".to_owned()));
            }
            Ok(Some(hello)) => {
                let name = hello.client_hello().server_name().map(str::to_ascii_lowercase);
                return Ok(Some(name));
            }
            Err((error, _)) => return Err(unreadable(error.to_string())),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
