//! Random bytes of the kernel. A generator in this process would go on alike in every clone of its guest.

use anyhow::{Context, Result};
use rand::TryRng;
use rand::rngs::SysRng;

/// Fresh ones.
pub fn drawn<const BYTES: usize>() -> Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    SysRng.try_fill_bytes(&mut bytes).context("drawing random bytes failed")?;
    Ok(bytes)
}
