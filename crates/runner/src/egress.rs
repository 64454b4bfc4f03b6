//! The connections of the guest's programs: each by the gate, and what is reported of it.

use std::cell::Cell;
use std::rc::Rc;

use anteroom_egress::ConnectionRecord;
use anteroom_guest_link::{Incoming, LinkError, read_kind};
use anteroom_guest_protocol::StreamKind;
use anteroom_guest_session::{link_failed, pace, violation};
use anteroom_session::EndReason;
use anteroom_sign_in::Contact;
use tokio::sync::mpsc;

use super::egress_gate::SessionGate;

/// Connections that a guest may make for long, a second, and at once: a page of many parts.
const CONNECTIONS_PER_SECOND: usize = 20;
const CONNECTION_BURST: usize = 300;

/// Serves each stream the guest opens: all of them are its programs' connections.
pub async fn carry(
    mut incoming: Incoming,
    gate: Rc<SessionGate>,
    records: mpsc::Sender<Result<Contact, EndReason>>,
    is_open: Rc<Cell<bool>>,
) {
    let pace = pace(CONNECTIONS_PER_SECOND, CONNECTION_BURST);
    while let Some(mut stream) = incoming.next().await {
        pace.acquire_one().await;
        if !is_open.get() {
            continue;
        }
        let (gate, records) = (gate.clone(), records.clone());
        tokio::task::spawn_local(async move {
            let record = match read_kind(&mut stream).await {
                Ok(StreamKind::Egress) => {
                    let counted = Cell::new(false);
                    // Where the queue is full it is counted at its end.
                    let on_open = |record: &ConnectionRecord| {
                        counted.set(records.try_send(Ok(contact(record.clone(), 1))).is_ok());
                    };
                    let record = gate.serve(stream, on_open).await;
                    Ok(contact(record, u64::from(!counted.get())))
                }
                Ok(other) => Err(violation(&format!("the guest opened a {other:?} stream"))),
                Err(error @ LinkError::Kind(_)) => Err(link_failed(error)),
                // A connection that its program gave up before it began.
                Err(_) => return,
            };
            let _ = records.send(record).await;
        });
    }
}

/// A connection as the sign-in takes it.
fn contact(record: ConnectionRecord, connections: u64) -> Contact {
    let ConnectionRecord { host, port, verdict, bytes_up, bytes_down, detail, .. } = record;
    Contact { host, port, verdict, connections, bytes_up, bytes_down, detail }
}
