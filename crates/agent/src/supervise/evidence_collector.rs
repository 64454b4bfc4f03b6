//! What is seen of a process' end beside its wait status.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anteroom_guest_protocol::{Evidence, Fault, OutOfMemory, ProcessExit, ServiceEvent, Stall};
use anyhow::Result;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::core_dump::CoreDumps;
use super::death::End;
use super::out_of_memory::{Kill, Kills};
use super::{limits, stall};
use crate::report::Reporter;

/// Crashes of children that are reported in a session, each place in a program once: a program may crash
/// as often as it likes.
const MAX_CHILDREN: usize = 50;

/// How long a service may be stopped.
const STOPPED: Duration = Duration::from_secs(10);

/// Collects evidence. Cheap to clone. Only a guest's kernel is ours to ask: on a host there is none.
#[derive(Clone, Default)]
pub struct EvidenceCollector {
    dumps: CoreDumps,
    kills: Kills,
    /// Services by the process group that each leads.
    names: Rc<RefCell<HashMap<i32, String>>>,
    /// Services that were stopped for too long, and so ended.
    stopped: Rc<RefCell<HashMap<i32, Stall>>>,
}

impl EvidenceCollector {
    /// Has the guest's kernel report crashes and kills.
    pub fn ask_kernel(&self, agent: &Path, reporter: &Reporter) -> Result<()> {
        let (services, of_kills) = (self.names.clone(), reporter.clone());
        let killed = Cell::new(0);
        self.kills.follow(Box::new(move |kill| {
            let services = services.borrow();
            // A service's own process is reported by its end.
            if services.contains_key(&kill.pid) || killed.get() >= MAX_CHILDREN {
                return;
            }
            killed.set(killed.get() + 1);
            let service = kill.group.and_then(|group| services.get(&group));
            report_of_kill(&of_kills, service.map_or("sandbox", String::as_str), kill);
        }))?;
        let (names, reporter) = (self.names.clone(), reporter.clone());
        let reported = RefCell::new(HashSet::new());
        self.dumps.receive(
            agent,
            Box::new(move |pid, group, fault| {
                let names = names.borrow();
                // A service's own process is reported by its end.
                if names.contains_key(&pid) {
                    return;
                }
                let mut reported = reported.borrow_mut();
                let is_new = reported.len() <= MAX_CHILDREN && reported.insert(place(fault));
                if reported.len() > MAX_CHILDREN {
                    if is_new {
                        reporter.note("further crashes of services' children are not reported");
                    }
                    return;
                }
                if !is_new {
                    return;
                }
                let service = names.get(&group).map_or("sandbox", String::as_str);
                report_of_fault(&reporter, service, fault);
            }),
        )
    }

    /// Remembers which service a process is.
    pub fn names(&self, pid: Pid, service: &str) {
        self.names.borrow_mut().insert(pid.as_raw(), service.to_owned());
    }

    /// A process was stopped by a signal: a service that stays so is of no use to anybody, and is
    /// ended. The CLI is stopped by us, when its credential is taken.
    pub fn stopped(&self, pid: Pid) {
        let is_service = self.names.borrow().get(&pid.as_raw()).is_some_and(|name| name != "cli");
        if !is_service {
            return;
        }
        let collector = self.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(STOPPED).await;
            let there = collector.names.borrow().contains_key(&pid.as_raw());
            if there && stall::is_stopped(pid) {
                let stall = stall::look(pid, "its process".to_owned(), STOPPED, true);
                collector.stopped.borrow_mut().insert(pid.as_raw(), stall);
                let _ = killpg(pid, Signal::SIGKILL);
            }
        });
    }

    /// What there is to see of this end.
    pub async fn of(&self, pid: Pid, end: End) -> Evidence {
        let service = self.names.borrow().get(&pid.as_raw()).cloned();
        let stall = self.stopped.borrow_mut().remove(&pid.as_raw());
        let mut evidence = Evidence { stall, ..Evidence::default() };
        if end.dumped {
            evidence.fault = self.dumps.of(pid.as_raw()).await.map(Box::new);
        }
        if evidence.stall.is_none()
            && end.exit == (ProcessExit::Signalled { signal: libc::SIGKILL })
            && let Some(line) = self.kills.of(pid.as_raw()).await
        {
            evidence.out_of_memory = Some(out_of_memory(service.as_deref(), line, None));
        }
        let explained = evidence.stall.is_some()
            || evidence.fault.is_some()
            || evidence.out_of_memory.is_some()
            || end.exit == (ProcessExit::Exited { code: 0 });
        if !explained && let Some(kill) = self.kills.in_group_of(pid.as_raw()) {
            let child = Some(kill.name);
            evidence.out_of_memory = Some(out_of_memory(service.as_deref(), kill.line, child));
        }
        evidence.kernel_log_read = self.kills.are_seen();
        // Only now: its dump must not be taken for that of a stranger.
        self.names.borrow_mut().remove(&pid.as_raw());
        evidence
    }
}

/// A kill, with what the service's own limit is and what it came to.
fn out_of_memory(service: Option<&str>, line: String, child: Option<String>) -> OutOfMemory {
    let (limit, peak) = service.map(limits::memory).unwrap_or_default();
    OutOfMemory { line, child, limit, peak }
}

fn report_of_kill(reporter: &Reporter, service: &str, kill: &Kill) {
    let out_of_memory = out_of_memory(Some(service), kill.line.clone(), None);
    let evidence = Evidence { out_of_memory: Some(out_of_memory), ..Evidence::default() };
    report_of_child(reporter, service, &kill.name, evidence);
}

/// Where a program crashed: its file, and how far in the code's file.
fn place(fault: &Fault) -> (String, u64) {
    let mapping = fault.code_mapping.as_ref();
    let into = mapping.map_or(0, |m| fault.instruction_pointer.wrapping_sub(m.start));
    (fault.program.clone(), into.wrapping_add(mapping.map_or(0, |m| m.file_offset)))
}

fn report_of_fault(reporter: &Reporter, service: &str, fault: &Fault) {
    let program = fault.program.rsplit('/').next().unwrap_or_default();
    let evidence = Evidence { fault: Some(Box::new(fault.clone())), ..Evidence::default() };
    report_of_child(reporter, service, program, evidence);
}

fn report_of_child(reporter: &Reporter, service: &str, child: &str, evidence: Evidence) {
    let evidence = Box::new(evidence);
    let event = ServiceEvent::ChildDied { child: child.to_owned(), evidence };
    reporter
        .offer(anteroom_guest_protocol::GuestMessage::Service { name: service.to_owned(), event });
}
