//! How long the start of a clone waited for others.

use serde::{Deserialize, Serialize};

/// How long the start of a clone waited for its VMM and its guest, in microseconds: three waits, one after the
/// other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Waited {
    /// For the VMM to start and load: from when its process was there until it had answered the last call of
    /// that, and then for its answer to what executes the guest. Absent for a clone that was loaded before its
    /// session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmm_start_micros: Option<u64>,
    /// For the VMM's answer to the one call that lets the guest run.
    pub resume_micros: u64,
    /// For the guest: from that answer until the agent's hello was read.
    pub guest_micros: u64,
}

impl Waited {
    /// For the VMM, in microseconds.
    #[must_use]
    pub fn vmm_micros(&self) -> u64 {
        self.vmm_start_micros.unwrap_or_default().saturating_add(self.resume_micros)
    }

    /// For both, in microseconds.
    #[must_use]
    pub fn micros(&self) -> u64 {
        self.vmm_micros().saturating_add(self.guest_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_waited_is_summed_and_its_parts_may_be_as_long_as_they_like() {
        let made = Waited { vmm_start_micros: Some(900), resume_micros: 40, guest_micros: 7 };
        assert_eq!((made.vmm_micros(), made.micros()), (940, 947));
        let had_waited = Waited { vmm_start_micros: None, ..made };
        assert_eq!((had_waited.vmm_micros(), had_waited.micros()), (40, 47));
        let endless = Waited { vmm_start_micros: Some(u64::MAX), ..made };
        assert_eq!((endless.vmm_micros(), endless.micros()), (u64::MAX, u64::MAX));
    }

    #[test]
    fn a_wait_that_there_was_not_is_absent() {
        let waited = Waited { vmm_start_micros: None, resume_micros: 40, guest_micros: 7 };
        let json = serde_json::to_string(&waited).unwrap();
        assert_eq!(json, r#"{"resumeMicros":40,"guestMicros":7}"#);
        assert_eq!(serde_json::from_str::<Waited>(&json).unwrap(), waited);
    }
}
