use super::*;

fn needed(sso: Sso) -> Needed {
    Needed {
        provider: "tool".to_owned(),
        sso,
        operator: "Ada".to_owned(),
        refused: VecDeque::new(),
        needed: BTreeSet::new(),
        title: String::new(),
    }
}

fn contact(host: &str, verdict: EgressVerdict) -> Contact {
    contact_at(host, 443, verdict)
}

fn contact_at(host: &str, port: u16, verdict: EgressVerdict) -> Contact {
    Contact {
        host: host.to_owned(),
        port,
        verdict,
        connections: 1,
        bytes_up: 0,
        bytes_down: 0,
        detail: None,
    }
}

#[test]
fn the_page_s_own_host_is_reported_and_what_it_loads_is_not() {
    let refused = contact("acme.okta.example", EgressVerdict::RefusedByPolicy);
    let other = contact("ads.example", EgressVerdict::RefusedByPolicy);
    // Whichever of the two comes first.
    for title_first in [true, false] {
        let mut needed = needed(Sso::Refuse);
        assert_eq!(needed.contacted(&other), []);
        let title = "acme.okta.example - Chromium";
        let mut reported = if title_first { needed.titled(title) } else { Vec::new() };
        reported.extend(needed.contacted(&refused));
        reported.extend(needed.titled(title));
        let (host, provider) = ("acme.okta.example".to_owned(), "tool".to_owned());
        assert_eq!(reported[0], Observation::HostNeeded { host, provider, remedy: Remedy::List });
        let Observation::EndUserNotified { says } = &reported[1] else { panic!("{reported:?}") };
        assert!(says.contains("acme.okta.example") && says.contains("another way"), "{says}");
        assert!(says.contains("ask Ada"), "{says}");
        assert_eq!(reported.len(), 2, "reported once: {reported:?}");
    }
    let mut needed = needed(Sso::Refuse);
    assert_eq!(needed.contacted(&contact("a.example", EgressVerdict::Failed)), []);
    assert_eq!(needed.titled("a.example"), []);
}

#[test]
fn only_a_refused_host_of_the_internet_is_allowed_and_only_where_it_is_asked_for() {
    let refused = |host: &str| contact(host, EgressVerdict::RefusedByPolicy);
    let mut refuses = needed(Sso::Refuse);
    refuses.contacted(&refused("acme.okta.example"));
    assert!(refuses.allow("acme.okta.example").unwrap_err().contains("sso = \"ask\""));
    let mut asks = needed(Sso::Ask);
    for host in ["acme.okta.example", "10.0.0.1", "metadata.google.internal", "[::1]"] {
        asks.contacted(&refused(host));
    }
    for host in ["other.example", "10.0.0.1", "metadata.google.internal", "[::1]", "a b"] {
        assert!(asks.allow(host).is_err(), "{host}");
    }
    let host = "acme.okta.example".to_owned();
    let (allowed, _) = asks.allow("ACME.okta.example").unwrap();
    assert_eq!(allowed.to_string(), host);
}

#[test]
fn a_host_is_reported_and_allowed_with_its_port() {
    let mut asks = needed(Sso::Ask);
    asks.titled("acme.okta.example - Chromium");
    let refused = || contact_at("acme.okta.example", 8443, EgressVerdict::RefusedByPolicy);
    let reported = asks.contacted(&refused());
    let (host, provider) = ("acme.okta.example:8443".to_owned(), "tool".to_owned());
    let needed =
        Observation::HostNeeded { host: host.clone(), provider, remedy: Remedy::ListOrAllow };
    assert_eq!(reported[0], needed);
    let error = asks.allow("acme.okta.example").unwrap_err();
    assert!(error.contains("refused acme.okta.example:8443"), "{error}");
    let (allowed, reported) = asks.allow(&host).unwrap();
    assert_eq!(allowed.to_string(), host);
    let Observation::EndUserNotified { says } = &reported else { panic!("{reported:?}") };
    assert!(says.contains(":8443 is now allowed") && !says.contains("can reach"), "{says}");
    // The address that the name resolves to shows only now.
    let inside = contact_at("acme.okta.example", 8443, EgressVerdict::RefusedAddress);
    let reported = asks.contacted(&inside);
    assert!(
        matches!(reported[0], Observation::HostNeeded { remedy: Remedy::Map, .. }),
        "{reported:?}"
    );
    let error = asks.allow("acme.okta.example:8443").unwrap_err();
    assert!(error.contains("is allowed") && error.contains("[[egress.map]]"), "{error}");
}

#[test]
fn what_no_list_leads_to_is_reported_as_what_it_is() {
    for (host, remedy, reason) in [
        ("[2001:db8::1]", Remedy::NameAndMap, "is an address"),
        ("10.0.0.5", Remedy::NameAndMap, "is an address"),
        ("adfs.corp.local", Remedy::ListAndMap, "a private network"),
    ] {
        let mut asks = needed(Sso::Ask);
        asks.titled(&format!("{host} - Chromium"));
        let reported = asks.contacted(&contact(host, EgressVerdict::RefusedByPolicy));
        let (host, provider) = (host.to_owned(), "tool".to_owned());
        assert_eq!(reported[0], Observation::HostNeeded { host: host.clone(), provider, remedy });
        let Observation::EndUserNotified { says } = &reported[1] else { panic!("{reported:?}") };
        assert!(says.contains(reason) && !says.contains("while you wait"), "{says}");
        let error = asks.allow(&host).unwrap_err();
        assert!(error.contains(reason) && error.contains("[[egress.map]]"), "{error}");
    }
}

#[test]
fn of_very_many_refused_hosts_the_last_are_allowed() {
    let mut asks = needed(Sso::Ask);
    for n in 0..=MAX_REFUSED {
        asks.contacted(&contact(&format!("{n}.example"), EgressVerdict::RefusedByPolicy));
    }
    let error = asks.allow("0.example").unwrap_err();
    assert!(error.contains("the last 128"), "{error}");
    assert!(asks.allow(&format!("{MAX_REFUSED}.example")).is_ok());
}
