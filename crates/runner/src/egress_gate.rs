//! The egress gate of a session, as the provider file describes it.

use anteroom_egress::{Gate, Mapping, Policy, SystemResolver};
use anteroom_fail_point::fail_point;
use anteroom_provider::{Egress, NameMapping};
use anteroom_session::{EndReason, SetupStep};

use super::config::RunnerConfig;

/// The gate of a session.
pub type SessionGate = Gate<SystemResolver>;

/// The names that a provider file leads to addresses.
pub fn mappings(egress: &Egress) -> Vec<Mapping> {
    let one = |map: &NameMapping| Mapping { host: map.host.clone(), port: map.port, to: map.to };
    egress.map.iter().map(one).collect()
}

/// The egress gate that the provider file describes.
///
/// # Errors
/// When a name or an address of its list is not valid, which a parsed provider's are.
pub fn gate(config: &RunnerConfig) -> Result<SessionGate, EndReason> {
    let failed =
        |cause: String| EndReason::SessionSetupFailed { step: SetupStep::OpenEgressGate, cause };
    fail_point("runner.egress_gate").map_err(|error| failed(error.to_string()))?;
    let egress = &config.sign_in.provider.egress;
    let policy = match config.sign_in.learns {
        true => Policy::learning(&mappings(egress)),
        false => Policy::new(&egress.allow, &mappings(egress)),
    };
    let policy = policy.map_err(|error| failed(error.to_string()))?;
    // Those that the operator advertises are this machine's, also behind a router.
    let own = config.candidates.iter().map(|address| address.ip()).collect();
    Ok(Gate::new(policy, SystemResolver { own }))
}
