//! Named places where a test lets a step fail, or its process die, to see that what comes after reports
//! why and leaves nothing.
//!
//! By the crate `fail`: `FAILPOINTS="sandbox.spawn=1*return(error)"` lets the first start of a sandbox fail,
//! `1*return(kill)` has the process kill itself there as `kill -9` would. Without the feature
//! `enabled` there is nothing of it in the binary.

use std::io;

#[cfg(feature = "enabled")]
mod enabled {
    use std::io;

    use nix::sys::signal::{Signal, raise};

    /// The variable that the crate `fail` reads.
    const VARIABLE: &str = "FAILPOINTS";

    /// Keeps what the environment asks for, until dropped.
    pub struct Armed(#[expect(dead_code, reason = "held, not read")] fail::FailScenario<'static>);

    pub fn arm() -> Armed {
        Armed(fail::FailScenario::setup())
    }

    pub fn inherited() -> Option<(&'static str, std::ffi::OsString)> {
        Some((VARIABLE, std::env::var_os(VARIABLE)?))
    }

    pub fn fail_point(name: &str) -> io::Result<()> {
        let outcome = fail::eval(name, |action| {
            if action.as_deref() == Some("kill") {
                let _ = raise(Signal::SIGKILL);
            }
            Err(io::Error::other(format!("fail point {name}")))
        });
        outcome.unwrap_or(Ok(()))
    }
}

#[cfg(not(feature = "enabled"))]
mod disabled {
    use std::io;

    /// Nothing.
    pub struct Armed;

    pub const fn arm() -> Armed {
        Armed
    }

    pub const fn inherited() -> Option<(&'static str, std::ffi::OsString)> {
        None
    }

    pub const fn fail_point(_: &str) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(not(feature = "enabled"))]
use disabled as points;
#[cfg(feature = "enabled")]
use enabled as points;

pub use points::Armed;

/// Reads the environment; the points stay armed until what is returned is dropped. For `main`.
#[must_use]
pub fn arm() -> Armed {
    points::arm()
}

/// The variable that a child process needs to have the same points armed.
#[must_use]
pub fn inherited() -> Option<(&'static str, std::ffi::OsString)> {
    points::inherited()
}

/// A point named `place.step`.
///
/// # Errors
/// When a test wants the step to fail here.
pub fn fail_point(name: &str) -> io::Result<()> {
    points::fail_point(name)
}

#[cfg(all(test, feature = "enabled"))]
mod tests {
    #[test]
    fn a_point_fails_as_often_as_it_was_reported() {
        let _scenario = fail::FailScenario::setup();
        fail::cfg("a.step", "1*return(error)").expect("the action is well formed");
        assert_eq!(
            super::fail_point("a.step").expect_err("it was asked to").to_string(),
            "fail point a.step"
        );
        assert!(super::fail_point("a.step").is_ok());
        assert!(super::fail_point("another").is_ok());
    }
}
