//! What is counted about memory in chat requests, over all tenants together.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::histogram::Histogram;
use super::metrics::Page;

const RECALL_BOUNDS_S: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// Counts since start.
#[derive(Debug)]
pub struct MemoryMetrics {
    recall: Histogram,
    recalled: AtomicU64,
    /// Turns that were told and written.
    pub written: AtomicU64,
    /// Turns that told nothing.
    pub nothing: AtomicU64,
    /// Turns that are kept, and written later because the first attempt failed.
    pub queued: AtomicU64,
    /// Turns that could not be kept.
    pub failed: AtomicU64,
}

impl Default for MemoryMetrics {
    fn default() -> Self {
        Self {
            recall: Histogram::new(RECALL_BOUNDS_S),
            recalled: AtomicU64::new(0),
            written: AtomicU64::new(0),
            nothing: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }
}

impl MemoryMetrics {
    /// Notes a recall: how long it took and how many memories went into the prompt.
    pub fn observe_recall(&self, took: Duration, num_memories: usize) {
        self.recall.observe(took);
        self.recalled.fetch_add(num_memories as u64, Ordering::Relaxed);
    }

    /// Writes the samples.
    ///
    /// # Errors
    /// The page cannot be written to, which does not happen.
    pub fn write(&self, page: &mut Page) -> fmt::Result {
        let name = "memos_recall_seconds";
        page.head(name, "histogram", "Searching the memories for one prompt, embedding of the question included.")?;
        self.recall.write(name, &mut page.text)?;
        let help = "Memories that went into prompts.";
        page.counter("memos_recalled_memories_total", help, self.recalled.load(Ordering::Relaxed))?;
        page.head("memos_memory_turns_total", "counter", "Turns that were to be remembered, by outcome.")?;
        for (outcome, count) in
            [("written", &self.written), ("nothing", &self.nothing), ("queued", &self.queued), ("failed", &self.failed)]
        {
            let count = count.load(Ordering::Relaxed);
            writeln!(page.text, "memos_memory_turns_total{{outcome=\"{outcome}\"}} {count}")?;
        }
        Ok(())
    }
}
