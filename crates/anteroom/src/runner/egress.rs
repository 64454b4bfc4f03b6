//! The connections of the guest's programs: each by the gate, and what is told of it.

use std::cell::Cell;
use std::rc::Rc;

use anteroom_egress::ConnectionRecord;
use anteroom_guest_link::{Incoming, LinkError, read_kind};
use anteroom_guest_protocol::{StreamKind, printable};
use anteroom_session::{EgressVerdict, EndReason, Observation};
use tokio::sync::mpsc;

use super::guest::{self, violation};
use super::pace::pace;
use super::sandbox;
use super::unreached::Unreached;

/// Connections that a guest may make for long, a second, and at once: a page of many parts.
const CONNECTIONS_PER_SECOND: usize = 20;
const CONNECTION_BURST: usize = 300;

/// A connection, and how many that makes: none when it was told of before.
pub type Contact = (ConnectionRecord, u64);

/// Serves each stream the guest opens: all of them are its programs' connections.
pub async fn carry(
    mut incoming: Incoming,
    gate: Rc<sandbox::SessionGate>,
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
                        counted.set(records.try_send(Ok((record.clone(), 1))).is_ok());
                    };
                    let record = gate.serve(stream, on_open).await;
                    Ok((record, u64::from(!counted.get())))
                }
                Ok(other) => Err(violation(&format!("the guest opened a {other:?} stream"))),
                Err(error @ LinkError::Kind(_)) => Err(guest::link_failed(error)),
                // A connection that its program gave up before it began.
                Err(_) => return,
            };
            let _ = records.send(record).await;
        });
    }
}

/// What the controller hears of a connection.
pub fn reported((record, connections): Contact, unreached: &mut Unreached) -> Vec<Observation> {
    let ConnectionRecord { host, port, verdict, bytes_up, bytes_down, detail, .. } = record;
    // A browser opens connections ahead of need and drops them unused: nothing was asked for.
    if host.is_empty() && verdict == EgressVerdict::Failed {
        return Vec::new();
    }
    let host = printable(&host);
    let detail = detail.map(|detail| printable(&detail));
    let news = unreached.news(&host, verdict, detail.as_deref());
    let contacted = Observation::HostContacted {
        host,
        port,
        verdict,
        connections,
        bytes_up,
        bytes_down,
        detail,
    };
    [contacted].into_iter().chain(news).collect()
}
