//! The egress gate, tried from where a guest's programs speak: its proxy. One host is allowed, and leads
//! to a server of ours that remembers what it hears; another server stands for all that is inside.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Outcome, Tries};
use crate::server::Server;

/// The host that is allowed, on ports 80 and 443.
const OK: &str = "ok.attack.test";

/// How long a sandbox may take, and an answer of the gate.
const PATIENCE: Duration = Duration::from_secs(90);
const ANSWER: Duration = Duration::from_millis(700);

/// Names of the list that lead inside, each with its addresses.
const INSIDE: [(&str, &[&str]); 9] = [
    ("loopback", &["127.0.0.1"]),
    ("loopback6", &["::1"]),
    ("private", &["10.0.0.1"]),
    ("mapped", &["::ffff:127.0.0.1"]),
    ("nat64", &["64:ff9b::7f00:1"]),
    ("metadata", &["169.254.169.254"]),
    ("cgnat", &["100.64.0.1"]),
    ("unique", &["fd00:ec2::254"]),
    ("both", &["1.1.1.1", "127.0.0.1"]),
];

/// Destinations of tunnels that lead nowhere; `PORT` is that of the server inside.
const DESTINATIONS: [&str; 84] = [
    "[::ffff:0:127.0.0.1]:PORT",
    "[fec0::1]:PORT",
    "[2001:db8::1]:443",
    "[5f00::1]:443",
    "[fd20:ce::254]:80",
    "192.88.99.1:80",
    "203.0.113.1:80",
    "127.0.0.1%00:PORT",
    "ⓛocalhost:PORT",
    "127。0。0。1:PORT",
    "0x7f.0x0.0x0.0x1:PORT",
    "[::1]ok.attack.test:PORT",
    "ok.attack.test\t:443",
    "OK.ATTACK.TEST:8443",
    "127.0.0.1:PORT",
    "127.1:PORT",
    "0x7f.1:PORT",
    "0x7f000001:PORT",
    "017700000001:PORT",
    "0177.0.0.1:PORT",
    "2130706433:PORT",
    "127.0.0.1.:PORT",
    "127.000.000.001:PORT",
    "１２７.0.0.1:PORT",
    "0:PORT",
    "0.0.0.0:PORT",
    "localhost:PORT",
    "LOCALHOST.:PORT",
    "x.localhost:PORT",
    "ip6-localhost:PORT",
    "[::1]:PORT",
    "[::]:PORT",
    "[::1%lo]:PORT",
    "[::1%25lo]:PORT",
    "[::ffff:127.0.0.1]:PORT",
    "[::ffff:7f00:1]:PORT",
    "[0:0:0:0:0:ffff:7f00:1]:PORT",
    "[::127.0.0.1]:PORT",
    "[64:ff9b::7f00:1]:PORT",
    "[64:ff9b:1::7f00:1]:PORT",
    "[2002:7f00:1::]:PORT",
    "[2001:0:7f00:1::]:PORT",
    "[fe80::1]:PORT",
    "[fc00::1]:PORT",
    "[fd00:ec2::254]:80",
    "[ff02::1]:PORT",
    "10.0.0.1:80",
    "172.16.0.1:80",
    "192.168.0.1:80",
    "169.254.169.254:80",
    "100.64.0.1:80",
    "100.100.100.200:80",
    "168.63.129.16:80",
    "192.0.0.192:80",
    "198.18.0.1:80",
    "192.0.2.1:80",
    "224.0.0.1:80",
    "255.255.255.255:80",
    "1.1.1.1:443",
    "[2606:4700::1111]:443",
    "metadata:80",
    "metadata.google.internal:80",
    "instance-data:80",
    "kubernetes.default.svc:443",
    "host.docker.internal:PORT",
    "evil.test:443",
    "ok.attack.test.evil.test:443",
    "x.ok.attack.test:443",
    "okattack.test:443",
    ".ok.attack.test:443",
    "ok.attack.test..:443",
    "*.attack.test:443",
    "оk.attack.test:443",
    "ok.attack.test:22",
    "ok.attack.test:0",
    "ok.attack.test:+443",
    "ok.attack.test:443:443",
    "ok.attack.test:65979",
    "evil.test@ok.attack.test:443",
    "ok.attack.test@evil.test:443",
    "evil.test#ok.attack.test:443",
    "ok.attack.test%00.evil.test:443",
    "ok.attack.test%2eevil.test:443",
    "ok.attack.test",
];

/// Plain requests to the proxy, in the pieces in which they are sent; what is refused in each says
/// `evil`.
const TO_PROXY: [(&str, &[&str]); 29] = [
    (
        "another port's URL",
        &["GET http://ok.attack.test:81/evil HTTP/1.1\r\nHost: ok.attack.test:81\r\n\r\n"],
    ),
    (
        "another port in Host",
        &["GET http://ok.attack.test/evil HTTP/1.1\r\nHost: ok.attack.test:22\r\n\r\n"],
    ),
    ("HTTP/0.9", &["GET http://ok.attack.test/evil\r\n\r\n"]),
    (
        "a NUL in Host",
        &["GET http://ok.attack.test/ HTTP/1.1\r\nHost: ok.attack.test\0evil\r\n\r\n"],
    ),
    (
        "a header name with an underscore",
        &[
            "POST http://ok.attack.test/ HTTP/1.1\r\nHost: ok.attack.test\r\nTransfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        ],
    ),
    (
        "a chunk with an extension that hides its end",
        &[
            "POST http://ok.attack.test/ HTTP/1.1\r\nHost: ok.attack.test\r\nTransfer-Encoding: chunked\r\n\r\n2;a=\nxx\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        ],
    ),
    (
        "a chunk that ends in a bare line feed",
        &[
            "POST http://ok.attack.test/ HTTP/1.1\r\nHost: ok.attack.test\r\nTransfer-Encoding: chunked\r\n\r\n2\nxx\n0\n\nGET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        ],
    ),
    (
        "a chunk of a size beyond all numbers",
        &[
            "POST http://ok.attack.test/ HTTP/1.1\r\nHost: ok.attack.test\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\nGET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        ],
    ),
    (
        "a GET with a body that is a request",
        &[
            "GET http://ok.attack.test/ HTTP/1.1\r\nHost: ok.attack.test\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        ],
    ),
    (
        "a Connection header that drops Host",
        &[
            "GET http://ok.attack.test/ HTTP/1.1\r\nHost: ok.attack.test\r\nConnection: close, host\r\nX-Host: y\r\n\r\nGET http://evil.test/ HTTP/1.1\r\n\r\n",
        ],
    ),
    (
        "a tabulator in the request line",
        &["GET http://ok.attack.test/\thttp://evil.test/ HTTP/1.1\r\nHost: ok.attack.test\r\n\r\n"],
    ),
    (
        "an upgrade to HTTP/2",
        &[
            "GET http://ok.attack.test/ HTTP/1.1\r\nHost: ok.attack.test\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nevil",
        ],
    ),
    ("another host's URL", &["GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n"]),
    ("an URL with a user name", &["GET http://ok.attack.test@evil.test/ HTTP/1.1\r\n\r\n"]),
    ("an URL with a backslash", &["GET http://evil.test\\@ok.attack.test/ HTTP/1.1\r\n\r\n"]),
    ("an URL of files", &["GET file:///etc/passwd?evil HTTP/1.1\r\n\r\n"]),
    ("a path alone", &["GET /evil HTTP/1.1\r\nHost: ok.attack.test\r\n\r\n"]),
    ("another Host", &["GET http://ok.attack.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n"]),
    (
        "two Hosts",
        &["GET http://ok.attack.test/ HTTP/1.1\r\nHost: ok.attack.test\r\nHost: evil.test\r\n\r\n"],
    ),
    ("a folded Host", &["GET http://ok.attack.test/ HTTP/1.1\r\nX: y\r\n Host: evil.test\r\n\r\n"]),
    (
        "a Host behind a bare line feed",
        &["GET http://ok.attack.test/ HTTP/1.1\r\nX: y\nHost: evil.test\r\n\r\n"],
    ),
    (
        "a head that ends twice",
        &["GET http://ok.attack.test/ HTTP/1.1\n\nGET http://evil.test/ HTTP/1.1\r\n\r\n"],
    ),
    (
        "a pipelined request",
        &["GET http://ok.attack.test/ HTTP/1.1\r\nHost: ok.attack.test\r\n\r\n\
           GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n"],
    ),
    (
        "a second request on the connection",
        &[
            "GET http://ok.attack.test/ HTTP/1.1\r\nHost: ok.attack.test\r\n\r\n",
            "GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        ],
    ),
    (
        "a second request with a path alone",
        &[
            "GET http://ok.attack.test/ HTTP/1.1\r\nHost: ok.attack.test\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        ],
    ),
    (
        "a request smuggled by two lengths",
        &["POST http://ok.attack.test/ HTTP/1.1\r\nHost: ok.attack.test\r\nContent-Length: 50\r\n\
           Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: evil.test\r\n\r\n"],
    ),
    (
        "a request smuggled behind chunks",
        &["POST http://ok.attack.test/ HTTP/1.1\r\nHost: ok.attack.test\r\n\
           Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: evil.test\r\n\r\n"],
    ),
    (
        "a trailer",
        &["POST http://ok.attack.test/ HTTP/1.1\r\nHost: ok.attack.test\r\n\
           Transfer-Encoding: chunked\r\n\r\n0\r\nHost: evil.test\r\n\r\n"],
    ),
    (
        "an upgrade",
        &[
            "GET http://ok.attack.test/ HTTP/1.1\r\nHost: ok.attack.test\r\nUpgrade: evil\r\n\
             Connection: Upgrade\r\n\r\n",
            "evil",
        ],
    ),
];

/// The same within a tunnel to the allowed host's port 80.
const IN_TUNNEL: [(&str, &[&str]); 7] = [
    ("another Host in a tunnel", &["GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n"]),
    (
        "a second request in a tunnel",
        &[
            "GET / HTTP/1.1\r\nHost: ok.attack.test\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        ],
    ),
    ("an URL in a tunnel", &["GET http://evil.test/ HTTP/1.1\r\nHost: ok.attack.test\r\n\r\n"]),
    ("a tunnel in a tunnel", &["CONNECT evil.test:443 HTTP/1.1\r\nHost: ok.attack.test\r\n\r\n"]),
    ("HTTP/2 in clear", &["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nevil"]),
    ("neither TLS nor HTTP", &["SSH-2.0-evil\r\n\r\n"]),
    ("no Host at all", &["GET /evil HTTP/1.1\r\n\r\n"]),
];

/// What the servers behind the gate have heard.
type Heard = Arc<Mutex<Vec<u8>>>;

/// Makes the attacks.
pub fn attack(anteroom: &Path, tries: &mut Tries) -> Result<()> {
    let heard = Heard::default();
    let (outside, inside) = (listen(&heard)?, listen(&heard)?);
    let folder = tempfile::Builder::new().prefix("xtask-door-").tempdir()?;
    let anteroom = with_names(anteroom, folder.path())?;
    let server = Server::start_with(
        &anteroom,
        folder.path(),
        &provider(outside, inside.port()),
        "host",
        &[],
    )?;
    let session = server.begin(&serde_json::json!({ "provider": "demo" }))?;
    let guest = Guest { proxy: proxy(&server, &session.id)?, heard };
    guest.expect_the_allowed_request()?;
    for destination in DESTINATIONS {
        let target = destination.replace("PORT", &inside.port().to_string());
        tries.record(&format!("a tunnel to {target}"), guest.tunnel(&target)?);
    }
    for (name, addresses) in INSIDE {
        let target = format!("{name}.in.attack.test:{}", inside.port());
        let what = format!("an allowed name that leads to {}", addresses.join(" and "));
        tries.record(&what, guest.tunnel(&target)?);
    }
    for (what, pieces) in TO_PROXY {
        let pieces: Vec<&[u8]> = pieces.iter().map(|piece| piece.as_bytes()).collect();
        tries.record(what, guest.said(&pieces)?);
    }
    for (what, pieces) in IN_TUNNEL {
        let open = connect(80);
        let pieces = pieces.iter().map(|piece| piece.as_bytes());
        let pieces: Vec<&[u8]> = [&open[..]].into_iter().chain(pieces).collect();
        tries.record(what, guest.said(&pieces)?);
    }
    for (what, sent) in by_tls() {
        tries.record(what, guest.said(&[&connect(443), &sent])?);
    }
    tries.record("SOCKS 5 to the proxy", guest.said(&[b"\x05\x01\x00evil\r\n\r\n"])?);
    guest.expect_the_allowed_request()?;
    server.cancel(&session.id)?;
    server.wait_until_torn_down(&session.id, PATIENCE)?;
    Ok(())
}

/// What begins as TLS, or should, in a tunnel to the allowed host's port 443.
fn by_tls() -> Vec<(&'static str, Vec<u8>)> {
    let (other, own) = (hello(Some("evil.test")), hello(Some(OK)));
    vec![
        ("another server's name in TLS", records(&other, 1 << 14)),
        (
            "another server's name behind ours",
            records(&hello(Some("ok.attack.test.evil.test")), 1 << 14),
        ),
        ("a NUL in a server's name", records(&hello(Some("ok.attack.test\0.evil.test")), 1 << 14)),
        ("two names of servers", records(&hello_with(&[OK, "evil.test"]), 1 << 14)),
        ("two extensions with a server's name", records(&hello_twice(OK, "evil.test"), 1 << 14)),
        ("another server's name in many records", records(&other, 20)),
        ("no server's name in TLS", [records(&hello(None), 1 << 14), b"evil".to_vec()].concat()),
        ("an address for a name in TLS", {
            [records(&hello(Some("10.0.0.1")), 1 << 14), b"evil".to_vec()].concat()
        }),
        (
            "another name in a second hello",
            [records(&own, 1 << 14), vec![20, 3, 3, 0, 1, 1], records(&other, 1 << 14)].concat(),
        ),
        (
            "HTTP after a hello",
            [&records(&own, 1 << 14)[..], b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n"].concat(),
        ),
        ("HTTP where TLS is spoken", b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n".to_vec()),
        ("neither where TLS is spoken", b"SSH-2.0-evil\r\n".to_vec()),
    ]
}

/// A guest, from where its programs speak.
struct Guest {
    proxy: SocketAddr,
    heard: Heard,
}

impl Guest {
    /// Says these pieces on one connection, each when the one before was answered; all answers.
    fn say(&self, pieces: &[&[u8]]) -> Result<Vec<u8>> {
        let mut connection =
            TcpStream::connect(self.proxy).context("reaching the sandbox's proxy")?;
        connection.set_read_timeout(Some(ANSWER))?;
        let (mut answers, mut buffer) = (Vec::new(), [0; 4096]);
        for piece in pieces {
            // The gate may have closed the connection already.
            let _ = connection.write_all(piece);
            if let Ok(count) = connection.read(&mut buffer) {
                answers.extend_from_slice(&buffer[..count]);
            }
        }
        Ok(answers)
    }

    /// Whether a tunnel is opened.
    fn tunnel(&self, target: &str) -> Result<Outcome> {
        let head = format!("CONNECT {target} HTTP/1.1\r\n\r\n");
        let answer = self.say(&[head.as_bytes(), b"evil"])?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        if answer.starts_with("HTTP/1.1 200") {
            return Ok(Outcome::Passed(format!("the gate answered {answer:?}")));
        }
        if INSIDE
            .iter()
            .flat_map(|(_, of)| *of)
            .any(|of| target.contains("in.attack.test") && answer.contains(of))
        {
            return Ok(Outcome::Passed(format!("the guest learnt the address: {answer:?}")));
        }
        Ok(self.outcome())
    }

    fn said(&self, pieces: &[&[u8]]) -> Result<Outcome> {
        self.say(pieces)?;
        Ok(self.outcome())
    }

    /// By what the servers have heard since the last time.
    fn outcome(&self) -> Outcome {
        let heard = std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner));
        match heard.windows(4).any(|window| window == b"evil") {
            true => {
                Outcome::Passed(format!("a server heard {:?}", String::from_utf8_lossy(&heard)))
            }
            false => Outcome::Refused,
        }
    }

    /// Without it a gate that is broken would refuse everything.
    fn expect_the_allowed_request(&self) -> Result<()> {
        let request = format!("GET http://{OK}/ HTTP/1.1\r\nHost: {OK}\r\n\r\n");
        let answer = self.say(&[request.as_bytes()])?;
        self.outcome();
        if !answer.starts_with(b"HTTP/1.1 204") {
            bail!("the allowed request was answered {:?}", String::from_utf8_lossy(&answer));
        }
        Ok(())
    }
}

/// A server that remembers what it hears, and answers each time.
fn listen(heard: &Heard) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let heard = heard.clone();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let heard = heard.clone();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = connection.read(&mut buffer) {
                    let mut all = heard.lock().unwrap_or_else(PoisonError::into_inner);
                    all.extend_from_slice(&buffer[..count]);
                    drop(all);
                    let _ = connection.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
                }
            });
        }
    });
    Ok(address)
}

/// A way to start the program where the names of [`INSIDE`] resolve: in a mount namespace of its own,
/// whose /etc/hosts has them.
fn with_names(anteroom: &Path, folder: &Path) -> Result<PathBuf> {
    let mut hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default() + "\n";
    for (name, addresses) in INSIDE {
        for address in addresses {
            writeln!(hosts, "{address} {name}.in.attack.test")?;
        }
    }
    let (file, script) = (folder.join("hosts"), folder.join("anteroom"));
    std::fs::write(&file, hosts)?;
    let text = format!(
        "#!/bin/sh\nexec unshare --mount sh -c 'mount --bind {} /etc/hosts && exec \"$0\" \"$@\"' {} \"$@\"\n",
        file.display(),
        anteroom.display()
    );
    std::fs::write(&script, text)?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    Ok(script)
}

fn provider(outside: SocketAddr, inside: u16) -> String {
    format!(
        "id = \"demo\"\nname = \"Attacker\"\nkind = \"demo\"\nimage = \"demo\"\n\n\
         [[login]]\nmethod = \"paste_code\"\n\
         command = [\"sh\", \"-c\", \"echo way out: $HTTPS_PROXY; echo https://{OK}/a; sleep 1000\"]\n\
         instructions = \"Wait.\"\ncode_prompt = \"never\"\n\n\
         [credential]\n[[credential.files]]\npath = \"~/.none.json\"\nrequired = [\"/token\"]\n\n\
         [egress]\nallow = [\"{OK}\", \"*.in.attack.test:{inside}\"]\n\
         [[egress.map]]\nhost = \"{OK}\"\nport = 80\nto = \"{outside}\"\n\
         [[egress.map]]\nhost = \"{OK}\"\nport = 443\nto = \"{outside}\"\n"
    )
}

/// The address of the sandbox's proxy, as its CLI prints it.
fn proxy(server: &Server, id: &str) -> Result<SocketAddr> {
    server.wait_until(id, PATIENCE, "reported its way out", |status| {
        status["state"] == "awaiting_user" || status["state"] == "ended"
    })?;
    let logs = server.logs(id)?;
    let reported =
        logs.split_once("way out: http://").context("the sandbox reported no way out")?.1;
    let reported: String =
        reported.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect();
    reported.parse().with_context(|| format!("the sandbox's way out is {reported:?}"))
}

fn connect(port: u16) -> Vec<u8> {
    format!("CONNECT {OK}:{port} HTTP/1.1\r\n\r\n").into_bytes()
}

/// A TLS hello's message with this server name, or none (RFC 8446, 4.1.2).
fn hello(name: Option<&str>) -> Vec<u8> {
    hello_with(name.as_slice())
}

/// The same with these names in its list.
fn hello_with(names: &[&str]) -> Vec<u8> {
    hello_of(if names.is_empty() { &[] } else { std::slice::from_ref(&names) })
}

/// The same with two lists of one name each.
fn hello_twice(one: &str, other: &str) -> Vec<u8> {
    hello_of(&[&[one], &[other]])
}

fn hello_of(lists: &[&[&str]]) -> Vec<u8> {
    let sized = |bytes: &[u8]| {
        let [.., high, low] = bytes.len().to_be_bytes();
        [&[high, low], bytes].concat()
    };
    let extension = |kind: u8, body: &[u8]| [&[0, kind], &sized(body)[..]].concat();
    let mut extensions = extension(13, &sized(&[4, 3, 8, 4]));
    extensions.extend(extension(43, &[2, 3, 4]));
    for names in lists {
        let entry = |name: &&str| [&[0], &sized(name.as_bytes())[..]].concat();
        let entries: Vec<u8> = names.iter().flat_map(entry).collect();
        extensions.extend(extension(0, &sized(&entries)));
    }
    let mut body = vec![3, 3];
    body.extend([9; 32]);
    body.push(0);
    body.extend(sized(&[0x13, 0x01]));
    body.extend([1, 0]);
    body.extend(sized(&extensions));
    let [.., high, low] = body.len().to_be_bytes();
    [&[1, 0, high, low], &body[..]].concat()
}

/// A message in records of at most `step` bytes each.
fn records(message: &[u8], step: usize) -> Vec<u8> {
    let record = |fragment: &[u8]| {
        let [.., high, low] = fragment.len().to_be_bytes();
        [&[22, 3, 1, high, low], fragment].concat()
    };
    message.chunks(step).flat_map(record).collect()
}
