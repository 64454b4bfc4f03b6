use proptest::prelude::*;

use super::*;
use crate::testing::{hello, records};

/// What comes of these records one after the other; the first error counts.
fn look(host: &str, bytes: &[u8]) -> Result<Vec<Next>, BadHello> {
    let mut hellos = Hellos::new(host);
    let mut rest = bytes;
    let mut all = Vec::new();
    while !rest.is_empty() {
        let header = rest.first_chunk().ok_or(BadHello::NoTls)?;
        let length = RECORD_HEADER + record_length(*header)?;
        let (record, others) = rest.split_at_checked(length).ok_or(BadHello::NoTls)?;
        all.push(hellos.record(record)?);
        rest = others;
    }
    Ok(all)
}

fn record(kind: u8, fragment: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(fragment.len()).unwrap().to_be_bytes();
    [&[kind, 3, 3, high, low], fragment].concat()
}

#[test]
fn the_name_in_a_hello_is_the_connection_s() {
    for named in ["a.test", "A.Test", "a.test."] {
        let sent = records(&hello(Some(named)), 1 << 14);
        assert_eq!(look("a.test", &sent), Ok(vec![Next::Pass]), "{named}");
    }
    let sent = records(&hello(Some("b.test")), 1 << 14);
    assert_eq!(look("a.test", &sent), Err(BadHello::OtherName("b.test".to_owned())));
    // A name is whole, and an address none.
    for named in ["x.a.test", "a.tes", "a.test.b.test"] {
        let sent = records(&hello(Some(named)), 1 << 14);
        assert_eq!(look("a.test", &sent), Err(BadHello::OtherName(named.to_owned())));
    }
    for sent in [hello(None), hello(Some("192.0.2.1"))] {
        let sent = records(&sent, 1 << 14);
        assert_eq!(look("a.test", &sent), Err(BadHello::NoName));
        assert_eq!(look("192.0.2.1", &sent), Ok(vec![Next::Pass]));
        assert_eq!(look("[2001:db8::1]", &sent), Ok(vec![Next::Pass]));
    }
}

#[test]
fn a_hello_in_many_records_is_held_until_it_is_whole() {
    let message = hello(Some("a.test"));
    for step in [1, 3, 50, message.len() - 1] {
        let nexts = look("a.test", &records(&message, step)).unwrap();
        assert_eq!(nexts.len(), message.len().div_ceil(step));
        let (last, before) = nexts.split_last().unwrap();
        assert!(*last == Next::Pass && before.iter().all(|next| *next == Next::Hold), "{step}");
        let other = look("b.test", &records(&message, step));
        assert_eq!(other, Err(BadHello::OtherName("a.test".to_owned())));
    }
}

#[test]
fn a_second_hello_has_the_same_name() {
    let first = records(&hello(Some("a.test")), 1 << 14);
    let change = record(CHANGE_CIPHER_SPEC, &[1]);
    let data = record(23, b"encrypted");
    let with = |second: &[u8]| [&first, &change, &data, second, &data].concat();
    let same = records(&hello(Some("a.test")), 1 << 14);
    assert_eq!(look("a.test", &with(&same)).unwrap(), vec![Next::Pass; 5]);
    for step in [6, 40, 1 << 14] {
        let other = records(&hello(Some("b.test")), step);
        let refused = look("a.test", &with(&other));
        assert_eq!(refused, Err(BadHello::OtherName("b.test".to_owned())), "{step}");
    }
    let pieces = records(&hello(Some("b.test")), 5);
    assert!(matches!(look("a.test", &with(&pieces)), Err(BadHello::Unreadable(_))));
    // Nothing else comes within a hello.
    let torn = [&first[..], &records(&hello(Some("b.test")), 50)[..55], &data].concat();
    assert_eq!(look("a.test", &torn), Err(BadHello::NoTls));
}

#[test]
fn tls_1_2_goes_on_with_its_keys() {
    let first = records(&hello(Some("a.test")), 1 << 14);
    let keys = record(HANDSHAKE, &[16, 0, 0, 33, 32, 4, 4, 4]);
    let encrypted = record(HANDSHAKE, &[1, 0, 0, 0, 3, 3, 9, 9, 9]);
    let nexts = look("a.test", &[first.clone(), keys, encrypted].concat());
    assert_eq!(nexts, Ok(vec![Next::Pass; 3]));
    // A session that goes on has no keys to send: its first is encrypted.
    let encrypted = record(HANDSHAKE, &[7; 40]);
    let nexts = look("a.test", &[first, record(CHANGE_CIPHER_SPEC, &[1]), encrypted].concat());
    assert_eq!(nexts, Ok(vec![Next::Pass; 3]));
}

#[test]
fn what_is_no_hello_is_refused() {
    assert_eq!(look("a.test", &record(23, b"data")), Err(BadHello::NoTls));
    assert_eq!(look("a.test", &record(CHANGE_CIPHER_SPEC, &[1])), Err(BadHello::NoTls));
    assert!(record_length(*b"GET /").is_err());
    assert!(record_length([22, 2, 0, 0, 9]).is_err());
    assert!(record_length([22, 3, 3, 0xff, 0xff]).is_err());
    assert_eq!(Hellos::new("a.test").record(&[22, 3]), Err(BadHello::NoTls));
    // Two names, a name of another kind first, a name that is none.
    for names in [
        vec![(0, "a.test"), (0, "b.test")],
        vec![(1, "a.test")],
        vec![(0, "a test")],
        vec![(0, "a.test\0b.test")],
        vec![(0, "")],
        vec![],
    ] {
        let sent = records(&crate::testing::hello_with(Some(&names)), 1 << 14);
        assert!(matches!(look("a.test", &sent), Err(BadHello::Unreadable(_))), "{names:?}");
    }
    // Bytes that follow it in its record, and one that has no end.
    let mut message = hello(Some("a.test"));
    message.extend(hello(Some("b.test")));
    assert!(matches!(look("a.test", &records(&message, 1 << 14)), Err(BadHello::Unreadable(_))));
    let endless = [&[1, 0, 0xff, 0xff][..], &[0; 60_000]].concat();
    let refused = look("a.test", &records(&endless, 1 << 14));
    assert!(matches!(refused, Err(BadHello::TooLong | BadHello::Unreadable(_))), "{refused:?}");
}

proptest! {
    #[test]
    fn no_record_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 20u8..25) {
        let _ = Hellos::new("a.test").record(&bytes);
        let first = records(&hello(Some("a.test")), 1 << 14);
        let mut hellos = Hellos::new("a.test");
        hellos.record(&first).unwrap();
        let _ = hellos.record(&record(kind, &bytes));
    }

    /// A byte changed anywhere never makes another name pass.
    #[test]
    fn a_changed_hello_passes_only_with_the_name(at in 5usize..200, to: u8) {
        let mut sent = records(&hello(Some("b.test")), 1 << 14);
        let at = at.min(sent.len() - 1);
        sent[at] = to;
        let passes = look("a.test", &sent).is_ok_and(|nexts| nexts.contains(&Next::Pass));
        prop_assert!(!passes || sent.windows(6).any(|w| w == b"a.test"));
    }
}
