//! What programs in the guest say to the proxy: whatever it is, nothing is reached that the list
//! does not allow.

use std::io;
use std::net::SocketAddr;

use anteroom_egress::{Gate, Policy, Resolve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A resolver of which only allowed names are ever asked.
struct OnlyAllowed;

impl Resolve for OnlyAllowed {
    async fn resolve(&self, host: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        assert_eq!(host, "allowed.test", "a name was resolved that is not on the list");
        Err(io::Error::other("there is no network here"))
    }
}

/// Panics where the reader does not hold what is written above.
pub fn run(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let policy = Policy::new(&["allowed.test".to_owned()], &[]).unwrap();
        let gate = Gate::new(policy, OnlyAllowed);
        let (mut guest, host) = tokio::io::duplex(64 * 1024);
        let served = gate.serve(host, |_| ());
        let spoken = async {
            let _ = guest.write_all(bytes).await;
            let _ = guest.shutdown().await;
            let mut answer = Vec::new();
            let _ = guest.read_to_end(&mut answer).await;
        };
        let (record, ()) = tokio::join!(served, spoken);
        assert!(record.address.is_none());
    });
}
