//! The messages between the node and a session's runner process: JSON, one message a line,
//! over a Unix stream socket that the runner inherits as a file descriptor; the viewers' media goes
//! beside it over a Unix socket pair that keeps packets apart ([`datagram`]).
//!
//! The runner parses what a hostile guest sends, so the node reads its lines with a bound
//! ([`MAX_LINE`]) and a strict schema too.

pub mod lines;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anteroom_guest_session::SandboxConfig;
pub use anteroom_node_protocol::{MediaTotals, SignInConfig};
use anteroom_session::{
    AccessGrant, CodeTaken, HolderGeneration, HostPort, Observation, SessionId, VmmFailure,
};
use anteroom_vm::SandboxName;
use serde::{Deserialize, Serialize};

/// The longest line either side takes, in bytes: an injected file of 1 MiB in base64, with a margin.
pub const MAX_LINE: usize = 24 * 1024 * 1024;

/// The longest line the node takes from a runner, in bytes: a screenshot in base64.
pub const MAX_RUNNER_LINE: usize = 16 * 1024 * 1024;

/// Environment variable: number of the inherited control socket (Unix stream).
pub const CONTROL_FD_ENV: &str = "ANTEROOM_CONTROL_FD";
/// Environment variable: number of the inherited media socket (Unix, SOCK_SEQPACKET).
pub const MEDIA_FD_ENV: &str = "ANTEROOM_MEDIA_FD";
/// Environment variable: number of the inherited socket (Unix stream) that the node opens
/// channels on, multiplexed like the guest link: each begins with the kind
/// `Terminal` (to the viewer what draws the CLI's
/// terminal, from them what they type) or `Vnc` (RFB).
pub const CHANNELS_FD_ENV: &str = "ANTEROOM_CHANNELS_FD";

/// Environment variable, where the sandbox is a VM: number of the inherited file with its image's root file system.
pub const IMAGE_ROOT_FD_ENV: &str = "ANTEROOM_IMAGE_ROOT_FD";
/// Environment variable, likewise: number of the one with the image's kernel.
pub const IMAGE_KERNEL_FD_ENV: &str = "ANTEROOM_IMAGE_KERNEL_FD";
/// Environment variable, likewise: number of the one with the initramfs of the image's kernel modules.
pub const IMAGE_MODULES_FD_ENV: &str = "ANTEROOM_IMAGE_MODULES_FD";

/// Environment variable, where the sandbox is a clone of a template: number of the inherited file with guest
/// memory, sealed.
pub const TEMPLATE_MEMORY_FD_ENV: &str = "ANTEROOM_TEMPLATE_MEMORY_FD";
/// Environment variable, likewise: number of the one with the state of processors and devices.
pub const TEMPLATE_STATE_FD_ENV: &str = "ANTEROOM_TEMPLATE_STATE_FD";

/// First line from the node: what boots. It names nothing of a sign-in, so that a sandbox can be there before
/// its session is; what follows are [`RunnerCommand`]s.
pub type FirstLine = SandboxConfig;

/// The session that a sandbox is for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionConfig {
    /// Who signs in to what.
    pub sign_in: SignInConfig,
    /// Addresses of the media demultiplexer that viewers can reach.
    pub candidates: Vec<SocketAddr>,
}

/// What the sandbox of a session is called that has one of its own.
///
/// # Panics
/// Never: an id is hexadecimal digits and hyphens.
#[must_use]
pub fn sandbox_name(session: SessionId) -> SandboxName {
    session.to_string().parse().expect("a session's id names a sandbox")
}

/// Node → runner, after the first line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum RunnerCommand {
    /// The session begins, for which the sandbox waited: once.
    Begin(Box<SessionConfig>),
    /// A viewer's WebRTC offer; answered by [`RunnerMessage::OfferAnswered`].
    Offer {
        /// Chosen by the node.
        request: u64,
        /// At most 64 KiB.
        sdp: String,
        /// Whose it is.
        viewer: AccessGrant,
    },
    /// Links before this one are revoked: their viewer is sent away, and gets no offer answered.
    RevokeBefore {
        /// The oldest that is good.
        oldest: HolderGeneration,
    },
    /// The right by which an offer was made has ended: its viewer is sent away.
    Dismiss {
        /// As the offer was answered.
        ice_ufrag: String,
    },
    /// Take a screenshot of the desktop; answered by [`RunnerMessage::Screenshot`].
    Screenshot {
        /// Chosen by the node.
        request: u64,
    },
    /// The end user has arrived: start the CLI, which waited for them.
    StartTool {},
    /// Make the guest's browser show the sign-in page (again).
    OpenSignInPage {},
    /// The end user's code, to be typed into the CLI's terminal; answered by
    /// [`RunnerMessage::CodeAnswered`].
    EnterCode {
        /// Chosen by the node.
        request: u64,
        /// As the end user gave it.
        code: String,
    },
    /// The operator allows a host that was refused; answered by [`RunnerMessage::HostAnswered`].
    AllowHost {
        /// Chosen by the node.
        request: u64,
        /// As the operator wrote it.
        host: String,
    },
    /// The sealed credential is durable: the guest may forget it and power off.
    AcknowledgeCredential {},
    /// End: kill the VM, remove what was made, exit. The end of the control socket means the same.
    Shutdown {},
}

/// How often a runner says that it is alive.
pub const ALIVE_EVERY: std::time::Duration = std::time::Duration::from_secs(5);

/// Runner → node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum RunnerMessage {
    /// Every [`ALIVE_EVERY`], and at the end: a runner that is stopped or stuck is known by its silence.
    Alive {
        /// What its media did so far.
        media: MediaTotals,
    },
    /// Something happened, just now: the controller gives it its time.
    Observed {
        /// What was observed.
        observation: Observation,
    },
    /// How often parts of its VMM failed, by the VMM's own account: once, when that has ended.
    VmmFailed {
        /// How often each did; never nought.
        failures: BTreeMap<VmmFailure, u64>,
    },
    /// Answer to an offer.
    OfferAnswered {
        /// Of the command.
        request: u64,
        /// SDP and the ICE user fragment that the demultiplexer routes by, or a sentence.
        result: Result<OfferAnswer, String>,
    },
    /// Answer to a code.
    CodeAnswered {
        /// Of the command.
        request: u64,
        /// What becomes of it, or a sentence why it is not taken.
        result: Result<CodeTaken, String>,
    },
    /// Answer to a host that is to be allowed.
    HostAnswered {
        /// Of the command.
        request: u64,
        /// What is let out from now on, or a sentence why it is not.
        result: Result<HostPort, String>,
    },
    /// Answer to a screenshot request.
    Screenshot {
        /// Of the command.
        request: u64,
        /// PNG in base64, or a sentence.
        result: Result<String, String>,
    },
}

/// What a viewer gets back.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfferAnswer {
    /// The SDP answer.
    pub sdp: String,
    /// The ICE user fragment of our side.
    pub ice_ufrag: String,
}

/// A viewer's datagram between demultiplexer and runner: 1 byte family (4 or 6), 16 bytes the viewer's
/// address (IPv4 in the first four), 2 bytes port big-endian, then the datagram as it came or is to go.
/// An address alone, from the runner: a request from there was authentic, and more may go there.
pub mod datagram {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

    /// Bytes before the payload.
    pub const HEADER_LEN: usize = 19;
    /// The longest datagram carried, header included, in bytes.
    pub const MAX_LEN: usize = HEADER_LEN + 2048;

    /// Header and payload of a datagram from or to a viewer.
    #[must_use]
    pub fn encode(viewer: SocketAddr, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
        match viewer.ip() {
            IpAddr::V4(v4) => {
                bytes.push(4);
                bytes.extend(v4.octets());
                bytes.extend([0; 12]);
            }
            IpAddr::V6(v6) => {
                bytes.push(6);
                bytes.extend(v6.octets());
            }
        }
        bytes.extend(viewer.port().to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    /// The viewer's address and the payload; `None` when the bytes are too short or of no known family.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<(SocketAddr, &[u8])> {
        let (header, payload) = bytes.split_at_checked(HEADER_LEN)?;
        let port = u16::from_be_bytes([header[17], header[18]]);
        let ip = match header[0] {
            4 => IpAddr::V4(Ipv4Addr::new(header[1], header[2], header[3], header[4])),
            6 => {
                let mut octets = [0; 16];
                octets.copy_from_slice(&header[1..17]);
                IpAddr::V6(Ipv6Addr::from(octets))
            }
            _ => return None,
        };
        Some((SocketAddr::new(ip, port), payload))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn addresses_survive() {
            for from in ["127.0.0.1:5004", "[2001:db8::1]:9"] {
                let from: SocketAddr = from.parse().unwrap();
                assert_eq!(decode(&encode(from, b"abc")), Some((from, &b"abc"[..])));
            }
            assert_eq!(decode(&[4; 18]), None);
            assert_eq!(decode(&[9; 30]), None);
        }
    }
}
