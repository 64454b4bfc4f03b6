//! What Firecracker counts of its own failures: its metrics, an object of JSON on each line, one when the
//! guest starts, one a minute, and one when it ends by itself (src/vmm/src/logger/metrics.rs in its
//! repository).

use anteroom_session::{VmmFailure, VmmFailures};
use serde_json::Value;

use self::Reported::{Always, SinceLast};
use super::pipe::TakeLines;

/// How many lines are read: more than a week's. Each costs as much as its parsing.
const MOST_LINES: u32 = 16 * 1024;

/// What a line has of a counter.
#[derive(Clone, Copy)]
enum Reported {
    /// What was added since the line before.
    SinceLast,
    /// All of it.
    Always,
}

/// The counters that are kept, by section and field.
const COUNTERS: [(&str, VmmFailure, Reported); 34] = [
    ("vcpu.failures", VmmFailure::Processor, SinceLast),
    ("seccomp.num_faults", VmmFailure::SystemCall, Always),
    ("vmm.panic_count", VmmFailure::Panic, Always),
    ("signals.sigbus", VmmFailure::Signal, Always),
    ("signals.sigsegv", VmmFailure::Signal, Always),
    ("signals.sigxfsz", VmmFailure::Signal, Always),
    ("signals.sigxcpu", VmmFailure::Signal, Always),
    ("signals.sighup", VmmFailure::Signal, Always),
    ("signals.sigill", VmmFailure::Signal, Always),
    ("block.activate_fails", VmmFailure::Device, SinceLast),
    ("block.cfg_fails", VmmFailure::Device, SinceLast),
    ("block.event_fails", VmmFailure::Device, SinceLast),
    ("block.execute_fails", VmmFailure::Device, SinceLast),
    ("block.invalid_reqs_count", VmmFailure::Device, SinceLast),
    ("vsock.activate_fails", VmmFailure::Device, SinceLast),
    ("vsock.cfg_fails", VmmFailure::Device, SinceLast),
    ("vsock.rx_queue_event_fails", VmmFailure::Device, SinceLast),
    ("vsock.tx_queue_event_fails", VmmFailure::Device, SinceLast),
    ("vsock.ev_queue_event_fails", VmmFailure::Device, SinceLast),
    ("vsock.muxer_event_fails", VmmFailure::Device, SinceLast),
    ("vsock.conn_event_fails", VmmFailure::Device, SinceLast),
    ("vsock.tx_flush_fails", VmmFailure::Device, SinceLast),
    ("vsock.tx_write_fails", VmmFailure::Device, SinceLast),
    ("vsock.rx_read_fails", VmmFailure::Device, SinceLast),
    ("entropy.activate_fails", VmmFailure::Device, SinceLast),
    ("entropy.entropy_event_fails", VmmFailure::Device, SinceLast),
    ("entropy.host_rng_fails", VmmFailure::Device, SinceLast),
    ("balloon.activate_fails", VmmFailure::Device, SinceLast),
    ("balloon.event_fails", VmmFailure::Device, SinceLast),
    ("balloon.free_page_report_fails", VmmFailure::Device, SinceLast),
    ("uart.error_count", VmmFailure::Device, SinceLast),
    ("i8042.error_count", VmmFailure::Device, SinceLast),
    ("logger.missed_log_count", VmmFailure::Log, SinceLast),
    ("logger.missed_metrics_count", VmmFailure::Log, SinceLast),
];

/// What it has counted.
pub struct Metrics {
    counts: [u64; COUNTERS.len()],
    lines_left: u32,
}

impl Metrics {
    /// What is not nought.
    pub fn failures(&self) -> Vec<VmmFailures> {
        let counted = self.counts.iter().zip(COUNTERS).filter(|(count, _)| **count > 0);
        counted
            .map(|(count, (counter, kind, _))| VmmFailures { kind, counter, count: *count })
            .collect()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { counts: [0; COUNTERS.len()], lines_left: MOST_LINES }
    }
}

impl TakeLines for Metrics {
    /// A VM with one drive writes 5.5 KiB.
    const LONGEST_LINE: u64 = 32 * 1024;

    /// What is not an object, a field that is not there, and one that is not a number count for nothing.
    fn take(&mut self, line: &[u8]) {
        if self.lines_left == 0 {
            return;
        }
        self.lines_left -= 1;
        let Ok(line) = serde_json::from_slice::<Value>(line) else { return };
        for (count, (counter, _, reported)) in self.counts.iter_mut().zip(COUNTERS) {
            let Some((section, field)) = counter.split_once('.') else { continue };
            let Some(found) = line[section][field].as_u64() else { continue };
            *count = match reported {
                SinceLast => count.saturating_add(found),
                Always => found.max(*count),
            };
        }
    }

    fn end(&mut self) {
        let failures: Vec<_> = self.failures().iter().map(ToString::to_string).collect();
        if !failures.is_empty() {
            tracing::warn!("Firecracker counted failures: {}", failures.join(", "));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::pipe::Followed;
    use super::*;

    /// Three lines of Firecracker 1.16.1, whose VM was started, which was asked for a line, and which was
    /// sent SIGBUS.
    const REAL: &str = include_str!("metrics/1.16.1.jsonl");

    fn counted(metrics: &Metrics) -> Vec<String> {
        metrics.failures().iter().map(ToString::to_string).collect()
    }

    async fn followed(text: String) -> Vec<String> {
        tokio::task::LocalSet::new()
            .run_until(async {
                let mut metrics = Followed::<Metrics>::new(std::io::Cursor::new(text));
                metrics.closed().await;
                counted(&metrics.taken())
            })
            .await
    }

    #[test]
    fn every_counter_is_one_of_a_real_firecracker() {
        let line: Value = serde_json::from_str(REAL.lines().next().unwrap()).unwrap();
        for (counter, ..) in COUNTERS {
            let (section, field) = counter.split_once('.').unwrap();
            assert!(line[section][field].is_u64(), "{counter}");
        }
    }

    #[tokio::test]
    async fn what_a_real_firecracker_counted_is_read() {
        assert_eq!(REAL.lines().count(), 3);
        assert_eq!(followed(REAL.to_owned()).await, ["signals.sigbus: 1"]);
    }

    #[tokio::test]
    async fn what_is_added_is_summed_and_what_stays_is_not() {
        let line = r#"{"vcpu":{"failures":2},"seccomp":{"num_faults":1},"block":{"cfg_fails":0}}"#;
        let counted = followed(format!("{line}\n").repeat(3)).await;
        assert_eq!(counted, ["vcpu.failures: 6", "seccomp.num_faults: 1"]);
    }

    #[tokio::test]
    async fn what_is_no_metric_counts_for_nothing() {
        let deep = "[".repeat(30_000);
        let long = format!(r#"{{"x":"{}","vcpu":{{"failures":1}}}}"#, "x".repeat(40_000));
        let lines = [
            "null",
            "[1]",
            r#"{"vcpu":7}"#,
            r#"{"vcpu":{"failures":-1},"seccomp":{"num_faults":"1"},"vmm":{"panic_count":1.5}}"#,
            r#"{"vcpu":{"failures":99999999999999999999999}}"#,
            &deep,
            &long,
            "\u{1b}",
            r#"{"vsock":{"cfg_fails":18446744073709551615}}"#,
            r#"{"vsock":{"cfg_fails":18446744073709551615},"new":{"cfg_fails":1}}"#,
        ];
        assert_eq!(followed(lines.join("\n")).await, ["vsock.cfg_fails: 18446744073709551615"]);
    }

    #[test]
    fn a_flood_of_lines_is_not_read_for_ever() {
        let mut metrics = Metrics::default();
        for _ in 0..MOST_LINES + 5 {
            metrics.take(br#"{"vcpu":{"failures":1}}"#);
        }
        assert_eq!(counted(&metrics), [format!("vcpu.failures: {MOST_LINES}")]);
    }

    proptest! {
        /// Of what a changed or hostile VMM writes, nothing panics, and no count falls.
        #[test]
        fn no_bytes_do_any_harm(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
            noise in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut bytes = REAL.as_bytes().to_vec();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.extend(noise);
            let mut metrics = Metrics::default();
            for line in bytes.split(|byte| *byte == b'\n') {
                let before = metrics.counts;
                metrics.take(line);
                prop_assert!(before.iter().zip(metrics.counts).all(|(old, new)| *old <= new));
            }
            prop_assert!(metrics.failures().iter().all(|failure| failure.count > 0));
        }
    }
}
