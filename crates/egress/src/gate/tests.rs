use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::DuplexStream;
use tokio::net::TcpListener;

use super::*;
use crate::policy::Mapping;

/// Answers from a script, one a call; the last one again and again.
struct Scripted(Vec<Vec<SocketAddr>>, AtomicUsize);

impl Resolve for Scripted {
    async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        let call = self.1.fetch_add(1, Ordering::SeqCst);
        Ok(self.0[call.min(self.0.len() - 1)].clone())
    }
}

fn resolving_to(addresses: &[&str]) -> Scripted {
    Scripted(vec![addresses.iter().map(|a| a.parse().unwrap()).collect()], AtomicUsize::new(0))
}

fn gate(allow: &[&str], map: &[Mapping], resolver: Scripted) -> Gate<Scripted> {
    let allow: Vec<String> = allow.iter().map(|s| (*s).to_owned()).collect();
    Gate::new(Policy::new(&allow, map).unwrap(), resolver)
}

async fn send(mut guest: DuplexStream, bytes: &[u8]) -> String {
    guest.write_all(bytes).await.unwrap();
    let mut answer = String::new();
    let _ = guest.read_to_string(&mut answer).await;
    answer
}

async fn exchange(gate: &Gate<Scripted>, bytes: &[u8]) -> (ConnectionRecord, String) {
    let (guest, host) = tokio::io::duplex(64 * 1024);
    tokio::join!(gate.serve(host, |_| ()), send(guest, bytes))
}

#[tokio::test]
async fn a_host_not_on_the_list_is_refused_and_said_so() {
    let gate = gate(&["a.test"], &[], resolving_to(&["1.1.1.1:443"]));
    let (record, answer) = exchange(&gate, b"CONNECT b.test:443 HTTP/1.1\r\n\r\n").await;
    assert_eq!((record.host.as_str(), record.verdict), ("b.test", EgressVerdict::RefusedByPolicy));
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("b.test: it is not among"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_name_that_leads_inside_reaches_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let inside = listener.local_addr().unwrap().to_string();
    for addresses in
        [vec![inside.as_str()], vec!["1.1.1.1:443", inside.as_str()], vec!["[::ffff:127.0.0.1]:80"]]
    {
        let gate = gate(&["a.test"], &[], resolving_to(&addresses));
        let (record, answer) = exchange(&gate, b"CONNECT a.test:443 HTTP/1.1\r\n\r\n").await;
        assert_eq!(record.verdict, EgressVerdict::RefusedAddress);
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    }
    let nobody_came = timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(nobody_came.is_err());
}

#[tokio::test]
async fn a_mapped_name_reaches_its_address_by_tunnel_and_plainly() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let map: Vec<Mapping> =
        [443, 80].map(|port| Mapping { host: "a.test".into(), port, to }).into_iter().collect();
    let gate = gate(&["a.test"], &map, resolving_to(&["1.1.1.1:443"]));
    let server = async {
        let mut heard = Vec::new();
        for _ in 0..2 {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 256];
            let count = connection.read(&mut buffer).await.unwrap();
            heard.push(String::from_utf8_lossy(&buffer[..count]).into_owned());
            connection.write_all(b"pong").await.unwrap();
        }
        heard
    };
    let client = async {
        let tunnel = exchange(&gate, b"CONNECT a.test:443 HTTP/1.1\r\n\r\nping").await;
        let plain = exchange(&gate, b"GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        (tunnel, plain)
    };
    let (heard, ((record, tunnel), (_, plain))) = tokio::join!(server, client);
    assert_eq!(heard[0], "ping");
    assert!(
        heard[1].starts_with("GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: close"),
        "{heard:?}"
    );
    assert!(tunnel.ends_with("established\r\n\r\npong") && plain == "pong");
    assert_eq!(
        (record.verdict, record.bytes_up, record.bytes_down),
        (EgressVerdict::Allowed, 4, 4)
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_given_up() {
    let gate = gate(&[], &[], resolving_to(&[]));
    let (mut guest, host) = tokio::io::duplex(1024);
    guest.write_all(b"CONNECT a.te").await.unwrap();
    let record = gate.serve(host, |_| ()).await;
    assert_eq!(record.detail.as_deref(), Some("the request's head did not come within 30 s"));
}

#[tokio::test]
async fn a_long_head_is_refused_without_being_kept() {
    let gate = gate(&[], &[], resolving_to(&[]));
    let (record, answer) = exchange(&gate, &vec![b'a'; MAX_HEAD + 1]).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(record.host, "");
}

#[tokio::test]
async fn a_guest_that_copies_away_all_it_can_is_slowed_down_and_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let map = [Mapping { host: "a.test".into(), port: 443, to: listener.local_addr().unwrap() }];
    let gate = gate(&["a.test"], &map, resolving_to(&[]));
    let server = async {
        let (mut connection, _) = listener.accept().await.unwrap();
        // From here on time passes only where all wait for it.
        tokio::time::pause();
        tokio::io::copy(&mut connection, &mut tokio::io::sink()).await.unwrap()
    };
    let (mut guest, host) = tokio::io::duplex(64 * 1024);
    let size = BYTE_BURST + 2 * BYTES_PER_SECOND;
    let flood = async {
        guest.write_all(b"CONNECT a.test:443 HTTP/1.1\r\n\r\n").await.unwrap();
        let part = vec![0; 1024 * 1024];
        for _ in 0..size / part.len() {
            guest.write_all(&part).await.unwrap();
        }
        guest.shutdown().await.unwrap();
        drop(guest);
    };
    let started = tokio::time::Instant::now();
    let (arrived, record, ()) = tokio::join!(server, gate.serve(host, |_| ()), flood);
    assert_eq!((arrived, record.bytes_up), (size as u64, size as u64));
    assert!(started.elapsed() > Duration::from_millis(1500), "{:?}", started.elapsed());
}
