//! How `serve` is reached: addresses that lead nowhere are refused, those that lead less far or more
//! openly than is most likely meant are reported.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};
use url::{Host, Url};

/// The page that has the whole set-up.
const PAGE: &str = "docs/operate/tls-proxy.md";

/// The addresses that `serve` was given.
pub struct Reach<'a> {
    pub listen: SocketAddr,
    pub media_listen: SocketAddr,
    pub advertise: &'a [SocketAddr],
    pub public_url: Option<&'a str>,
    pub trusted_proxies: &'a [IpAddr],
}

impl Reach<'_> {
    /// Warnings, or why this cannot work.
    pub fn check(&self) -> Result<Vec<String>> {
        if self.public_url.is_none() && self.listen.ip().is_unspecified() {
            bail!(
                "links cannot point to a wildcard address ({}); set --public-url to the address that browsers use, see {PAGE}",
                self.listen
            );
        }
        if self.advertise.is_empty() && self.media_listen.ip().is_unspecified() {
            bail!(
                "viewers cannot send to a wildcard address ({}); set --advertise-address to the one that they reach, see {PAGE}",
                self.media_listen
            );
        }
        Ok([
            self.in_clear(),
            self.around_the_proxy(),
            self.as_one_address(),
            self.without_a_picture(),
        ]
        .into_iter()
        .flatten()
        .collect())
    }

    fn in_clear(&self) -> Option<String> {
        let url = self.public_url.map_or_else(|| format!("http://{}", self.listen), str::to_owned);
        (url.starts_with("http://") && !self.is_local()).then(|| {
            format!(
                "API keys and viewer cookies travel unencrypted to {url}; put a TLS proxy in front and start with --public-url https://…, see {PAGE}"
            )
        })
    }

    fn as_one_address(&self) -> Option<String> {
        (self.has_proxy() && self.trusted_proxies.is_empty()).then(|| {
            format!(
                "all clients of the TLS proxy share one address's limit of connections; set --trusted-proxy to the address that the proxy connects from, see {PAGE}"
            )
        })
    }

    fn has_proxy(&self) -> bool {
        self.public_url.is_some_and(|url| url.starts_with("https://"))
    }

    fn around_the_proxy(&self) -> Option<String> {
        (self.has_proxy() && !self.listen.ip().is_loopback()).then(|| {
            format!(
                "{} also accepts unencrypted requests; let only the TLS proxy reach it, or --listen on 127.0.0.1",
                self.listen
            )
        })
    }

    fn without_a_picture(&self) -> Option<String> {
        let listen = [self.media_listen];
        let offered = if self.advertise.is_empty() { &listen[..] } else { self.advertise };
        (!self.is_local() && offered.iter().all(|address| address.ip().is_loopback())).then(|| {
            format!(
                "viewers on other machines will get no picture: media is only reachable on this machine ({}); see --media-listen and --advertise-address in {PAGE}",
                offered[0].ip()
            )
        })
    }

    /// Whether only browsers on this machine are meant.
    fn is_local(&self) -> bool {
        let Some(url) = self.public_url else { return self.listen.ip().is_loopback() };
        match Url::parse(url).ok().as_ref().and_then(Url::host) {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        }
    }
}

/// An address that somebody can send to.
pub fn reachable(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "it must be an IP address and a port, such as 203.0.113.7:7071")?;
    if is_nowhere(address.ip()) || address.port() == 0 {
        return Err(
            "viewers cannot send to it; it must be an address and port that they can reach".into(),
        );
    }
    Ok(address)
}

fn is_nowhere(ip: IpAddr) -> bool {
    ip.is_unspecified() || ip.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        listen: &str,
        media: &str,
        advertise: &[&str],
        public_url: Option<&str>,
    ) -> Result<Vec<String>> {
        let advertise: Vec<SocketAddr> = advertise.iter().map(|a| a.parse().unwrap()).collect();
        let (listen, media_listen) = (listen.parse().unwrap(), media.parse().unwrap());
        let trusted_proxies = &[IpAddr::from([127, 0, 0, 1])];
        Reach { listen, media_listen, advertise: &advertise, public_url, trusted_proxies }.check()
    }

    #[test]
    fn on_one_machine_or_behind_a_proxy_there_is_nothing_to_say() {
        for (media, advertise, url) in [
            ("127.0.0.1:0", &[][..], None),
            ("127.0.0.1:0", &[], Some("http://localhost:7070")),
            ("0.0.0.0:7071", &["203.0.113.7:7071"], Some("https://signin.example.com")),
            ("192.0.2.7:7071", &[], Some("https://signin.example.com")),
        ] {
            let said = check("127.0.0.1:7070", media, advertise, url).unwrap();
            assert!(said.is_empty(), "{said:?}");
        }
    }

    #[test]
    fn all_addresses_are_none_to_lead_to() {
        let error = check("0.0.0.0:7070", "127.0.0.1:0", &[], None).unwrap_err().to_string();
        assert!(error.contains("--public-url"), "{error}");
        let error = check("127.0.0.1:7070", "[::]:7071", &[], None).unwrap_err().to_string();
        assert!(error.contains("--advertise-address"), "{error}");
    }

    #[test]
    fn what_is_open_or_leads_not_far_is_reported() {
        let reported = |listen, media, url, part: &str| {
            let said = check(listen, media, &[], url).unwrap();
            assert!(said.len() == 1 && said[0].contains(part), "{said:?}");
        };
        let (here, there) = ("127.0.0.1:7070", "192.0.2.7:7070");
        let https = Some("https://signin.example.com");
        reported(there, "192.0.2.7:7071", None, "unencrypted to http://192.0.2.7:7070");
        reported(here, "192.0.2.7:7071", Some("http://signin.example.com"), "unencrypted to");
        reported(there, "192.0.2.7:7071", https, "let only the TLS proxy");
        reported(here, "127.0.0.1:0", https, "no picture");
    }

    #[test]
    fn an_unnamed_proxy_is_reported() {
        let (listen, media_listen) =
            ("127.0.0.1:7070".parse().unwrap(), "192.0.2.7:7071".parse().unwrap());
        let public_url = Some("https://signin.example.com");
        let reach =
            Reach { listen, media_listen, advertise: &[], public_url, trusted_proxies: &[] };
        let said = reach.check().unwrap();
        assert!(said.len() == 1 && said[0].contains("--trusted-proxy"), "{said:?}");
    }

    #[test]
    fn an_advertised_address_can_be_sent_to() {
        assert_eq!(reachable("[2001:db8::7]:7071").unwrap().port(), 7071);
        for odd in ["203.0.113.7", "signin.example.com:7071", "0.0.0.0:7071", "203.0.113.7:0", ""] {
            assert!(reachable(odd).is_err(), "{odd}");
        }
    }
}
