use anteroom_node_protocol::{Pages, SessionMemory};
use proptest::prelude::*;

use super::*;

const BUDGET: u64 = 1000;

fn demand(memory_bytes: u64) -> Demand {
    Demand { memory_bytes, disk_bytes: 10, pids: 5 }
}

fn plenty() -> Free {
    Free::default()
}

fn ledger(max_sessions: usize, max_queued: usize) -> Ledger {
    Ledger::new(Limits { max_sessions, max_queued }, BUDGET)
}

fn measured(session: SessionId, private_bytes: u64, free: Free) -> NodeMemory {
    let pages = Some(Pages { private_bytes, shared_bytes: 0 });
    let of = SessionMemory { session, template: None, reserve_bytes: private_bytes, pages };
    NodeMemory { free, sessions: vec![of], ..NodeMemory::default() }
}

/// What happens to a ledger.
#[derive(Clone, Debug)]
enum Step {
    Admit { memory: u64, free: Option<u64> },
    Leave { nth: usize },
    Measure { nth: usize, private: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..600_u64, proptest::option::of(0..2000_u64))
            .prop_map(|(memory, free)| Step::Admit { memory, free }),
        any::<usize>().prop_map(|nth| Step::Leave { nth }),
        (any::<usize>(), 0..300_u64).prop_map(|(nth, private)| Step::Measure { nth, private }),
    ]
}

proptest! {
    #[test]
    fn nothing_is_granted_over_the_budget_and_all_of_it_comes_back(
        steps in proptest::collection::vec(step(), 0..60),
        max_sessions in 1..6_usize,
        max_queued in 0..4_usize,
    ) {
        let mut ledger = ledger(max_sessions, max_queued);
        let mut sessions: Vec<(Ticket, SessionId)> = Vec::new();
        // In the order in which they got what they take.
        let mut held: Vec<Ticket> = Vec::new();
        for step in steps {
            let grown = matches!(step, Step::Measure { .. });
            match step {
                Step::Admit { memory, free } => {
                    let free = Free { memory_bytes: free, ..Free::default() };
                    if let Ok(ticket) = ledger.admit(demand(memory), free) {
                        let session = SessionId::generate();
                        ledger.serves(ticket, session);
                        sessions.push((ticket, session));
                    }
                }
                Step::Leave { nth } if !sessions.is_empty() => {
                    let (ticket, _) = sessions.remove(nth % sessions.len());
                    ledger.leave(ticket);
                    // A second time gives nothing back.
                    let reserved = ledger.reserved();
                    ledger.leave(ticket);
                    prop_assert_eq!(ledger.reserved(), reserved);
                }
                Step::Measure { nth, private } if !sessions.is_empty() => {
                    let (_, session) = sessions[nth % sessions.len()];
                    ledger.measured(&measured(session, private, plenty()));
                }
                Step::Leave { .. } | Step::Measure { .. } => {}
            }
            let granted: Vec<Ticket> =
                sessions.iter().map(|(ticket, _)| *ticket).filter(|t| ledger.holds(*t)).collect();
            let new: Vec<Ticket> = granted.iter().copied().filter(|t| !held.contains(t)).collect();
            let reserved = ledger.reserved();
            // Only what a session turns out to take may be more than the budget.
            prop_assert!(new.is_empty() || grown || reserved.memory_bytes <= BUDGET);
            prop_assert!(reserved.sessions <= max_sessions && ledger.queued() <= max_queued);
            prop_assert_eq!(granted.len(), reserved.sessions);
            // Whoever waits came after everybody who was ever served.
            let waiting = sessions.iter().map(|(ticket, _)| *ticket).filter(|t| !ledger.holds(*t));
            prop_assert!(waiting.min().is_none_or(|first| new.iter().all(|t| *t < first)));
            held = granted;
        }
        for (ticket, _) in sessions {
            ledger.leave(ticket);
        }
        prop_assert_eq!((ledger.reserved().sessions, ledger.queued()), (0, 0));
        prop_assert_eq!(ledger.reserved().memory_bytes, 0);
    }
}

/// A ledger on a machine, and the pool of its clones.
struct Machine {
    ledger: Ledger,
    free: Free,
    sessions: Vec<(Ticket, SessionId)>,
}

impl Machine {
    fn with(free: Free) -> Self {
        Self { ledger: ledger(4, 2), free, sessions: Vec::new() }
    }

    fn take(&mut self, step: &Step) -> Option<Result<Ticket, std::mem::Discriminant<Shortage>>> {
        match *step {
            Step::Admit { memory, .. } => {
                let admitted = self.ledger.admit(demand(memory), self.free);
                if let Ok(ticket) = admitted {
                    let session = SessionId::generate();
                    self.ledger.serves(ticket, session);
                    self.sessions.push((ticket, session));
                }
                Some(admitted.map_err(|shortage| std::mem::discriminant(&shortage)))
            }
            Step::Leave { nth } if !self.sessions.is_empty() => {
                let at = nth % self.sessions.len();
                self.ledger.leave(self.sessions.remove(at).0);
                None
            }
            Step::Measure { nth, private } if !self.sessions.is_empty() => {
                let (_, session) = self.sessions[nth % self.sessions.len()];
                self.ledger.measured(&measured(session, private, self.free));
                None
            }
            Step::Leave { .. } | Step::Measure { .. } => None,
        }
    }

    /// Those that take more than is left to them end.
    fn pool_yields(&mut self) {
        let waiting = self.free.waiting_bytes.min(self.ledger.left_to_waiting());
        let given_up = self.free.waiting_bytes - waiting;
        self.free.waiting_bytes = waiting;
        self.free.memory_bytes = self.free.memory_bytes.map(|free| free + given_up);
    }

    fn holds(&self) -> Vec<bool> {
        self.sessions.iter().map(|(ticket, _)| self.ledger.holds(*ticket)).collect()
    }
}

proptest! {
    #[test]
    fn clones_that_wait_keep_nobody_out_and_take_only_what_sessions_leave(
        steps in proptest::collection::vec(step(), 0..60),
        waiting in proptest::collection::vec(0..400_u64, 60),
        machine in proptest::option::of(400..2000_u64),
        templates_bytes in 0..300_u64,
    ) {
        // What clones take of the one is free on the other.
        let free = Free { memory_bytes: machine, templates_bytes, ..Free::default() };
        let (mut with, mut without) = (Machine::with(free), Machine::with(free));
        for (step, more) in steps.into_iter().zip(waiting) {
            // So much more waits, where it may.
            let more = more.min(with.free.memory_bytes.unwrap_or(more));
            let all = with.free.waiting_bytes + more;
            if all <= with.ledger.left_to_waiting() {
                with.free.waiting_bytes = all;
                with.free.memory_bytes = with.free.memory_bytes.map(|free| free - more);
            }
            prop_assert_eq!(with.take(&step), without.take(&step));
            with.pool_yields();
            prop_assert_eq!(with.holds(), without.holds());
            let Reserved { memory_bytes, templates_bytes, budget_bytes, .. } = with.ledger.reserved();
            let left = budget_bytes.saturating_sub(memory_bytes + templates_bytes);
            prop_assert!(with.free.waiting_bytes <= left);
            // Who has capacity is not kept out by them for good, nor is who waits.
            for (ticket, _) in &with.sessions {
                let standing = with.ledger.standing(*ticket);
                prop_assert_eq!(
                    std::mem::discriminant(&standing),
                    std::mem::discriminant(&without.ledger.standing(*ticket))
                );
            }
        }
    }
}

#[test]
fn clones_have_what_is_left_of_the_budget_and_of_the_machine() {
    let free = Free {
        memory_bytes: Some(500),
        templates_bytes: 200,
        waiting_bytes: 100,
        ..Free::default()
    };
    let mut ledger = ledger(10, 0);
    assert_eq!(ledger.left_to_waiting(), 1000);
    let ticket = ledger.admit(demand(300), free).unwrap();
    // It may get one of them.
    assert_eq!(ledger.left_to_waiting(), 600);
    let session = SessionId::generate();
    ledger.serves(ticket, session);
    assert_eq!(ledger.left_to_waiting(), 300);
    // What it took of the machine is not promised any more; its reservation stays.
    let free = Free { memory_bytes: Some(350), ..free };
    ledger.measured(&measured(session, 150, free));
    assert_eq!(ledger.left_to_waiting(), 300);
    // Nothing is left where sessions take more than there is, and no sum is less than nothing.
    ledger.measured(&measured(session, 2000, Free { memory_bytes: Some(0), ..free }));
    assert_eq!(ledger.left_to_waiting(), 0);
    ledger.leave(ticket);
    assert_eq!(ledger.left_to_waiting(), 100);
}

#[test]
fn a_session_that_takes_more_than_it_reserved_has_it_reserved() {
    let mut ledger = ledger(10, 0);
    let ticket = ledger.admit(demand(400), plenty()).unwrap();
    let session = SessionId::generate();
    ledger.serves(ticket, session);
    ledger.measured(&measured(session, 100, plenty()));
    assert_eq!(ledger.sessions(), [(session, 400)]);
    ledger.measured(&measured(session, 700, plenty()));
    assert_eq!(ledger.sessions(), [(session, 700)]);
    // What it took once it may take again.
    ledger.measured(&measured(session, 100, plenty()));
    let shortage = ledger.admit(demand(400), plenty()).unwrap_err();
    assert!(matches!(shortage, Shortage::Budget { needs: 400, .. }), "{shortage:?}");
    ledger.leave(ticket);
    assert_eq!(ledger.reserved().memory_bytes, 0);
}

#[test]
fn what_is_promised_and_not_taken_yet_is_not_free() {
    let free = Free { memory_bytes: Some(500), ..Free::default() };
    let mut ledger = ledger(10, 0);
    let ticket = ledger.admit(demand(400), free).unwrap();
    let session = SessionId::generate();
    ledger.serves(ticket, session);
    let shortage = ledger.admit(demand(200), free).unwrap_err();
    assert_eq!(shortage, Shortage::Memory { needs: 200, free: 500, promised: 400 });
    // It took 300 of them, and the system counts 200 less.
    let free = Free { memory_bytes: Some(300), ..Free::default() };
    ledger.measured(&measured(session, 300, free));
    assert!(ledger.admit(demand(200), free).is_ok());
}

#[test]
fn a_full_disk_and_a_full_table_of_processes_are_seen_before_a_session_is_admitted() {
    for (free, shortage) in [
        (
            Free { disk_bytes: Some(15), ..Free::default() },
            Shortage::Disk { needs: 10, free: 15, promised: 10 },
        ),
        (
            Free { pids: Some(9), ..Free::default() },
            Shortage::Pids { needs: 5, free: 9, promised: 5 },
        ),
    ] {
        let mut ledger = ledger(10, 0);
        ledger.admit(demand(1), free).unwrap();
        assert_eq!(ledger.admit(demand(1), free), Err(shortage));
    }
}

#[test]
fn templates_take_their_part_of_the_budget_and_what_never_fits_does_not_wait() {
    let free = Free { templates_bytes: 650, ..Free::default() };
    let mut ledger = ledger(10, 10);
    let shortage = ledger.admit(demand(400), free).unwrap_err();
    assert!(matches!(shortage, Shortage::TooLarge { needs: 400, .. }), "{shortage:?}");
    ledger.admit(demand(300), free).unwrap();
    let waits = ledger.admit(demand(300), free).unwrap();
    assert!(!ledger.holds(waits));
    // The template was removed.
    ledger.measured(&NodeMemory::default());
    assert!(ledger.holds(waits));
}

#[test]
fn one_that_waits_for_much_is_not_passed_by_one_that_takes_little() {
    let mut ledger = ledger(10, 1);
    let first = ledger.admit(demand(600), plenty()).unwrap();
    let large = ledger.admit(demand(900), plenty()).unwrap();
    // It would fit, and what the other lacks is not its reason.
    let shortage = ledger.admit(demand(10), plenty()).unwrap_err();
    assert_eq!(shortage, Shortage::Queue { waiting: 1 });
    let Standing::Waits(shortage) = ledger.standing(large) else { panic!() };
    assert!(matches!(shortage, Shortage::Budget { needs: 900, .. }), "{shortage:?}");
    ledger.leave(first);
    assert!(ledger.holds(large) && ledger.admit(demand(10), plenty()).is_ok());
}

#[test]
fn one_that_can_never_get_what_it_waits_for_is_in_nobodys_way() {
    let mut ledger = ledger(10, 10);
    let runs = ledger.admit(demand(600), plenty()).unwrap();
    let large = ledger.admit(demand(900), plenty()).unwrap();
    let small = ledger.admit(demand(100), plenty()).unwrap();
    assert!(!ledger.holds(large) && !ledger.holds(small));
    // A template was loaded.
    let free = Free { templates_bytes: 200, ..Free::default() };
    ledger.measured(&NodeMemory { free, ..NodeMemory::default() });
    assert!(!ledger.holds(large) && ledger.holds(small));
    let Standing::TurnedAway(shortage) = ledger.standing(large) else { panic!() };
    assert!(matches!(shortage, Shortage::TooLarge { needs: 900, .. }), "{shortage:?}");
    ledger.leave(runs);
    assert!(!ledger.holds(large));
    assert_eq!(ledger.queued(), 0);
    ledger.leave(large);
    assert_eq!(ledger.standing(large), Standing::Gone {});
}

#[test]
fn who_comes_to_a_queue_that_can_go_on_is_not_behind_it() {
    let mut ledger = ledger(10, 1);
    ledger.admit(demand(600), plenty()).unwrap();
    let large = ledger.admit(demand(900), plenty()).unwrap();
    // It is seen with the next call already.
    let free = Free { templates_bytes: 200, ..Free::default() };
    let small = ledger.admit(demand(100), free).unwrap();
    assert!(!ledger.holds(large) && ledger.holds(small));
}

#[test]
fn who_does_not_fit_beside_a_template_that_may_go_again_waits_for_that() {
    let loading = Free { templates_bytes: 500, unsettled_templates_bytes: 400, ..Free::default() };
    let mut ledger = ledger(10, 1);
    let waits = ledger.admit(demand(600), loading).unwrap();
    let Standing::Waits(shortage) = ledger.standing(waits) else { panic!() };
    assert!(matches!(shortage, Shortage::Budget { needs: 600, .. }), "{shortage:?}");
    // It was refused.
    let free = Free { templates_bytes: 100, ..Free::default() };
    ledger.measured(&NodeMemory { free, ..NodeMemory::default() });
    assert!(ledger.holds(waits));
    ledger.leave(waits);
    // Here another was loaded, and stays.
    let waits = ledger.admit(demand(600), loading).unwrap();
    let free = Free { templates_bytes: 500, ..Free::default() };
    ledger.measured(&NodeMemory { free, ..NodeMemory::default() });
    assert!(matches!(ledger.standing(waits), Standing::TurnedAway(Shortage::TooLarge { .. })));
}
