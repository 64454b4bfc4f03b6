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
    started: HashMap<SessionId, Started>,
}

/// A session that was started.
#[derive(Clone, Debug)]
pub struct Started {
    /// Who its processes run as.
    pub user: Option<SessionUser>,
    /// The template that it is a clone of.
    pub template: Option<String>,
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
        self.with(|state| state.started.insert(session, started));
    }

    /// A session has ended.
    pub fn ended(&self, session: SessionId) {
        self.with(|state| {
            let ended = state.started.remove(&session);
            if let Some(template) = ended.and_then(|ended| ended.template) {
                state.demands.ended(&template);
            }
        });
    }

    /// Measures these sessions. It looks at every process of the machine.
    pub fn measure(&self, running: &[RunningSession]) -> Vec<SessionMemory> {
        let known = self.with(|state| state.started.clone());
        let running: Vec<(RunningSession, &Started, SandboxName)> = running
            .iter()
            .filter_map(|of| Some((*of, known.get(&of.session)?, sandbox_name(of.session))))
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
}
