//! What an answer to an attack means.

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anteroom_testkit::raw::Answer;
use anyhow::Result;

use super::Outcome;

/// Refused when the status is one of these.
pub fn refused_with(answer: &Answer, statuses: &[u16]) -> Outcome {
    if statuses.contains(&answer.status) {
        return Outcome::Refused;
    }
    let start: String = answer.text.chars().take(200).collect();
    Outcome::Passed(format!("it was answered {}: {start:?}", answer.status))
}

/// Whether the other side closes within `at_most`; what it still sends is thrown away.
pub fn closes(mut stream: TcpStream, since: Instant, at_most: Duration) -> Result<Outcome> {
    let mut rest = [0; 4096];
    loop {
        let left = at_most.saturating_sub(since.elapsed()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut rest) {
            // A WebSocket is closed by its own message first: the connection's end follows.
            Ok(0) => return Ok(Outcome::Refused),
            Ok(_) if since.elapsed() < at_most => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                return Ok(Outcome::Refused);
            }
            Ok(_) | Err(_) => {
                let seen = format!("it was open {} ms later", since.elapsed().as_millis());
                return Ok(Outcome::Passed(seen));
            }
        }
    }
}
