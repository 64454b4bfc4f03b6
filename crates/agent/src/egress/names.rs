//! DNS inside the guest: each name has a placeholder address, by which a connection shows whom it is
//! for. Nobody outside is asked; whether a name exists is found out by the host that connects to it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use anyhow::{Context, Result};
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Packet, QTYPE, RCODE, ResourceRecord, TYPE};
use tokio::net::UdpSocket;

/// Where placeholders begin: 198.18.0.0/15 is for tests and never routed (RFC 2544).
const FIRST: u32 = u32::from_be_bytes([198, 18, 0, 1]);

/// Names that have a placeholder at a time; after that many others a name gets another one.
const MAX_NAMES: u32 = 8192;

/// How long programs may keep a placeholder, in seconds.
const TTL: u32 = 60;

/// The longest query taken, in bytes: one without extensions has 512 (RFC 1035, 4.2.1).
const MAX_QUERY: usize = 1500;

/// How soon a query is taken after an error.
const AFTER_ERROR: std::time::Duration = std::time::Duration::from_millis(10);

/// The file that names the DNS server to programs.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Which placeholder stands for which name. Cheap to clone.
#[derive(Clone, Default)]
pub struct Names(Rc<RefCell<Table>>);

#[derive(Default)]
struct Table {
    placeholders: HashMap<String, Ipv4Addr>,
    names: HashMap<Ipv4Addr, String>,
    given: u32,
}

impl Names {
    /// The name that an address stands for; the address itself when it stands for none.
    pub fn of(&self, address: IpAddr) -> String {
        let name = match address {
            IpAddr::V4(address) => self.0.borrow().names.get(&address).cloned(),
            IpAddr::V6(_) => None,
        };
        name.unwrap_or_else(|| match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        })
    }

    /// The placeholder of a name, a new one if it has none.
    fn placeholder(&self, name: &str) -> Ipv4Addr {
        let mut table = self.0.borrow_mut();
        if let Some(address) = table.placeholders.get(name) {
            return *address;
        }
        let address = Ipv4Addr::from(FIRST + table.given % MAX_NAMES);
        table.given = table.given.wrapping_add(1);
        if let Some(older) = table.names.insert(address, name.to_owned()) {
            table.placeholders.remove(&older);
        }
        table.placeholders.insert(name.to_owned(), address);
        address
    }

    /// The answer to a query; nothing for what is none.
    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let query = Packet::parse(query).ok()?;
        let question = query.questions.first()?;
        let name = question.qname.to_string().to_ascii_lowercase();
        let mut reply = Packet::new_reply(query.id());
        reply.questions.push(question.clone());
        if !is_public(&name) {
            *reply.rcode_mut() = RCODE::NameError;
        } else if question.qtype == QTYPE::TYPE(TYPE::A) || question.qtype == QTYPE::ANY {
            let address = RData::A(A { address: self.placeholder(&name).into() });
            let owner = question.qname.clone();
            reply.answers.push(ResourceRecord::new(owner, CLASS::IN, TTL, address));
        }
        // For the other types: the name is there and has none of it.
        reply.build_bytes_vec().ok()
    }
}

/// Whether a name may be one of the internet's: names without a dot, and those that are a network's
/// own (RFC 6762, 6761), are found nowhere.
fn is_public(name: &str) -> bool {
    let is_local = [".local", ".localhost", ".internal", ".invalid", ".arpa"];
    name.contains('.') && name.len() <= 253 && !is_local.iter().any(|end| name.ends_with(end))
}

/// Serves DNS to whatever server a program asks, and has programs ask this guest.
pub async fn serve(names: Names) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53))
        .await
        .context("opening the port for DNS failed")?;
    // An image may have a link there that leads nowhere.
    let _ = std::fs::remove_file(RESOLV_CONF);
    std::fs::write(RESOLV_CONF, "nameserver 127.0.0.1\n")
        .with_context(|| format!("writing {RESOLV_CONF} failed"))?;
    tokio::task::spawn_local(async move {
        let mut query = [0; MAX_QUERY];
        loop {
            let (length, from) = match socket.recv_from(&mut query).await {
                Ok(received) => received,
                // An earlier answer's that nobody waited for; should it be another, it must not spin.
                Err(_) => {
                    tokio::time::sleep(AFTER_ERROR).await;
                    continue;
                }
            };
            if let Some(answer) = names.answer(&query[..length]) {
                let _ = socket.send_to(&answer, from).await;
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use simple_dns::{Name, QCLASS, Question};

    use super::*;

    fn ask(names: &Names, name: &str, kind: TYPE) -> (RCODE, Option<Ipv4Addr>) {
        let mut query = Packet::new_query(7);
        let name = Name::new(name).unwrap();
        query.questions.push(Question::new(
            name,
            QTYPE::TYPE(kind),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        let answer = names.answer(&query.build_bytes_vec().unwrap()).unwrap();
        let answer = Packet::parse(&answer).unwrap();
        assert_eq!(answer.id(), 7);
        let address = answer.answers.first().map(|record| match &record.rdata {
            RData::A(a) => Ipv4Addr::from(a.address),
            other => panic!("{other:?}"),
        });
        (answer.rcode(), address)
    }

    #[test]
    fn a_name_has_one_placeholder_and_is_found_by_it() {
        let names = Names::default();
        let (_, first) = ask(&names, "auth.openai.com", TYPE::A);
        let (_, again) = ask(&names, "AUTH.openai.com", TYPE::A);
        let (_, other) = ask(&names, "claude.ai", TYPE::A);
        assert_eq!(first, again);
        assert_ne!(first, other);
        assert_eq!(names.of(first.unwrap().into()), "auth.openai.com");
        assert_eq!(names.of("1.2.3.4".parse().unwrap()), "1.2.3.4");
        assert_eq!(names.of("2001:db8::1".parse().unwrap()), "[2001:db8::1]");
    }

    #[test]
    fn other_types_are_empty_and_local_names_unknown() {
        let names = Names::default();
        assert_eq!(ask(&names, "claude.ai", TYPE::AAAA), (RCODE::NoError, None));
        assert_eq!(ask(&names, "claude.ai", TYPE::HTTPS), (RCODE::NoError, None));
        assert_eq!(ask(&names, "printer.local", TYPE::A), (RCODE::NameError, None));
        assert_eq!(ask(&names, "wpad", TYPE::A), (RCODE::NameError, None));
        assert_eq!(names.answer(b"nonsense"), None);
    }

    #[test]
    fn names_without_end_take_no_more_memory() {
        let names = Names::default();
        let first = names.placeholder("first.test");
        for n in 0..MAX_NAMES {
            names.placeholder(&format!("n{n}.test"));
        }
        assert_eq!(names.0.borrow().names.len(), MAX_NAMES as usize);
        assert_eq!(names.0.borrow().placeholders.len(), MAX_NAMES as usize);
        assert_ne!(names.of(first.into()), "first.test");
    }
}
