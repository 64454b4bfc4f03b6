//! `cargo xtask bench`: figures, each printed as one JSON object in the last line.

use std::path::PathBuf;

use anyhow::{Context, Result};
use xtask::{build, machine, shell};

use crate::{
    boots, clones, cycles, demo, doors, explain, health, idle, logins, soak, start, stream,
};

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
    /// More start calls at once than there are sandboxes, and how a session's state is answered meanwhile.
    Burst {
        /// `qemu` or `host`.
        #[arg(long, default_value = "host")]
        driver: String,
        /// How many calls.
        #[arg(long, default_value_t = 20)]
        calls: usize,
        /// How many run at once.
        #[arg(long, default_value_t = 4)]
        sandboxes: usize,
        /// How many times to repeat it.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// One long session, watched in several visits: what dies, how long the picture freezes, what grows.
    Soak(soak::Options),
    /// Injected faults in real VMs, and how Anteroom explains each death.
    Explain(explain::Options),
    /// Sign-ins of the real Codex, Claude Code, Gemini CLI, GitHub CLI and GitHub Copilot CLI in VMs,
    /// against mock identity providers, and scripted ones of the demo provider.
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
    /// Sign-ins of the real Codex, Claude Code and Gemini CLI in which something goes wrong, and one of the
    /// demo that leads over a company's own host: what is reported to the end user.
    #[command(alias = "troubles")]
    FailureScenarios {
        /// Only those whose CLI and name hold this, such as `codex 500`.
        #[arg(long)]
        only: Option<String>,
    },
    /// Real attacks on each part that guards a sign-in: how many were refused.
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
    /// From the start call to a picture: cold, and from a template of `anteroom image snapshot`.
    Start(start::Options),
    /// The stream: from a key to its picture, beside the same page in the measuring browser itself; frames,
    /// bytes and processor time of rest (with a caret that blinks), typing, scrolling and animation.
    Stream(stream::Options),
    /// Whether clones of one template ever draw the same random value.
    Clones(clones::Options),
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
    let anteroom = &prepare(given.transpose()?)?;
    match &options.what {
        What::Demo { runs } => demo::bench(anteroom, *runs),
        What::Idle { seconds } => idle::bench(anteroom, *seconds),
        What::Cycles { host, qemu } => cycles::bench(anteroom, *host, *qemu),
        What::Burst { driver, calls, sandboxes, rounds } => {
            say(cycles::burst(anteroom, driver, *calls, *sandboxes, *rounds)?)
        }
        What::Explain(options) => explain::run(anteroom, options),
        What::Logins { only, host, qemu } => logins::run(anteroom, only.as_deref(), *host, *qemu),
        What::FailureScenarios { only } => logins::run_failure_scenarios(anteroom, only.as_deref()),
        What::Doors { only } => doors::run(anteroom, only.as_deref()),
        What::Health { connections, rounds, starts } => {
            say(health::bench(anteroom, *connections, *rounds, *starts)?)
        }
        What::Soak(options) => say(soak::run(anteroom, options)?),
        What::Start(options) => start::bench(anteroom, options),
        What::Stream(options) => say(stream::bench(anteroom, options)?),
        What::Clones(options) => clones::bench(anteroom, options),
        What::Boots { boots } => boots::bench(anteroom, *boots),
    }
}

fn say(figures: serde_json::Value) -> Result<()> {
    println!("{figures}");
    Ok(())
}

/// Prepares the machine; the host binary is `given`, or built as users have it.
fn prepare(given: Option<PathBuf>) -> Result<PathBuf> {
    machine::prepare()?;
    let anteroom = given.map_or_else(build::for_users, Ok)?;
    build::golden_image(&anteroom, true)?;
    build::install_node_packages(&shell::root().join("demo"))?;
    Ok(anteroom)
}
