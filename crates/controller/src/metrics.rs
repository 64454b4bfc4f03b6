//! What can be counted, in the text format of OpenMetrics, as Prometheus reads it.

mod media;
mod pool;

use std::collections::BTreeMap;
use std::fmt;

use anteroom_node_protocol::{MediaTotals, PoolFigures};
use anteroom_session::{Cause, EndReason, Event, Observation, StateName, Timestamp, VmmFailure};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::record::Record;
use super::shortage::Reserved;
use media::Media;
use pool::Pool;

/// Upper bounds of the phases' buckets, in seconds: a native start takes 2, an emulated one 30, an
/// end user some minutes.
const PHASE_BUCKETS: [f64; 14] =
    [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0];

/// The moments of a session that phases end with, as its timeline names them.
const PHASES: [&str; 8] = [
    "sandbox_started",
    "agent_connected",
    "sandbox_ready",
    "sign_in_url",
    "sign_in_page_opened",
    "first_frame_sent",
    "live_frame_shown",
    "credential_stored",
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    state: Value,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    reason: Value,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCause {
    cause: Value,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPart {
    part: Value,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPhase {
    phase: Value,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfProvider {
    provider: String,
}

/// A label's value that is ours, not a caller's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Value(&'static str);

impl EncodeLabelValue for Value {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.0, encoder)
    }
}

/// All counters of a controller.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    sessions: Family<OfState, Gauge>,
    started: Family<OfProvider, Counter>,
    refused: Family<OfReason, Counter>,
    ended: Family<OfReason, Counter>,
    deaths: Family<OfCause, Counter>,
    leftovers: Counter,
    hosts_needed: Family<OfProvider, Counter>,
    phases: Family<OfPhase, Histogram>,
    media: Media,
    vmm_failures: Family<OfPart, Counter>,
    memory: Gauge,
    memory_budget: Gauge,
    memory_reserved: Gauge,
    templates_memory: Gauge,
    pool: Pool,
}

impl Metrics {
    /// All at zero.
    pub fn new(max_sessions: usize) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("anteroom"),
            sessions: Family::default(),
            started: Family::default(),
            refused: Family::default(),
            ended: Family::default(),
            deaths: Family::default(),
            leftovers: Counter::default(),
            hosts_needed: Family::default(),
            phases: Family::new_with_constructor(|| Histogram::new(PHASE_BUCKETS)),
            media: Media::default(),
            vmm_failures: Family::default(),
            memory: Gauge::default(),
            pool: Pool::default(),
            memory_budget: Gauge::default(),
            memory_reserved: Gauge::default(),
            templates_memory: Gauge::default(),
        };
        let sandboxes = Gauge::<i64>::default();
        sandboxes.set(i64::try_from(max_sessions).unwrap_or(i64::MAX));
        metrics.register(sandboxes);
        metrics.pool.register(&mut metrics.registry);
        metrics
    }

    fn register(&mut self, sandboxes: Gauge) {
        let Self { registry, .. } = self;
        registry.register(
            "sessions",
            "Sessions that have not ended, by state",
            self.sessions.clone(),
        );
        registry.register(
            "sandboxes",
            "Maximum number of sessions with a sandbox at a time",
            sandboxes,
        );
        registry.register("sessions_started", "Sessions started", self.started.clone());
        registry.register("starts_refused", "Start calls refused, by code", self.refused.clone());
        registry.register("sessions_ended", "Sessions ended, by reason", self.ended.clone());
        registry.register(
            "deaths",
            "Processes in sandboxes that died, by cause",
            self.deaths.clone(),
        );
        registry.register(
            "hosts_needed",
            "Pages that continued at a refused host, by provider",
            self.hosts_needed.clone(),
        );
        registry.register("leftovers", "Leftovers found after teardowns", self.leftovers.clone());
        registry.register_with_unit(
            "session_phase",
            "Time from the start call to the moment that the label names",
            Unit::Seconds,
            self.phases.clone(),
        );
        registry.register(
            "vmm_failures",
            "Failures that VMMs counted themselves, by what failed",
            self.vmm_failures.clone(),
        );
        self.media.register(registry);
        registry.register_with_unit(
            "controller_resident_memory",
            "Resident memory of the controller",
            Unit::Bytes,
            self.memory.clone(),
        );
        self.register_capacity();
    }

    fn register_capacity(&mut self) {
        for (name, help, gauge) in [
            (
                "memory_budget",
                "Memory that sessions, templates and waiting clones may take together",
                &self.memory_budget,
            ),
            ("memory_reserved", "Memory that is reserved for sessions", &self.memory_reserved),
            ("templates_memory", "Memory of the templates", &self.templates_memory),
        ] {
            self.registry.register_with_unit(name, help, Unit::Bytes, gauge.clone());
        }
    }

    /// A session began.
    pub fn started(&self, provider: &str) {
        self.started.get_or_create(&OfProvider { provider: provider.to_owned() }).inc();
    }

    /// A start call was refused.
    pub fn refused(&self, code: &'static str) {
        self.refused.get_or_create(&OfReason { reason: Value(code) }).inc();
    }

    /// A session reached a moment for the first time.
    pub fn reached(&self, kind: &'static str, record: &Record, at: Timestamp) {
        if PHASES.contains(&kind) && record.timeline.iter().all(|entry| entry.kind != kind) {
            self.observe(kind, record, at);
        }
    }

    /// A session is over.
    pub fn ended(&self, reason: &EndReason, record: &Record, at: Timestamp) {
        self.ended.get_or_create(&OfReason { reason: Value(reason.code()) }).inc();
        self.observe("ended", record, at);
    }

    /// A process of a sandbox died, and this is why.
    pub fn explained(&self, cause: Cause) {
        self.deaths.get_or_create(&OfCause { cause: Value(cause.as_str()) }).inc();
    }

    fn observe(&self, phase: &'static str, record: &Record, at: Timestamp) {
        let seconds =
            std::time::Duration::from_millis(at.millis_since(record.session.params.created_at))
                .as_secs_f64();
        self.phases.get_or_create(&OfPhase { phase: Value(phase) }).observe(seconds);
    }

    /// What an event counts beside its timeline entry.
    pub fn note(&self, event: &Event) {
        if let Event::TornDown { leftovers } = event {
            self.leftovers.inc_by(leftovers.len() as u64);
        }
        if let Event::Observed(Observation::HostNeeded { provider, .. }) = event {
            self.hosts_needed.get_or_create(&OfProvider { provider: provider.clone() }).inc();
        }
    }

    /// What a runner's media did since its last report.
    pub fn media(&self, before: &MediaTotals, now: &MediaTotals) {
        self.media.add(before, now);
    }

    /// What a VMM counted of its failures.
    pub fn vmm_failed(&self, failures: &BTreeMap<VmmFailure, u64>) {
        for (part, count) in failures {
            self.vmm_failures.get_or_create(&OfPart { part: Value(part.into()) }).inc_by(*count);
        }
    }

    /// The page. `live` are the states of the sessions that have a task, by their wire names.
    pub fn page(&self, live: &[StateName], reserved: Reserved, waiting: PoolFigures) -> String {
        self.pool.show(waiting);
        for state in StateName::ALL {
            let count = live.iter().filter(|name| **name == state).count();
            let gauge = self.sessions.get_or_create(&OfState { state: Value(state.as_str()) });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let Reserved { memory_bytes, templates_bytes, budget_bytes, .. } = reserved;
        for (gauge, bytes) in [
            (&self.memory_budget, budget_bytes),
            (&self.memory_reserved, memory_bytes),
            (&self.templates_memory, templates_bytes),
        ] {
            gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        self.memory.set(resident_bytes());
        let mut page = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut page, &self.registry);
        page
    }
}

/// This process's resident memory: the second field of /proc/self/statm, in pages.
fn resident_bytes() -> i64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: i64 =
        text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    pages.saturating_mul(page.unwrap_or(4096))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_state_and_what_was_counted() {
        let metrics = Metrics::new(4);
        metrics.started("demo");
        metrics.refused("no_capacity");
        let before = MediaTotals { frames: 2, ..MediaTotals::default() };
        let now = MediaTotals { frames: 5, encode_micros: 1_500_000, ..MediaTotals::default() };
        metrics.media(&before, &now);
        metrics.vmm_failed(&[(VmmFailure::Device, 2), (VmmFailure::SystemCall, 5)].into());
        metrics.vmm_failed(&[(VmmFailure::Device, 1)].into());
        let waiting = PoolFigures {
            waiting: 1,
            oldest_ms: 2500,
            memory_bytes: 8,
            hits: 7,
            misses: 2,
            died: 1,
        };
        let reserved =
            Reserved { sessions: 2, memory_bytes: 5, templates_bytes: 6, budget_bytes: 12 };
        let page = metrics.page(&[StateName::Booting, StateName::Booting], reserved, waiting);
        for line in [
            "anteroom_sessions{state=\"booting\"} 2",
            "anteroom_sessions{state=\"awaiting_user\"} 0",
            "anteroom_sandboxes 4",
            "anteroom_sessions_started_total{provider=\"demo\"} 1",
            "anteroom_starts_refused_total{reason=\"no_capacity\"} 1",
            "anteroom_frames_total 3",
            "anteroom_encode_seconds_total 1.5",
            "anteroom_vmm_failures_total{part=\"device\"} 3",
            "anteroom_vmm_failures_total{part=\"system_call\"} 5",
            "anteroom_waiting_clones 1",
            "anteroom_waiting_clone_age_seconds 2",
            "anteroom_waiting_clones_memory_bytes 8",
            "anteroom_waiting_clones_used_total 7",
            "anteroom_waiting_clones_missed_total 2",
            "anteroom_waiting_clones_died_total 1",
            "anteroom_memory_budget_bytes 12",
            "anteroom_memory_reserved_bytes 5",
            "anteroom_templates_memory_bytes 6",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
        }
        assert!(page.ends_with("# EOF\n"));
    }
}
