//! Clones that wait for a session, as the node counts them.

use std::sync::atomic::Ordering;

use anteroom_node_protocol::PoolFigures;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// What is shown of them.
#[derive(Debug, Default)]
pub struct Pool {
    waiting: Gauge,
    oldest_seconds: Gauge,
    memory_bytes: Gauge,
    hits: Counter,
    misses: Counter,
    died: Counter,
}

impl Pool {
    /// Puts them on the page.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("waiting_clones", "Clones that wait for a sign-in", self.waiting.clone());
        registry.register_with_unit(
            "waiting_clone_age",
            "How long the first of them has waited",
            Unit::Seconds,
            self.oldest_seconds.clone(),
        );
        registry.register_with_unit(
            "waiting_clones_memory",
            "Private memory of clones that wait, and of those that are being ended",
            Unit::Bytes,
            self.memory_bytes.clone(),
        );
        let counters = [
            ("waiting_clones_used", "Sessions that got a waiting clone", &self.hits),
            ("waiting_clones_missed", "Sessions for which no clone was waiting", &self.misses),
            ("waiting_clones_died", "Clones that ended while they waited", &self.died),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
    }

    /// Shows what the node has now.
    pub fn show(&self, now: PoolFigures) {
        let PoolFigures { waiting, oldest_ms, memory_bytes, hits, misses, died } = now;
        for (gauge, number) in [
            (&self.waiting, waiting),
            (&self.oldest_seconds, oldest_ms / 1000),
            (&self.memory_bytes, memory_bytes),
        ] {
            gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
        }
        for (counter, number) in [(&self.hits, hits), (&self.misses, misses), (&self.died, died)] {
            counter.inner().store(number, Ordering::Relaxed);
        }
    }
}
