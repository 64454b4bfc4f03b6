//! What the sessions that run take of this machine's memory, and what that says of those to come.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anteroom_confine::SessionUser;
use anteroom_node_protocol::{Demand, Pages, SessionMemory};
use anteroom_runner_protocol::sandbox_name;
use anteroom_session::SessionId;
use anteroom_vm::{SandboxIdentity, SandboxName, processes_of};

use super::demand::Demands;
use super::pages::{self, Maps};
use super::settings::DriverChoice;

/// What was measured. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Measuring(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    demands: Demands,
    started: HashMap<SessionId, (Started, Usage)>,
}

/// A session that was started.
#[derive(Clone, Debug)]
pub struct Started {
    /// Who its processes run as.
    pub user: Option<SessionUser>,
    /// The template that it is a clone of.
    pub template: Option<String>,
}

/// What a session that ends says of those to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Usage {
    /// Nothing: nobody could use its desktop yet.
    None,
    /// Nothing yet: its sign-in page is open, and it was not measured since.
    Begun,
    /// What sessions of its kind take.
    Measured,
}

/// A session whose runner runs.
#[derive(Clone, Copy, Debug)]
pub struct RunningSession {
    pub session: SessionId,
    /// It hides its environment, by which it would be found.
    pub runner: i32,
}

impl Measuring {
    /// Nobody was measured yet.
    pub fn of(driver: &DriverChoice) -> Self {
        let (demands, started) = (Demands::of(driver), HashMap::new());
        Self(Arc::new(Mutex::new(State { demands, started })))
    }

    /// What a session will take whose VM is booted, or is a clone of this template.
    pub fn demand(&self, template: Option<&str>) -> Demand {
        self.with(|state| state.demands.of_session(template))
    }

    /// A session was started.
    pub fn started(&self, session: SessionId, started: Started) {
        self.with(|state| state.started.insert(session, (started, Usage::None)));
    }

    /// Its sign-in page is open: from now on it takes what a session takes.
    pub fn is_used(&self, session: SessionId) {
        self.with(|state| match state.started.get_mut(&session) {
            Some((_, usage @ Usage::None)) => *usage = Usage::Begun,
            Some((_, Usage::Begun | Usage::Measured)) | None => {}
        });
    }

    /// A session has ended.
    pub fn ended(&self, session: SessionId) {
        self.with(|state| {
            if let Some((Started { template: Some(template), .. }, Usage::Measured)) =
                state.started.remove(&session)
            {
                state.demands.used(&template);
            }
        });
    }

    /// Measures these sessions. It looks at every process of the machine.
    pub fn measure(&self, running: &[RunningSession]) -> Vec<SessionMemory> {
        if running.is_empty() {
            return Vec::new();
        }
        let known = self.with(|state| state.started.clone());
        let running: Vec<(RunningSession, &Started, SandboxName)> = running
            .iter()
            .filter_map(|of| Some((*of, &known.get(&of.session)?.0, sandbox_name(of.session))))
            .collect();
        let identities: Vec<SandboxIdentity<'_>> = running
            .iter()
            .map(|(_, started, name)| SandboxIdentity { name, user: started.user })
            .collect();
        let found = processes_of(&identities);
        let measured = running.into_iter().zip(found).map(|((of, started, _), mut pids)| {
            if !pids.contains(&of.runner) {
                pids.push(of.runner);
            }
            let maps = started.template.as_ref().map_or(Maps::Own, |_| Maps::Template);
            self.reserved(of.session, started, pages::of_processes(&pids, maps))
        });
        measured.collect()
    }

    fn reserved(
        &self,
        session: SessionId,
        Started { template, .. }: &Started,
        pages: Option<Pages>,
    ) -> SessionMemory {
        let private_bytes = pages.map_or(0, |pages| pages.private_bytes);
        let expected = self.with(|state| {
            // Before this one counts: it need not have a quarter more than it takes.
            let expected = state.demands.of_session(template.as_deref()).memory_bytes;
            if let (Some(template), Some(pages)) = (template, pages) {
                state.demands.measured(template, pages.private_bytes);
                if let Some((_, usage @ Usage::Begun)) = state.started.get_mut(&session) {
                    *usage = Usage::Measured;
                }
            }
            expected
        });
        let reserve_bytes = expected.max(private_bytes);
        SessionMemory { session, template: template.clone(), reserve_bytes, pages }
    }

    fn with<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::path::PathBuf;
    use std::process::{Child, Command, Stdio};

    use anteroom_guest_protocol::SANDBOX_ENV;

    use super::*;

    fn measuring() -> Measuring {
        Measuring::of(&DriverChoice::Host { agent: PathBuf::new(), size: crate::HostSize::Desktop })
    }

    /// A process, after it has answered: it has an environment then.
    fn cat(command: &mut Command) -> Child {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        child
    }

    fn id(child: &Child) -> i32 {
        i32::try_from(child.id()).unwrap()
    }

    #[test]
    fn what_the_processes_of_a_session_take_is_measured_and_remembered_of_its_template() {
        let (measuring, session) = (measuring(), SessionId::generate());
        let before = measuring.demand(Some("t")).memory_bytes;
        let name = sandbox_name(session);
        let mut runner = cat(&mut Command::new("cat"));
        let mut vmm = cat(Command::new("cat").env(SANDBOX_ENV, name.as_str()));
        let running = [RunningSession { session, runner: id(&runner) }];
        // One that is about to start.
        assert_eq!(measuring.measure(&running), []);
        measuring.started(session, Started { user: None, template: Some("t".to_owned()) });
        let measured = measuring.measure(&running);
        let pages = pages::of_processes(&[id(&vmm), id(&runner)], Maps::Template);
        let private = |pages: Option<Pages>| pages.map(|pages| pages.private_bytes);
        assert_eq!(private(measured[0].pages), private(pages));
        assert!(pages.is_some_and(|pages| pages.private_bytes > 0 && pages.shared_bytes > 0));
        assert_eq!(measured[0].reserve_bytes, before);
        measuring.is_used(session);
        assert_eq!(measuring.measure(&running).len(), 1);
        for child in [&mut vmm, &mut runner] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        // Nothing that could be read is not nothing.
        assert_eq!(measuring.measure(&running)[0].pages, None);
        measuring.ended(session);
        assert_eq!(measuring.measure(&running), []);
        assert!(measuring.demand(Some("t")).memory_bytes < before);
        assert_eq!(measuring.demand(None).memory_bytes, before);
    }

    #[test]
    fn only_one_that_was_measured_in_use_says_what_clones_take() {
        let template = || Some("t".to_owned());
        let mut runner = cat(&mut Command::new("cat"));
        let runner_id = id(&runner);
        // Measured so often before its page was opened, and after that.
        for (before_use, is_used, in_use, teaches) in
            [(1, false, 0, false), (1, true, 0, false), (0, true, 1, true)]
        {
            let (measuring, session) = (measuring(), SessionId::generate());
            let expected = measuring.demand(Some("t")).memory_bytes;
            let running = [RunningSession { session, runner: runner_id }];
            let measure = |times| {
                for _ in 0..times {
                    assert!(measuring.measure(&running)[0].pages.is_some());
                }
            };
            measuring.started(session, Started { user: None, template: template() });
            measure(before_use);
            if is_used {
                measuring.is_used(session);
            }
            measure(in_use);
            measuring.ended(session);
            let now = measuring.demand(Some("t")).memory_bytes;
            assert_eq!(now < expected, teaches, "{before_use} {is_used} {in_use}");
        }
        runner.kill().unwrap();
        runner.wait().unwrap();
    }
}
