//! Hosts of the sign-in that could not be reached: the end user is notified, who would otherwise wait
//! for a page or a tool that waits.

use std::collections::BTreeSet;

use anteroom_session::{EgressVerdict, Observation};

/// How many reports there are of such hosts.
const MAX_REPORTED: usize = 16;

/// The hosts that the end user was notified of.
#[derive(Default)]
pub struct Unreached {
    hosts: BTreeSet<String>,
    reported: usize,
}

impl Unreached {
    /// What there is to report when a connection to this host came to this verdict.
    pub fn news(
        &mut self,
        host: &str,
        verdict: EgressVerdict,
        cause: Option<&str>,
    ) -> Option<Observation> {
        if self.reported == MAX_REPORTED {
            return None;
        }
        let host = host.to_owned();
        let news = match verdict {
            EgressVerdict::Failed if self.hosts.insert(host.clone()) => {
                let cause = cause.unwrap_or("the cause is not known").to_owned();
                Observation::HostUnreachable { host, cause }
            }
            EgressVerdict::Allowed if self.hosts.remove(&host) => Observation::HostReached { host },
            _ => return None,
        };
        self.reported += 1;
        Some(news)
    }
}

#[cfg(test)]
mod tests {
    use EgressVerdict::{Allowed, Failed, RefusedByPolicy};

    use super::*;

    #[test]
    fn a_host_is_reported_once_until_it_is_reached_and_not_endlessly_many_are() {
        let mut unreached = Unreached::default();
        let reported = unreached.news("a.test", Failed, Some("connecting failed"));
        let (host, cause) = ("a.test".to_owned(), "connecting failed".to_owned());
        assert_eq!(reported, Some(Observation::HostUnreachable { host: host.clone(), cause }));
        assert_eq!(unreached.news("a.test", Failed, None), None);
        assert_eq!(unreached.news("b.test", Allowed, None), None);
        assert_eq!(unreached.news("b.test", RefusedByPolicy, None), None);
        assert_eq!(
            unreached.news("a.test", Allowed, None),
            Some(Observation::HostReached { host })
        );
        let news = (0..100).filter_map(|n| unreached.news(&format!("{n}.test"), Failed, None));
        assert_eq!(news.count(), MAX_REPORTED - 2);
    }
}
