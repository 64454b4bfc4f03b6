//! More sign-ins than the machine holds.

use anteroom_api::{Backend, Problem, ProblemCode};
use anteroom_node_protocol::{
    Demand, Free, NodeMemory, Pages, SessionMemory, TemplateMemory, WaitingMemory,
};
use anteroom_session::{SessionId, StateName};

use super::world::{World, caller, start};
use crate::Limits;
use crate::fake_node::{BUDGET, Call, DEMAND};
use crate::shortage::Reserved;

/// Calls at once; what came of them.
async fn burst(world: &World, calls: usize) -> (Vec<SessionId>, Vec<Problem>) {
    let calls = answers(world, calls).await;
    let mut begun = Vec::new();
    let mut refused = Vec::new();
    for answer in calls {
        match answer {
            Ok(id) => begun.push(id),
            Err(problem) => refused.push(problem),
        }
    }
    (begun, refused)
}

async fn answers(world: &World, calls: usize) -> Vec<Result<SessionId, Problem>> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..calls {
        let controller = world.controller.clone();
        tasks.spawn(async move { start(&controller).await });
    }
    tasks.join_all().await
}

fn starts(world: &World) -> usize {
    world.node.calls().iter().filter(|call| matches!(call, Call::Start(_))).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_fifty_at_once_as_many_run_as_the_memory_holds_and_the_others_learn_why() {
    for queued in [0, 2] {
        let limits = Limits { max_sessions: 1000, max_queued: queued };
        let world = World::with_limits(limits).await;
        let (begun, refused) = burst(&world, 50).await;
        assert_eq!((begun.len(), refused.len()), (3 + queued, 47 - queued));
        for problem in &refused {
            assert_eq!((problem.code, problem.status), (ProblemCode::NoCapacity, 503));
            assert!(problem.retry_after.is_some_and(|seconds| (5..=60).contains(&seconds)));
            let sentence = "the machine has memory for no more sessions: 3.0 GiB of 3.0 GiB are reserved by 3 \
                            sessions, and one more takes 1.0 GiB";
            assert!(problem.detail.starts_with(sentence), "{}", problem.detail);
        }
        // Nothing was prepared for those that were refused.
        let prepared = world.node.calls().iter().filter(|call| **call == Call::Prepare).count();
        assert_eq!(prepared, 3 + queued);
        let line = format!("anteroom_memory_reserved_bytes {BUDGET}");
        assert!(world.controller.metrics().lines().any(|found| found == line));
        for id in &begun {
            world.controller.end(*id, &caller()).await.unwrap();
        }
        for id in &begun {
            world.over(*id).await;
        }
        assert!(starts(&world) >= 3);
        let empty = Reserved { budget_bytes: BUDGET, ..Reserved::default() };
        assert_eq!(world.controller.admission.reserved(), empty);
        assert_eq!(burst(&world, 4).await.0.len(), 3 + queued.min(1));
    }
}

#[tokio::test]
async fn who_waits_for_memory_begins_when_a_session_gives_it_back() {
    let world = World::with_limits(Limits { max_sessions: 1000, max_queued: 1 }).await;
    let (begun, _) = burst(&world, 3).await;
    let waiting = world.start().await.unwrap();
    let view = world.until(waiting, |view| !view.timeline.is_empty()).await;
    assert_eq!(view.timeline[0].kind, "waiting_for_capacity");
    assert_eq!(view.state, StateName::Requested);
    world.controller.end(begun[0], &caller()).await.unwrap();
    world.until(waiting, |view| view.state == StateName::Booting).await;
}

#[tokio::test]
async fn a_session_that_takes_more_than_expected_keeps_others_out() {
    let world = World::with_limits(Limits { max_sessions: 1000, max_queued: 0 }).await;
    let session = world.start().await.unwrap();
    let private_bytes = BUDGET - DEMAND.memory_bytes + 1;
    let pages = Some(Pages { private_bytes, shared_bytes: 5 });
    let template = Some("t".to_owned());
    let of_it = SessionMemory { session, template, reserve_bytes: private_bytes, pages };
    let templates = vec![TemplateMemory { id: "t".to_owned(), bytes: 7 }];
    let memory = NodeMemory { sessions: vec![of_it], templates, ..NodeMemory::default() };
    world.node.answer(|answers| answers.memory = memory);
    let view = world.controller.memory().await;
    let of_it = &view.sessions[0];
    assert_eq!((view.budget_bytes, view.reserved_bytes), (BUDGET, private_bytes));
    assert_eq!(
        (of_it.session_id.as_str(), of_it.reserved_bytes),
        (&*session.to_string(), private_bytes)
    );
    assert_eq!((of_it.private_bytes, of_it.shared_bytes), (Some(private_bytes), Some(5)));
    assert_eq!((view.templates[0].bytes, view.templates[0].clones), (7, 1));
    // One that was not measured is not nothing.
    world.node.answer(|answers| answers.memory = NodeMemory::default());
    let view = world.controller.memory().await;
    assert_eq!((view.reserved_bytes, view.sessions[0].private_bytes), (private_bytes, None));
    let refused = world.start().await.unwrap_err();
    assert!(
        refused.detail.contains("2.0 GiB of 3.0 GiB are reserved by 1 session,"),
        "{refused:?}"
    );
    world.controller.end(session, &caller()).await.unwrap();
    world.over(session).await;
    world.start().await.unwrap();
}

#[tokio::test]
async fn clones_that_wait_make_place_for_sessions_and_wait_again_when_these_have_ended() {
    let world = World::with_limits(Limits { max_sessions: 1000, max_queued: 0 }).await;
    // They take all of the budget, and all of the machine.
    let free = Free { memory_bytes: Some(0), waiting_bytes: BUDGET, ..Free::default() };
    let pages = Pages { private_bytes: BUDGET, shared_bytes: 9 };
    let waiting = vec![WaitingMemory { template: "t".to_owned(), pages }];
    let memory = NodeMemory { free, waiting, ..NodeMemory::default() };
    world.node.answer(|answers| answers.memory = memory);
    let view = world.controller.memory().await;
    let of_it = &view.waiting_clones[0];
    assert_eq!(
        (of_it.template.as_str(), of_it.private_bytes, of_it.shared_bytes),
        ("t", BUDGET, 9)
    );
    world.node.allows_waiting(BUDGET).await;
    let line = format!("anteroom_waiting_clones_memory_bytes {BUDGET}");
    assert!(world.controller.metrics().lines().any(|found| found == line));
    for left in [2, 1, 0] {
        let session = world.start().await.unwrap();
        world.until(session, |view| view.state == StateName::Booting).await;
        world.node.allows_waiting(left * DEMAND.memory_bytes).await;
        // What they gave up is free.
        let waiting_bytes = left * DEMAND.memory_bytes;
        let free = Free { memory_bytes: Some(BUDGET - waiting_bytes), waiting_bytes, ..free };
        world.node.answer(|answers| answers.memory.free = free);
    }
    let refused = world.start().await.unwrap_err();
    let sentence = "the machine has memory for no more sessions: 3.0 GiB of 3.0 GiB are reserved by 3 sessions,";
    assert!(refused.detail.starts_with(sentence), "{refused:?}");
    for (id, _) in world.controller.admission.sessions() {
        world.controller.end(id, &caller()).await.unwrap();
    }
    world.node.allows_waiting(BUDGET).await;
}

#[tokio::test]
async fn a_full_machine_refuses_what_its_budget_would_allow() {
    let world = World::with_limits(Limits { max_sessions: 1000, max_queued: 0 }).await;
    for (free, code, sentence) in [
        (
            Free { memory_bytes: Some(0), ..Free::default() },
            ProblemCode::NoCapacity,
            "the machine has too little free memory",
        ),
        (
            Free { disk_bytes: Some(0), ..Free::default() },
            ProblemCode::StorageUnavailable,
            "the disk of the state folder is too full",
        ),
        (
            Free { pids: Some(0), ..Free::default() },
            ProblemCode::NoCapacity,
            "the machine can start too few processes",
        ),
    ] {
        world.node.answer(|answers| answers.memory = NodeMemory { free, ..NodeMemory::default() });
        let refused = world.start().await.unwrap_err();
        assert_eq!((refused.code, refused.status), (code, 503));
        assert!(refused.detail.starts_with(sentence), "{refused:?}");
        assert!(refused.retry_after.is_some());
    }
    assert!(world.node.calls().is_empty());
}

#[tokio::test]
async fn who_waits_for_what_can_never_be_again_ends_with_its_reason() {
    let world = World::with_limits(Limits { max_sessions: 1000, max_queued: 1 }).await;
    burst(&world, 3).await;
    let waiting = world.start().await.unwrap();
    let view = world.until(waiting, |view| !view.timeline.is_empty()).await;
    let sentence = "the machine has memory for no more sessions: 3.0 GiB of 3.0 GiB are reserved by 3 sessions, \
                    and one more takes 1.0 GiB; the sign-in starts when there is enough for it";
    assert_eq!(view.timeline[0].message, sentence);
    let free = Free { templates_bytes: BUDGET - DEMAND.memory_bytes + 1, ..Free::default() };
    world.node.answer(|answers| answers.memory = NodeMemory { free, ..NodeMemory::default() });
    world.controller.memory().await;
    let view = world.until(waiting, |view| view.reason.is_some()).await;
    let reason = view.reason.unwrap();
    let numbers = "the session takes 1.0 GiB of memory, and all sessions together may take 3.0 GiB";
    assert_eq!(reason.code, "no_capacity");
    assert!(reason.message.contains(numbers), "{reason:?}");
    // Nor does a call get the advice to wait for it.
    let refused = world.start().await.unwrap_err();
    assert_eq!((refused.code, refused.retry_after), (ProblemCode::NoCapacity, None));
    assert!(refused.detail.starts_with(numbers), "{refused:?}");
    assert!(!refused.detail.contains("try again"), "{refused:?}");
}

#[tokio::test]
async fn who_is_too_large_beside_a_template_that_was_loaded_is_admitted_as_a_clone_of_it() {
    let world = World::with_limits(Limits { max_sessions: 1000, max_queued: 1 }).await;
    let templates_bytes = BUDGET - DEMAND.memory_bytes + 1;
    let loading =
        Free { templates_bytes, unsettled_templates_bytes: templates_bytes, ..Free::default() };
    let free = |free| NodeMemory { free, ..NodeMemory::default() };
    world.node.answer(|answers| answers.memory = free(loading));
    let waiting = world.start().await.unwrap();
    world.until(waiting, |view| !view.timeline.is_empty()).await;
    assert_eq!(starts(&world), 0);
    let loaded = Free { templates_bytes, ..Free::default() };
    world.node.answer(|answers| {
        answers.memory = free(loaded);
        answers.demand = Demand { memory_bytes: DEMAND.memory_bytes / 2, ..DEMAND };
    });
    world.controller.memory().await;
    world
        .until(waiting, |view| view.timeline.iter().any(|entry| entry.kind == "runner_started"))
        .await;
}

#[tokio::test]
async fn who_ends_while_they_wait_leaves_the_queue_before_anything_is_torn_down() {
    let world = World::with_limits(Limits { max_sessions: 1000, max_queued: 1 }).await;
    let (begun, _) = burst(&world, 3).await;
    let cancelled = world.start().await.unwrap();
    world.until(cancelled, |view| !view.timeline.is_empty()).await;
    world.node.hold_up_teardowns(true);
    world.controller.end(cancelled, &caller()).await.unwrap();
    // Its place is another's.
    let next = world.start().await.unwrap();
    world.until(next, |view| !view.timeline.is_empty()).await;
    world.start().await.unwrap_err();
    // Those that run have what they take until they are torn down, and it comes back once.
    world.controller.end(begun[0], &caller()).await.unwrap();
    assert_eq!(world.controller.admission.reserved().sessions, 3);
    world.node.hold_up_teardowns(false);
    world.until(next, |view| view.state == StateName::Booting).await;
    for id in [cancelled, begun[0]] {
        world.over(id).await;
    }
    let reserved = world.controller.admission.reserved();
    assert_eq!((reserved.sessions, reserved.memory_bytes), (3, BUDGET));
}
