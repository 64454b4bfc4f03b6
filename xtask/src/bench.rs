//! `cargo xtask bench`: figures, each printed as one JSON object in the last line.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::demo;

/// What to measure.
#[derive(clap::Args)]
pub struct Options {
    /// This host binary instead of the release build, which is made otherwise.
    #[arg(long, global = true, value_name = "PATH")]
    binary: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Runs the demo several times and prints medians.
    Demo {
        /// How often.
        #[arg(long, default_value_t = 5)]
        runs: usize,
    },
    /// One sign-in with a pause: frames and processor time of a desktop that nobody touches, and what
    /// the session wrote to disk.
    Idle {
        /// How long the pause is.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
    /// Sign-ins in a row with one controller: what is captured, what is left, what the controller grows.
    Cycles {
        /// How many on the host driver.
        #[arg(long, default_value_t = 100)]
        host: usize,
        /// How many in VMs.
        #[arg(long, default_value_t = 10)]
        qemu: usize,
    },
    /// More start calls at once than there are rooms, and how a session's state is answered meanwhile.
    Burst {
        /// `qemu` or `host`.
        #[arg(long, default_value = "host")]
        driver: String,
        /// How many calls.
        #[arg(long, default_value_t = 20)]
        calls: usize,
        /// For how many there is room.
        #[arg(long, default_value_t = 4)]
        rooms: usize,
        /// How often it is done.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// One long session, watched in some visits: what dies, how long the picture stands still, what grows.
    Soak(demo::SoakOptions),
    /// Planted deaths in real VMs: what Anteroom says of each.
    Explain {
        /// Only those whose name holds this.
        #[arg(long)]
        only: Option<String>,
    },
    /// Sign-ins of the real Codex, Claude Code, Gemini CLI, GitHub CLI and GitHub Copilot CLI in VMs,
    /// against stand-ins for their identity providers, and scripted ones of the demo provider.
    Logins {
        /// Only the CLIs whose provider's id holds this, and no scripted ones.
        #[arg(long)]
        only: Option<String>,
        /// How many scripted ones on the host driver.
        #[arg(long, default_value_t = 100)]
        host: usize,
        /// How many scripted ones in VMs.
        #[arg(long, default_value_t = 5)]
        qemu: usize,
    },
    /// Sign-ins of the real Codex and Claude Code that something goes wrong with, and one of the demo's
    /// that leads over a company's own host: what the person is told.
    Troubles {
        /// Only those whose CLI and name hold this, such as `codex 500`.
        #[arg(long)]
        only: Option<String>,
    },
    /// Attacks on what guards a sign-in, each made for real: how many were refused.
    Doors {
        /// Only the doors whose name holds this.
        #[arg(long)]
        only: Option<String>,
    },
    /// How long a start call takes while many connections ask for `/health`, against how long without.
    Health {
        /// How many connections.
        #[arg(long, default_value_t = 1000)]
        connections: usize,
        /// How often each way is measured, in turns.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Starts in each.
        #[arg(long, default_value_t = 60)]
        starts: usize,
    },
    /// Boots VMs one after the other while every core is busy; a boot that does not reach the agent
    /// counts as a hang.
    Boots {
        /// How many.
        #[arg(long, default_value_t = 20)]
        boots: usize,
    },
}

/// Measures.
pub fn run(options: &Options) -> Result<()> {
    let given = options.binary.as_ref().map(|path| {
        path.canonicalize().with_context(|| format!("there is no host binary {}", path.display()))
    });
    let anteroom = &demo::prepare_bench(given.transpose()?)?;
    match &options.what {
        What::Demo { runs } => demo::bench(anteroom, *runs),
        What::Idle { seconds } => demo::bench_idle(anteroom, *seconds),
        What::Cycles { host, qemu } => demo::bench_cycles(anteroom, *host, *qemu),
        What::Burst { driver, calls, rooms, rounds } => {
            demo::bench_burst(anteroom, driver, *calls, *rooms, *rounds)
        }
        What::Explain { only } => demo::bench_explain(anteroom, only.as_deref()),
        What::Logins { only, host, qemu } => {
            demo::bench_logins(anteroom, only.as_deref(), *host, *qemu)
        }
        What::Troubles { only } => demo::bench_troubles(anteroom, only.as_deref()),
        What::Doors { only } => demo::bench_doors(anteroom, only.as_deref()),
        What::Health { connections, rounds, starts } => {
            demo::bench_health(anteroom, *connections, *rounds, *starts)
        }
        What::Soak(options) => demo::bench_soak(anteroom, options),
        What::Boots { boots } => demo::bench_boots(anteroom, *boots),
    }
}
