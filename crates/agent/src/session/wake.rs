//! A clone of a frozen guest becomes a sandbox of its own: time, random numbers, address, identity; then its
//! programs go on.

use anteroom_guest_protocol::Wake;
use anyhow::{Result, bail};

use super::{Configured, Frozen, clock, identity, setup};
use crate::guest::Guest;
use crate::pid1;
use crate::report::Reporter;

/// Wakes the guest, where the host names the token that it was frozen with. A step that fails leaves the
/// programs stopped.
pub fn wake(wake: &Wake, frozen: Frozen, guest: &Guest, reporter: &Reporter) -> Result<Configured> {
    let Frozen { mut configured, programs, wake_token } = frozen;
    if wake.wake_token != wake_token {
        bail!("the host wakes another template than this guest is a clone of");
    }
    clock::set(wake.now_unix_ms)?;
    // Before anything is drawn, here too: what this process has of its own is every clone's.
    setup::credit_entropy(&wake.entropy_base64)?;
    identity::own_machine_id(guest)?;
    if let Some(services) = &mut configured.services {
        services.are_cloned(guest)?;
    }
    pid1::bring_up_network(wake.browser_ip)?;
    let states = programs.forget_randomness()?;
    programs.thaw()?;
    reporter
        .note(&format!("the programs go on; {states} states of random number generators are new"));
    Ok(configured)
}
