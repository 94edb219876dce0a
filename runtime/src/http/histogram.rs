//! A histogram of durations that many threads add to without a lock, printed in Prometheus' text format.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts of durations by upper bound.
#[derive(Debug)]
pub struct Histogram {
    bounds_s: &'static [f64],
    /// One count a bound, and one for what lies above the last.
    counts: Vec<AtomicU64>,
    sum_us: AtomicU64,
}

impl Histogram {
    /// An empty histogram with these upper bounds in seconds, ascending.
    pub fn new(bounds_s: &'static [f64]) -> Self {
        let counts = (0..=bounds_s.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds_s, counts, sum_us: AtomicU64::new(0) }
    }

    /// Adds one duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = self.bounds_s.partition_point(|&bound| bound < seconds);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.fetch_add(micros, Ordering::Relaxed);
    }

    /// Writes the samples of the metric with this name.
    ///
    /// # Errors
    /// The target cannot be written to, which does not happen with strings.
    pub fn write(&self, name: &str, text: &mut String) -> fmt::Result {
        let mut cumulative = 0;
        for (bound, count) in self.bounds_s.iter().zip(&self.counts) {
            cumulative += count.load(Ordering::Relaxed);
            writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {cumulative}")?;
        }
        cumulative += self.counts[self.bounds_s.len()].load(Ordering::Relaxed);
        writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {cumulative}")?;
        writeln!(text, "{name}_sum {}", self.sum_us.load(Ordering::Relaxed) as f64 / 1e6)?;
        writeln!(text, "{name}_count {cumulative}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_include_their_bound() {
        let histogram = Histogram::new(&[0.1, 1.0]);
        for ms in [100, 101, 5000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let mut text = String::new();
        histogram.write("x", &mut text).expect("a string");
        let expected =
            "x_bucket{le=\"0.1\"} 1\nx_bucket{le=\"1\"} 2\nx_bucket{le=\"+Inf\"} 3\nx_sum 5.201\nx_count 3\n";
        assert_eq!(text, expected);
    }
}
