use anteroom_runner_protocol::RunnerCommand;
use anteroom_session::{
    Accelerator, Cloned, DriverKind, EndReason, Observation, ProcessExit, Waited,
};

use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::watch::Watch;
use super::*;

/// What each clone here takes, and what a session of it would, in bytes.
const TAKES: u64 = 30;
const IN_USE: u64 = 100;

fn pool(most: usize) -> Pool {
    let records = Records::in_state_dir(std::path::Path::new("/nowhere"));
    let pool = Pool::new(most, Wakes::default(), records);
    assert!(pool.allow(u64::MAX).is_empty());
    pool
}

fn waiting(
    template: &Arc<Template>,
) -> (Waiting, oneshot::Receiver<mpsc::Sender<Report>>, mpsc::Receiver<RunnerCommand>) {
    let (handover, taken) = oneshot::channel();
    let (runner, sent) = Runner::of_test();
    let record = SandboxRecord { session: SessionId::generate(), user: None, driver: None };
    let (template, since) = (Arc::clone(template), Instant::now());
    let pages = Pages { private_bytes: TAKES, shared_bytes: 1 };
    (Waiting { record, template, runner, pages, since, vmm: None, handover }, taken, sent)
}

fn lacks(pool: &Pool, template: &Arc<Template>) -> bool {
    pool.lacking(vec![Arc::clone(template)], Instant::now()).is_some()
}

#[tokio::test]
async fn so_many_wait_of_each_template_and_the_first_goes_first() {
    let (pool, template, other) = (pool(2), Template::of_test(), Template::of_test());
    let (first, _taken, _sent) = waiting(&template);
    let (second, _taken, _sent) = waiting(&template);
    let ids = [first.record.session, second.record.session];
    for one in [first, second] {
        assert!(lacks(&pool, &template));
        assert!(pool.add(one).is_none());
    }
    assert!(!lacks(&pool, &template) && lacks(&pool, &other));
    assert!(pool.claim(&other).clone.is_none());
    assert_eq!(pool.figures().memory_bytes, 2 * TAKES);
    let claimed = pool.claim(&template).clone.unwrap();
    assert_eq!(claimed.record.session, ids[0]);
    assert_eq!((pool.sessions(), pool.figures().memory_bytes), (ids[1..].to_vec(), TAKES));
    // Its session was not recorded: it is nobody's, and has its user and its memory until it has ended.
    pool.ends(&claimed);
    assert!(pool.is_ending(ids[0]) && pool.sessions() == ids[1..]);
    assert_eq!(pool.figures().memory_bytes, 2 * TAKES);
    pool.ended(ids[0]);
    assert!(!pool.is_ending(ids[0]));
    assert_eq!(pool.figures().memory_bytes, TAKES);
    let PoolFigures { waiting, hits, misses, died, .. } = pool.figures();
    assert_eq!((waiting, hits, misses, died), (1, 1, 1, 0));
}

#[tokio::test]
async fn clones_give_up_what_a_session_is_to_have_and_none_is_added_in_its_place() {
    let (pool, template) = (pool(9), Template::of_test());
    let has_use = || pool.has_use_of(&template, |_| IN_USE);
    let ids: Vec<SessionId> = (0..3)
        .map(|_| {
            let (one, _taken, _sent) = waiting(&template);
            let session = one.record.session;
            assert!(pool.add(one).is_none());
            session
        })
        .collect();
    assert!(pool.allow(3 * TAKES).is_empty() && pool.sessions() == ids);
    // The first waits on.
    let over = pool.allow(3 * TAKES - 1);
    assert_eq!(over.iter().map(|one| one.record.session).collect::<Vec<_>>(), ids[2..]);
    assert_eq!(pool.allow(TAKES).len(), 1);
    assert_eq!(pool.sessions(), ids[..1]);
    // One that was being loaded meanwhile is not wanted any more.
    assert!(pool.add(waiting(&template).0).is_some());
    assert!(pool.allow(2 * TAKES).is_empty() && !has_use());
    // More only wait where as many sign-ins could have them.
    assert!(pool.allow(2 * IN_USE - 1).is_empty() && !has_use());
    assert!(pool.allow(2 * IN_USE).is_empty() && has_use());
    assert!(pool.add(waiting(&template).0).is_none() && !has_use());
    let last = pool.allow(0);
    assert_eq!((last.len(), pool.figures().waiting), (2, 0));
    // What they take is there until they have ended.
    assert_eq!(pool.figures().memory_bytes, 4 * TAKES);
    pool.ended(last[0].record.session);
    assert_eq!(pool.figures().memory_bytes, 3 * TAKES);
}

#[tokio::test]
async fn none_waits_before_the_controller_has_said_what_they_may_take() {
    let records = Records::in_state_dir(std::path::Path::new("/nowhere"));
    let (pool, template) = (Pool::new(1, Wakes::default(), records), Template::of_test());
    assert!(!pool.has_use_of(&template, |_| IN_USE));
    assert!(pool.add(waiting(&template).0).is_some());
}

#[tokio::test]
async fn who_would_not_go_on_is_no_session_s() {
    let (pool, template) = (pool(2), Template::of_test());
    let mut vmm = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = i32::try_from(vmm.id()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WUNTRACED)).unwrap();
    let (stopped, _taken, _sent) = waiting(&template);
    let (runs, _taken, _sent) = waiting(&template);
    let ids = [stopped.record.session, runs.record.session];
    assert!(pool.add(Waiting { vmm: Some(pid), ..stopped }).is_none() && pool.add(runs).is_none());
    let Claimed { clone, stopped } = pool.claim(&template);
    assert_eq!(clone.unwrap().record.session, ids[1]);
    let (clone, process) = stopped.into_iter().next().unwrap();
    assert_eq!((clone.record.session, process), (ids[0], format!("VMM (process {pid})")));
    // It goes on.
    kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap();
    waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WCONTINUED)).unwrap();
    assert!(pool.add(clone).is_none() && pool.claim(&template).clone.is_some());
    let PoolFigures { waiting, hits, misses, died, .. } = pool.figures();
    assert_eq!((waiting, hits, misses, died), (0, 2, 0, 1));
    vmm.kill().unwrap();
    vmm.wait().unwrap();
}

#[tokio::test]
async fn none_is_added_while_one_wakes_nor_soon_after_deaths() {
    let (pool, template) = (pool(1), Template::of_test());
    let wakes = [pool.wakes.begin(), pool.wakes.begin()];
    assert!(!lacks(&pool, &template));
    drop(wakes);
    assert!(lacks(&pool, &template));
    for deaths in 1..10_u32 {
        let (one, _taken, _sent) = waiting(&template);
        let session = one.record.session;
        assert!(pool.add(one).is_none());
        assert!(pool.take_dead(session).is_some() && pool.take_dead(session).is_none());
        let soon = Instant::now() + Duration::from_secs(1 << deaths.min(5));
        let late = Instant::now() + LATEST + Duration::from_secs(5);
        let templates = || vec![Arc::clone(&template)];
        assert!(!lacks(&pool, &template) && pool.not_before().unwrap() <= late);
        assert!(deaths > 5 || pool.lacking(templates(), soon).is_some());
        assert!(pool.lacking(templates(), late).is_some());
    }
    assert_eq!(pool.figures().died, 9);
}

#[tokio::test]
async fn those_of_a_template_that_is_gone_are_taken_out_and_after_the_end_none_is_added() {
    let (pool, template, other) = (pool(3), Template::of_test(), Template::of_test());
    for of in [&template, &other] {
        assert!(pool.add(waiting(of).0).is_none());
    }
    let others = pool.take_others(&[Arc::clone(&template)]);
    assert!(others.len() == 1 && Arc::ptr_eq(&others[0].template, &other));
    assert_eq!(pool.take_all().len(), 1);
    assert!(!lacks(&pool, &template));
    assert!(pool.add(waiting(&template).0).is_some());
}

fn started() -> Report {
    let cloned = Some(Cloned { template: "1".into(), waited_ms: None });
    Report::Observed {
        observation: Observation::SandboxStarted {
            driver: DriverKind::Qemu,
            accelerator: Accelerator::Tcg,
            pid: 7,
            cloned,
        },
    }
}

fn connected(vmm_start_micros: Option<u64>) -> Report {
    let waited = Some(Waited { vmm_start_micros, resume_micros: 2, guest_micros: 3 });
    let (agent_version, kernel) = ("1".into(), "6".into());
    Report::Observed { observation: Observation::AgentConnected { agent_version, kernel, waited } }
}

const EXITED: Report = Report::RunnerExited { exit: ProcessExit::Exited { code: 0 } };

fn failed() -> Report {
    let cause = "its VMM was killed".to_owned();
    Report::Observed { observation: Observation::Failed(EndReason::RunnerFailed { cause }) }
}

#[tokio::test]
async fn a_session_hears_what_its_clone_said_before_and_how_long_each_waited() {
    let (sender, reports) = mpsc::channel(8);
    let (one, taken, _sent) = waiting(&Template::of_test());
    for _ in 0..100 {
        let totals = anteroom_node_protocol::MediaTotals::default();
        if sender.try_send(Report::Media { totals }).is_err() {
            break;
        }
    }
    let watch = Watch { reports, heard: vec![started()] };
    let running = tokio::spawn(watch.run(taken, |_| panic!("it has a session")));
    let (_runner, mut heard) = one.hand_over();
    for report in [connected(Some(1)), EXITED] {
        sender.send(report).await.unwrap();
    }
    drop(sender);
    running.await.unwrap();
    let mut all = Vec::new();
    while let Some(report) = heard.recv().await {
        all.push(report);
    }
    let Report::Observed { observation: Observation::SandboxStarted { cloned, .. } } = &all[0]
    else {
        panic!("{all:?}");
    };
    assert!(cloned.as_ref().unwrap().waited_ms.is_some());
    assert!(all.ends_with(&[connected(None), EXITED]), "{all:?}");
}

#[tokio::test]
async fn a_clone_that_ends_is_its_session_s_or_its_pool_s_to_explain() {
    for has_session in [false, true] {
        let (sender, reports) = mpsc::channel(8);
        let (one, taken, _sent) = waiting(&Template::of_test());
        for report in [failed(), EXITED] {
            sender.send(report).await.unwrap();
        }
        drop(sender);
        let watch = Watch { reports, heard: Vec::new() };
        let (said, ended) = oneshot::channel();
        let running = tokio::spawn(watch.run(taken, move |reason| {
            said.send(reason.code()).unwrap();
            !has_session
        }));
        assert_eq!(ended.await.unwrap(), "runner_failed");
        let mut heard = one.hand_over().1;
        let mut all = Vec::new();
        while let Some(report) = heard.recv().await {
            all.push(report);
        }
        assert_eq!(all, if has_session { vec![failed(), EXITED] } else { vec![] });
        running.await.unwrap();
    }
}
