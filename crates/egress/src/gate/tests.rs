use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::net::TcpListener;

use super::*;
use crate::policy::Mapping;
use crate::request::MAX_HEAD;
use crate::testing::{hello, records};

/// Answers from a script, one a call; the last one again and again.
struct Scripted(Vec<Vec<SocketAddr>>, AtomicUsize);

impl Resolve for Scripted {
    async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        let call = self.1.fetch_add(1, Ordering::SeqCst);
        Ok(self.0[call.min(self.0.len() - 1)].clone())
    }

    /// As of a machine with a public address.
    fn host_networks(&self) -> io::Result<HostNetworks> {
        Ok(HostNetworks::of(&[
            ("93.184.216.34".parse().unwrap(), 24),
            ("2a01:4f8:1:2::5".parse().unwrap(), 64),
        ]))
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
        answer.starts_with("HTTP/1.1 403") && answer.contains("b.test: it is not on the list"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_name_that_leads_inside_reaches_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let inside = listener.local_addr().unwrap().to_string();
    for addresses in [
        vec![inside.as_str()],
        vec!["1.1.1.1:443", inside.as_str()],
        vec!["[::ffff:127.0.0.1]:80"],
        vec!["93.184.216.34:443"],
        vec!["93.184.216.1:443"],
        vec!["[2a01:4f8:1:2:3::1]:443"],
    ] {
        let gate = gate(&["a.test"], &[], resolving_to(&addresses));
        let (record, answer) = exchange(&gate, b"CONNECT a.test:443 HTTP/1.1\r\n\r\n").await;
        assert_eq!(record.verdict, EgressVerdict::RefusedAddress);
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        // The operator learns which address it is, the guest does not.
        let refused: SocketAddr = addresses.last().unwrap().parse().unwrap();
        assert!(record.detail.unwrap().contains(&refused.ip().to_string()));
        let reported = "Anteroom did not connect to a.test: its name resolves to an address that no sandbox may reach.\n";
        assert!(answer.ends_with(reported), "{answer}");
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
            heard.push(buffer[..count].to_vec());
            connection.write_all(b"pong").await.unwrap();
        }
        heard
    };
    let client = async {
        let tls = records(&hello(Some("a.test")), 1 << 14);
        let tunnel = [&b"CONNECT a.test:443 HTTP/1.1\r\n\r\n"[..], &tls].concat();
        let tunnel = exchange(&gate, &tunnel).await;
        let plain = exchange(&gate, b"GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        (tunnel, plain)
    };
    let (heard, ((record, tunnel), (_, plain))) = tokio::join!(server, client);
    let tls = records(&hello(Some("a.test")), 1 << 14);
    assert_eq!(heard[0], tls);
    assert!(
        heard[1].starts_with(b"GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: close"),
        "{heard:?}"
    );
    assert!(tunnel.ends_with("established\r\n\r\npong") && plain == "pong");
    assert_eq!(
        (record.verdict, record.bytes_up, record.bytes_down),
        (EgressVerdict::Allowed, tls.len() as u64, 4)
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
    let first = records(&hello(Some("a.test")), 1 << 14);
    let part = [&[23, 3, 3, 0x40, 0][..], &[0; 0x4000]].concat();
    let parts = (BYTE_BURST + 2 * BYTES_PER_SECOND) / part.len();
    let size = first.len() + parts * part.len();
    let flood = async {
        guest.write_all(b"CONNECT a.test:443 HTTP/1.1\r\n\r\n").await.unwrap();
        guest.write_all(&first).await.unwrap();
        for _ in 0..parts {
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

/// A server of `a.test` that reports all that it received on a connection, and answers immediately.
async fn heard_by_server(listener: TcpListener) -> Vec<u8> {
    let (mut connection, _) = listener.accept().await.unwrap();
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = connection.read(&mut buffer).await {
        heard.extend_from_slice(&buffer[..count]);
        let _ = connection.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    }
    heard
}

/// What the gate records when a guest sends these pieces, each when the one before was answered, and
/// what the server heard of it.
async fn on_one_connection(port: u16, pieces: &[&[u8]]) -> (ConnectionRecord, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let map = [Mapping { host: "a.test".into(), port, to: listener.local_addr().unwrap() }];
    let gate = gate(&[&format!("a.test:{port}")], &map, resolving_to(&[]));
    let (mut guest, host) = tokio::io::duplex(64 * 1024);
    let speak = async move {
        let mut answer = [0; 4096];
        for piece in pieces {
            let _ = guest.write_all(piece).await;
            let _ = guest.read(&mut answer).await;
        }
        let _ = guest.shutdown().await;
        let _ = guest.read_to_end(&mut Vec::new()).await;
    };
    let server = tokio::spawn(heard_by_server(listener));
    let (record, ()) = tokio::join!(gate.serve(host, |_| ()), speak);
    let heard = match record.address {
        Some(_) => server.await.unwrap(),
        None => Vec::new(),
    };
    (record, heard)
}

#[tokio::test]
async fn a_connection_is_for_its_host_whatever_is_said_on_it() {
    const FIRST: &[u8] = b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n";
    const OTHER: &[u8] = b"GET http://b.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n";
    const INNER: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    const FRONTED: &[u8] = b"GET / HTTP/1.1\r\nHost: b.test\r\n\r\n";
    let tls = records(&hello(Some("a.test")), 1 << 14);
    let other_tls = records(&hello(Some("b.test")), 1 << 14);
    let split = records(&hello(Some("b.test")), 30);
    let nameless = records(&hello(None), 1 << 14);
    let retry = [&tls[..], &[20, 3, 3, 0, 1, 1], &other_tls].concat();
    let pipelined = [FIRST, OTHER].concat();
    let smuggled = b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\
                     Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: b.test\r\n\r\n";
    let behind_body = [
        &b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"[..],
        b"1\r\nx\r\n0\r\n\r\n",
        FRONTED,
    ]
    .concat();
    let tunnel = |port: u16| format!("CONNECT a.test:{port} HTTP/1.1\r\n\r\n").into_bytes();
    let (to_80, to_443) = (tunnel(80), tunnel(443));
    let attacks: &[(&str, u16, &[&[u8]])] = &[
        ("a pipelined request to another host", 80, &[&pipelined]),
        ("a second request to another host", 80, &[FIRST, OTHER]),
        ("a second request in origin form", 80, &[FIRST, FRONTED]),
        ("two lengths", 80, &[smuggled]),
        ("a request behind a body", 80, &[&behind_body]),
        ("another Host in a tunnel", 80, &[&to_80, FRONTED]),
        ("a second request in a tunnel", 80, &[&to_80, INNER, FRONTED]),
        (
            "a tunnel in a tunnel",
            80,
            &[&to_80, b"CONNECT b.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n"],
        ),
        ("HTTP/2 in clear", 80, &[&to_80, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]),
        ("another server's name", 443, &[&to_443, &other_tls]),
        ("another server's name, in pieces", 443, &[&to_443, &split]),
        ("no server's name", 443, &[&to_443, &nameless]),
        ("another name in a second hello", 443, &[&to_443, &retry]),
        ("HTTP where TLS is spoken", 443, &[&to_443, FRONTED]),
        ("neither TLS nor HTTP", 443, &[&to_443, b"SSH-2.0-x\r\n"]),
        ("neither TLS nor HTTP", 22, &[&tunnel(22), b"SSH-2.0-x\r\n\r\n"]),
        ("other bytes after a hello", 443, &[&to_443, &[&tls[..], FRONTED].concat()]),
    ];
    for (attack, port, pieces) in attacks {
        let (record, heard) = on_one_connection(*port, pieces).await;
        assert!(!heard.windows(6).any(|w| w == b"b.test"), "{attack}: {heard:?}");
        assert!(!heard.starts_with(b"SSH") && !heard.starts_with(b"PRI"), "{attack}: {heard:?}");
        assert_eq!(record.verdict, EgressVerdict::RefusedRequest, "{attack}: {record:?}");
        assert!(record.detail.is_some(), "{attack}");
    }
    for (port, pieces) in [
        (80, vec![FIRST]),
        (80, vec![&[FIRST, b"\r\n"].concat()]),
        (80, vec![FIRST, FIRST]),
        (80, vec![&to_80[..], INNER]),
        (80, vec![&to_80[..], &tls]),
        (443, vec![&to_443[..], &tls]),
        (443, vec![&to_443[..]]),
    ] {
        let (record, _) = on_one_connection(port, &pieces).await;
        assert_eq!((record.verdict, record.detail), (EgressVerdict::Allowed, None), "{pieces:?}");
    }
}

#[tokio::test]
async fn a_refusal_within_tls_is_an_alert_that_browsers_explain() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let map = [Mapping { host: "a.test".into(), port: 443, to: listener.local_addr().unwrap() }];
    let gate = gate(&["a.test"], &map, resolving_to(&[]));
    let sent =
        [&b"CONNECT a.test:443 HTTP/1.1\r\n\r\n"[..], &records(&hello(Some("b.test")), 1 << 14)]
            .concat();
    let (guest, host) = tokio::io::duplex(64 * 1024);
    let opened = std::cell::Cell::new(false);
    let (record, answer) = tokio::join!(gate.serve(host, |_| opened.set(true)), send(guest, &sent));
    assert!(answer.as_bytes().ends_with(&[21, 3, 3, 0, 2, 2, 112]), "{answer:?}");
    assert!(!opened.get() && record.address.is_some(), "{record:?}");
    let reported = "its TLS hello names another server: b.test";
    assert_eq!(record.detail.as_deref(), Some(reported));
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_on_which_nothing_is_said_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let map = [Mapping { host: "a.test".into(), port: 443, to: listener.local_addr().unwrap() }];
    let tls = records(&hello(Some("a.test")), 1 << 14);
    for said in [&b""[..], &tls[..1], &tls[..40]] {
        let gate = gate(&["a.test"], &map, resolving_to(&[]));
        let (mut guest, host) = tokio::io::duplex(64 * 1024);
        let sent = [&b"CONNECT a.test:443 HTTP/1.1\r\n\r\n"[..], said].concat();
        guest.write_all(&sent).await.unwrap();
        let record = gate.serve(host, |_| ()).await;
        assert_eq!(record.detail.as_deref(), Some("no data was sent on it within 30 s"));
    }
}

#[test]
fn an_address_by_which_others_reach_this_machine_is_its_own() {
    let resolver = SystemResolver { own: vec!["93.184.216.34".parse().unwrap()] };
    let networks = resolver.host_networks().unwrap();
    let refused = networks.allow("93.184.216.34".parse().unwrap()).unwrap_err();
    assert_eq!(refused.range, "this machine");
    assert!(networks.allow("93.184.216.35".parse().unwrap()).is_ok());
}
