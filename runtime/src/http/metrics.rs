//! What the server counts about its requests, and `/metrics`: those counts and the engine's in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use scheduler::TierStats;

use super::histogram::Histogram;
use super::memory_metrics::MemoryMetrics;
use crate::engine::{EngineStats, ModelInfo};

const TTFT_BOUNDS_S: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const INTER_TOKEN_BOUNDS_S: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
const REQUEST_BOUNDS_S: &[f64] =
    &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// Counts since start. All tenants together: figures of one tenant would tell others about it.
#[derive(Debug)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    /// Prompt tokens of requests whose prompt was computed.
    pub prompt_tokens: AtomicU64,
    /// Those of them that came from the cache.
    pub cached_tokens: AtomicU64,
    /// Tokens that were generated for clients.
    pub completion_tokens: AtomicU64,
    /// Connections that are open.
    pub connections: AtomicU64,
    /// Connections that were turned away because too many were open.
    pub refused_connections: AtomicU64,
    /// What was recalled and written.
    pub memory: MemoryMetrics,
    time_to_first_token: Histogram,
    inter_token: Histogram,
    request: Histogram,
    started_unix_s: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Mutex::default(),
            prompt_tokens: AtomicU64::new(0),
            cached_tokens: AtomicU64::new(0),
            completion_tokens: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            refused_connections: AtomicU64::new(0),
            memory: MemoryMetrics::default(),
            time_to_first_token: Histogram::new(TTFT_BOUNDS_S),
            inter_token: Histogram::new(INTER_TOKEN_BOUNDS_S),
            request: Histogram::new(REQUEST_BOUNDS_S),
            started_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        }
    }
}

impl Metrics {
    /// Counts a request that was answered, or whose client went away (status 499).
    pub fn count_request(&self, route: &'static str, status: u16) {
        // Both parts of the key come from this program, so that the map stays small.
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((route, status)).or_default() += 1;
    }

    /// Notes how long a client waited for its first token, from the arrival of the request.
    pub fn observe_first_token(&self, waited: Duration) {
        self.time_to_first_token.observe(waited);
    }

    /// Notes the time between two tokens of one choice.
    pub fn observe_inter_token(&self, between: Duration) {
        self.inter_token.observe(between);
    }

    /// Notes how long a generating request took as a whole.
    pub fn observe_request(&self, took: Duration) {
        self.request.observe(took);
    }

    /// The page for Prometheus.
    pub fn render(&self, info: &ModelInfo, engine: &EngineStats) -> String {
        let mut page = Page::default();
        // Writing to a string does not fail.
        let _ = self.write_http(&mut page).and_then(|()| write_engine(&mut page, info, engine));
        page.text
    }

    fn write_http(&self, page: &mut Page) -> fmt::Result {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        page.head("memos_http_requests_total", "counter", "Requests by route and status; 499: the client went away.")?;
        for ((route, status), count) in &*self.requests.lock().unwrap_or_else(PoisonError::into_inner) {
            writeln!(page.text, "memos_http_requests_total{{route=\"{route}\",status=\"{status}\"}} {count}")?;
        }
        page.gauge("memos_http_connections", "Open connections.", load(&self.connections))?;
        let help = "Connections turned away because too many were open.";
        page.counter("memos_http_connections_refused_total", help, load(&self.refused_connections))?;
        page.counter("memos_prompt_tokens_total", "Prompt tokens of started requests.", load(&self.prompt_tokens))?;
        page.counter("memos_cached_tokens_total", "Prompt tokens taken from the cache.", load(&self.cached_tokens))?;
        page.counter("memos_completion_tokens_total", "Tokens generated for clients.", load(&self.completion_tokens))?;
        let histograms = [
            (
                "memos_time_to_first_token_seconds",
                "From the arrival of a request to its first token.",
                &self.time_to_first_token,
            ),
            ("memos_inter_token_seconds", "Between two tokens of one choice.", &self.inter_token),
            ("memos_request_seconds", "Generating requests from arrival to end.", &self.request),
        ];
        for (name, help, histogram) in histograms {
            page.head(name, "histogram", help)?;
            histogram.write(name, &mut page.text)?;
        }
        self.memory.write(page)?;
        page.gauge("memos_start_time_seconds", "When the server started, Unix time.", self.started_unix_s)
    }
}

/// Name, type, help and value of what each lower tier tells.
type TierMetric = (&'static str, &'static str, &'static str, fn(&TierStats) -> f64);

const TIER_METRICS: [TierMetric; 8] = [
    ("memos_tier_capacity_blocks", "gauge", "Blocks that a lower tier may hold.", |tier| tier.capacity_blocks as f64),
    ("memos_tier_used_blocks", "gauge", "Blocks that a lower tier holds.", |tier| tier.used_blocks as f64),
    ("memos_tier_hit_blocks_total", "counter", "Blocks loaded from a lower tier.", |tier| tier.hit_blocks as f64),
    ("memos_tier_declined_blocks_total", "counter", "Blocks computed although a lower tier had them.", |tier| {
        tier.declined_blocks as f64
    }),
    ("memos_tier_stored_blocks_total", "counter", "Blocks copied into a lower tier.", |tier| tier.stored_blocks as f64),
    ("memos_tier_evicted_blocks_total", "counter", "Blocks given up for others.", |tier| tier.evicted_blocks as f64),
    ("memos_tier_failed_blocks_total", "counter", "Blocks whose move failed.", |tier| tier.failed_blocks as f64),
    ("memos_tier_load_bytes_per_second", "gauge", "Measured bandwidth of loads.", |tier| tier.bandwidth),
];

fn write_engine(page: &mut Page, info: &ModelInfo, engine: &EngineStats) -> fmt::Result {
    let scheduler = &engine.scheduler;
    page.gauge("memos_sequences_running", "Sequences in the running batch.", scheduler.num_running)?;
    page.gauge("memos_sequences_waiting", "Sequences in the queue.", scheduler.num_waiting)?;
    page.head("memos_kv_blocks", "gauge", "KV blocks of the device pool by state.")?;
    let blocks = &scheduler.blocks;
    for (state, count) in
        [("free", blocks.free), ("cached", blocks.cached), ("leased", blocks.leased), ("filling", blocks.filling)]
    {
        writeln!(page.text, "memos_kv_blocks{{state=\"{state}\"}} {count}")?;
    }
    for (name, kind, help, of) in TIER_METRICS {
        page.head(name, kind, help)?;
        for (tier, stats) in [("host", &engine.host), ("disk", &engine.disk)] {
            writeln!(page.text, "{name}{{tier=\"{tier}\"}} {}", of(stats))?;
        }
    }
    page.gauge("memos_kv_block_bytes", "Size of one KV block.", info.block_bytes)?;
    page.counter(
        "memos_prefix_hit_tokens_total",
        "Prompt tokens found in the prefix cache.",
        scheduler.prefix_hits_tokens,
    )?;
    page.counter("memos_prefix_miss_tokens_total", "Prompt tokens not found in it.", scheduler.prefix_misses_tokens)?;
    page.counter(
        "memos_preemptions_total",
        "Sequences sent back to the queue for lack of blocks.",
        scheduler.preemptions,
    )?;
    page.counter("memos_evictions_total", "Cached blocks given up for new ones.", scheduler.evictions)?;
    page.counter("memos_steps_total", "Forward passes.", engine.num_steps)?;
    page.counter("memos_step_rows_total", "Rows computed in them.", engine.num_rows)?;
    page.counter("memos_forward_seconds_total", "Time spent in them.", engine.forward_s)?;
    page.counter("memos_failed_steps_total", "Forward passes that failed.", engine.failed_steps)?;
    page.counter(
        "memos_sampled_tokens_total",
        "Tokens sampled, also for clients that went away.",
        engine.generated_tokens,
    )?;
    page.counter("memos_cancelled_sequences_total", "Sequences whose client went away.", engine.cancelled)?;
    page.head("memos_build_info", "gauge", "Version of the program.")?;
    writeln!(page.text, "memos_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))?;
    page.head("memos_model_info", "gauge", "What is served, and on what.")?;
    writeln!(
        page.text,
        "memos_model_info{{model=\"{}\",backend=\"{}\",numerics=\"{}\",kv_dtype=\"{}\",max_context=\"{}\"}} 1",
        escape(&info.name),
        escape(&info.backend),
        escape(info.numerics_id),
        info.kv_dtype,
        info.max_context,
    )
}

/// The text of `/metrics` while it is written.
#[derive(Default)]
pub(super) struct Page {
    pub(super) text: String,
}

impl Page {
    pub(super) fn head(&mut self, name: &str, kind: &str, help: &str) -> fmt::Result {
        writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}")
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) -> fmt::Result {
        self.head(name, "gauge", help)?;
        writeln!(self.text, "{name} {value}")
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: impl Display) -> fmt::Result {
        self.head(name, "counter", help)?;
        writeln!(self.text, "{name} {value}")
    }
}

/// A label value as Prometheus' format wants it.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_and_status() {
        let metrics = Metrics::default();
        metrics.count_request("/v1/models", 200);
        metrics.count_request("/v1/models", 200);
        metrics.count_request("/v1/models", 401);
        let mut page = Page::default();
        metrics.write_http(&mut page).expect("a string");
        assert!(page.text.contains("memos_http_requests_total{route=\"/v1/models\",status=\"200\"} 2\n"));
        assert!(page.text.contains("memos_http_requests_total{route=\"/v1/models\",status=\"401\"} 1\n"));
    }

    #[test]
    fn every_sample_has_a_type_before_it() {
        let metrics = Metrics::default();
        metrics.count_request("/health", 200);
        let mut page = Page::default();
        metrics.write_http(&mut page).expect("a string");
        let mut known = Vec::new();
        for line in page.text.lines() {
            if let Some(typed) = line.strip_prefix("# TYPE ") {
                known.push(typed.split(' ').next().unwrap_or_default().to_owned());
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap_or_default();
                assert!(known.iter().any(|known| name.starts_with(known.as_str())), "{line}");
            }
        }
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
