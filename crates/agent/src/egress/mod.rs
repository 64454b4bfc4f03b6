//! The guest's way out. Every connection is carried to the host, which parses, decides and records;
//! nothing is decided here: a guest cannot be trusted to.
//!
//! Programs that know proxies use [`proxy`]. For those that do not, in a guest every address is the
//! guest's own ([`routes`]): names resolve to placeholders ([`names`]), what connects to one is
//! accepted by [`transparent`], and whatever else is tried is refused by the kernel and seen by
//! [`blocked`].

mod blocked;
mod names;
mod proxy;
mod routes;
mod transparent;
mod way_out;

pub use proxy::start as start_proxy;
pub use way_out::WayOut;

use anyhow::Result;

use crate::report::Reporter;

/// Takes in what does not use the proxy; `ports` are those that are carried to the host.
pub async fn take_the_rest(way_out: &WayOut, reporter: &Reporter, ports: &[u16]) -> Result<()> {
    let names = names::Names::default();
    routes::make_every_address_ours()?;
    names::serve(names.clone()).await?;
    transparent::serve(way_out, reporter, &names, ports)?;
    blocked::report(reporter, names, ports)
}
