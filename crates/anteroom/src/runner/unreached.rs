//! Hosts of the sign-in that could not be reached: a person is told, who would else wait for a page or a
//! tool that waits.

use std::collections::BTreeSet;

use anteroom_terminal::Act;

/// Hosts that are told of.
const MAX_TOLD: usize = 8;

/// The hosts that the person was told of.
#[derive(Default)]
pub struct Unreached(BTreeSet<String>);

impl Unreached {
    /// What there is to say of this one; once for each.
    pub fn tell(&mut self, host: &str, cause: Option<&str>) -> Option<Act> {
        if self.0.len() >= MAX_TOLD || !self.0.insert(host.to_owned()) {
            return None;
        }
        let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
        Some(Act::Say(format!(
            "The room cannot reach {host}{cause}. If the sign-in does not go on, start it again in some \
             minutes."
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_is_told_once_and_not_endlessly_many() {
        let mut unreached = Unreached::default();
        let told = unreached.tell("a.test", Some("connecting failed"));
        assert!(
            matches!(told, Some(Act::Say(says)) if says.contains("a.test (connecting failed)"))
        );
        assert_eq!(unreached.tell("a.test", None), None);
        let told = (0..100).filter(|n| unreached.tell(&format!("{n}.test"), None).is_some());
        assert_eq!(told.count(), MAX_TOLD - 1);
    }
}
