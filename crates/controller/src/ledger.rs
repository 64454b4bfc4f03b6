//! What sessions have reserved of the node's machine, and who waits for it; pure.

use std::collections::{BTreeMap, VecDeque};

use anteroom_node_protocol::{Demand, Free, NodeMemory};
use anteroom_session::SessionId;

use super::shortage::{Reserved, Shortage};

/// What the operator allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sandboxes at a time.
    pub max_sessions: usize,
    /// Sessions that may wait for capacity.
    pub max_queued: usize,
}

/// A session that was admitted. Greater is later.
pub type Ticket = u64;

/// Everything that is reserved, of what.
#[derive(Debug)]
pub struct Ledger {
    limits: Limits,
    budget_bytes: u64,
    free: Free,
    held: BTreeMap<Ticket, Claim>,
    /// In the order in which they came.
    waiting: VecDeque<(Ticket, Claim)>,
    /// Those that waited for what there will never be.
    turned_away: BTreeMap<Ticket, Shortage>,
    next: Ticket,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has what it takes.
    Holds {},
    /// Others were first, or this is short.
    Waits(Shortage),
    /// It can never have what it takes.
    TurnedAway(Shortage),
    /// It is not known, or not any more.
    Gone {},
}

/// What a session has, or waits for.
#[derive(Clone, Copy, Debug)]
struct Claim {
    session: Option<SessionId>,
    reserved: Demand,
    /// What its processes took when they were last measured.
    private_bytes: Option<u64>,
}

impl Ledger {
    /// Nothing is reserved yet.
    pub fn new(limits: Limits, budget_bytes: u64) -> Self {
        Self {
            limits,
            budget_bytes,
            free: Free::default(),
            held: BTreeMap::new(),
            waiting: VecDeque::new(),
            turned_away: BTreeMap::new(),
            next: 0,
        }
    }

    /// Admits a session that takes this, now that the machine has so much free: it has it at once, or waits
    /// behind those that came before. A shortage is this session's own, not that of whoever is first.
    pub fn admit(&mut self, demand: Demand, free: Free) -> Result<Ticket, Shortage> {
        self.free = free;
        self.grant();
        let ticket = self.next;
        match self.fits(&demand) {
            Ok(()) if self.waiting.is_empty() => {
                self.held.insert(ticket, Claim::of(demand));
            }
            Err(shortage @ Shortage::TooLarge { .. }) => return Err(shortage),
            fits if self.waiting.len() >= self.limits.max_queued => {
                let queue = Shortage::Queue { waiting: self.waiting.len() };
                return Err(fits.err().unwrap_or(queue));
            }
            _ => self.waiting.push_back((ticket, Claim::of(demand))),
        }
        self.next += 1;
        Ok(ticket)
    }

    /// Which session it is; it is measured from now on.
    pub fn serves(&mut self, ticket: Ticket, session: SessionId) {
        let waiting = self.waiting.iter_mut().find(|(waiting, _)| *waiting == ticket);
        let claim = self.held.get_mut(&ticket).or(waiting.map(|(_, claim)| claim));
        if let Some(claim) = claim {
            claim.session = Some(session);
        }
    }

    /// Whether it has what it takes.
    pub fn holds(&self, ticket: Ticket) -> bool {
        self.held.contains_key(&ticket)
    }

    /// Where a session stands, and why.
    pub fn standing(&self, ticket: Ticket) -> Standing {
        if self.holds(ticket) {
            return Standing::Holds {};
        }
        if let Some(shortage) = self.turned_away.get(&ticket) {
            return Standing::TurnedAway(*shortage);
        }
        let Some(place) = self.waiting.iter().position(|(waiting, _)| *waiting == ticket) else {
            return Standing::Gone {};
        };
        let shortage = self.fits(&self.waiting[place].1.reserved).err();
        Standing::Waits(shortage.unwrap_or(Shortage::Queue { waiting: place }))
    }

    /// Gives back what a session has, or its place in the queue.
    pub fn leave(&mut self, ticket: Ticket) {
        self.held.remove(&ticket);
        self.turned_away.remove(&ticket);
        self.waiting.retain(|(waiting, _)| *waiting != ticket);
        self.grant();
    }

    /// What was measured: a session that takes more than it has reserved has it reserved too.
    pub fn measured(&mut self, memory: &NodeMemory) {
        self.free = memory.free;
        for measured in &memory.sessions {
            let held = self.held.values_mut().find(|held| held.session == Some(measured.session));
            if let Some(held) = held {
                let bytes = &mut held.reserved.memory_bytes;
                *bytes = (*bytes).max(measured.reserve_bytes);
                let private = measured.pages.map(|pages| pages.private_bytes);
                held.private_bytes = private.or(held.private_bytes);
            }
        }
        self.grant();
    }

    /// What is reserved together.
    pub fn reserved(&self) -> Reserved {
        Reserved {
            sessions: self.held.len(),
            memory_bytes: self.held.values().map(|held| held.reserved.memory_bytes).sum(),
            templates_bytes: self.free.templates_bytes,
            budget_bytes: self.budget_bytes,
        }
    }

    /// The sessions that have something, and their memory.
    pub fn sessions(&self) -> Vec<(SessionId, u64)> {
        let of = |held: &Claim| Some((held.session?, held.reserved.memory_bytes));
        self.held.values().filter_map(of).collect()
    }

    /// How many bytes of memory clones that wait may take: what sessions and templates leave of the budget, and what
    /// was not promised of the machine's. A session that has no id yet is left out: it may get one of the clones, and
    /// then has what that takes already.
    pub fn left_to_waiting(&self) -> u64 {
        let sessions = || self.held.values().filter(|held| held.session.is_some());
        let sum = |of: fn(&Claim) -> u64| sessions().map(of).fold(0, u64::saturating_add);
        let reserved = sum(|held| held.reserved.memory_bytes);
        let taken = reserved.saturating_add(self.free.templates_bytes);
        let of_budget = self.budget_bytes.saturating_sub(taken);
        let promised = sum(Claim::promised_bytes);
        let of_machine = self.free_memory().map(|free| free.saturating_sub(promised));
        of_machine.map_or(of_budget, |of_machine| of_budget.min(of_machine))
    }

    /// The machine's memory that is free, or is so as soon as clones that wait are ended.
    fn free_memory(&self) -> Option<u64> {
        Some(self.free.memory_bytes?.saturating_add(self.free.waiting_bytes))
    }

    /// How many wait.
    pub fn queued(&self) -> usize {
        self.waiting.len()
    }

    /// First come, first served: one that waits for much is not passed by those that take little. One that
    /// would wait for ever does not wait: the templates that were loaded since it came took what it needs.
    fn grant(&mut self) {
        let waiting = self.waiting.iter();
        let never = waiting.filter_map(|(ticket, claim)| match self.fits(&claim.reserved) {
            Err(shortage @ Shortage::TooLarge { .. }) => Some((*ticket, shortage)),
            Ok(()) | Err(_) => None,
        });
        let never: Vec<_> = never.collect();
        self.turned_away.extend(never);
        self.waiting.retain(|(ticket, _)| !self.turned_away.contains_key(ticket));
        while let Some((ticket, claim)) = self.waiting.front().copied() {
            if self.fits(&claim.reserved).is_err() {
                return;
            }
            self.waiting.pop_front();
            self.held.insert(ticket, claim);
        }
    }

    /// Clones that wait keep nobody out, whatever they take: it is left to them only until a session is to have it.
    fn fits(&self, demand: &Demand) -> Result<(), Shortage> {
        let reserved = self.reserved();
        let needs = demand.memory_bytes;
        // Memory that a template may give back is no reason to refuse for good.
        let staying = reserved.templates_bytes.saturating_sub(self.free.unsettled_templates_bytes);
        if staying.saturating_add(needs) > self.budget_bytes {
            let reserved = Reserved { templates_bytes: staying, ..reserved };
            return Err(Shortage::TooLarge { needs, reserved });
        }
        if self.held.len() >= self.limits.max_sessions {
            return Err(Shortage::Sessions { most: self.limits.max_sessions });
        }
        let taken = reserved.memory_bytes.saturating_add(reserved.templates_bytes);
        if taken.saturating_add(needs) > self.budget_bytes {
            return Err(Shortage::Budget { needs, reserved });
        }
        // What was promised to sessions and is not taken yet is counted as free by the system.
        let promised = self.held.values().map(Claim::promised_bytes).sum();
        let is_first = self.held.is_empty();
        if let Some(free) = self.free_memory()
            && lacks(free, promised, needs)
            // A machine that is too small for one may try.
            && !(is_first && free > 0)
        {
            return Err(Shortage::Memory { needs, free, promised });
        }
        let starting = || self.held.values().filter(|held| held.private_bytes.is_none());
        let (needs, promised) =
            (demand.disk_bytes, starting().map(|held| held.reserved.disk_bytes).sum());
        if let Some(free) = self.free.disk_bytes
            && lacks(free, promised, needs)
        {
            return Err(Shortage::Disk { needs, free, promised });
        }
        let (needs, promised) = (demand.pids, starting().map(|held| held.reserved.pids).sum());
        if let Some(free) = self.free.pids
            && lacks(free, promised, needs)
        {
            return Err(Shortage::Pids { needs, free, promised });
        }
        Ok(())
    }
}

impl Claim {
    fn of(demand: Demand) -> Self {
        Self { session: None, reserved: demand, private_bytes: None }
    }

    fn promised_bytes(&self) -> u64 {
        self.reserved.memory_bytes.saturating_sub(self.private_bytes.unwrap_or_default())
    }
}

fn lacks(free: u64, promised: u64, needs: u64) -> bool {
    promised.saturating_add(needs) > free
}

#[cfg(test)]
mod tests;
