//! What programs in the guest say in a tunnel that begins as TLS: whatever it is, nothing passes before
//! a hello with the name of the host that the tunnel is for.

use anteroom_egress::hello::{Hellos, Next, RECORD_HEADER, record_length};

/// Panics where the reader does not hold what is written above.
pub fn run(bytes: &[u8]) {
    let mut hellos = Hellos::new("a.test");
    let (mut rest, mut seen) = (bytes, 0);
    while let Some(header) = rest.first_chunk::<RECORD_HEADER>() {
        let Ok(length) = record_length(*header) else { return };
        let Some((record, others)) = rest.split_at_checked(RECORD_HEADER + length) else { return };
        rest = others;
        seen += record.len();
        match hellos.record(record) {
            Ok(Next::Hold) => {}
            Ok(Next::Pass) => {
                // In pieces it has record headers between its letters.
                let mut name = b"a.test".iter().peekable();
                for byte in &bytes[..seen] {
                    name.next_if(|next| **next == byte.to_ascii_lowercase());
                }
                assert!(name.peek().is_none(), "a hello passed that does not name the host");
            }
            Err(_) => return,
        }
    }
}
