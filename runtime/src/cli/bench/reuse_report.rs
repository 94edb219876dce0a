//! What a cache-reuse run comes to: one row for each length and state of the cache; as JSON and as a table.

use std::fmt::Write;

use serde::Serialize;

use super::statistics::Repetitions;
use crate::cli::table::{Table, figure};

/// Time to the first token of one request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// Milliseconds from submission to the first token.
    pub ttft_ms: f64,
    /// Prompt tokens that came from a cache; `None` when the target does not say.
    pub cached_tokens: Option<usize>,
    /// How the prefix came from a lower tier.
    pub load: Option<LoadTime>,
}

/// How long blocks took from a lower tier.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct LoadTime {
    pub bytes: u64,
    pub seconds: f64,
}

/// The three requests of one repetition and the decode steps behind the last one.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    pub cold: Sample,
    pub warm: Sample,
    pub repeat: Sample,
    pub decode_steps_ms: Vec<f64>,
}

/// What had been sent before the request of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Request {
    /// Nothing with this prefix.
    Cold,
    /// The same prefix with another suffix.
    Warm,
    /// The same prompt, whole.
    Repeat,
}

/// Where the KV of the prefix came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum KvSource {
    /// It was computed.
    Computed,
    /// The pool that the model computes on.
    Device,
    /// Some cache of the endpoint; it does not say which.
    Server,
    /// Host memory.
    Host,
    /// Files that the system still had in memory.
    Disk,
    /// Files that had to come from the disk.
    DiskUncached,
    /// Files, right after a restart of the engine; the system still had them in memory.
    Restart,
}

/// All samples of one length.
#[derive(Debug, Clone, Default)]
pub(super) struct LengthSamples {
    /// Tokens of the shared prefix.
    pub prefix_len: usize,
    cold: Vec<Sample>,
    warm: Vec<Sample>,
    repeat: Vec<Sample>,
    /// Warm requests whose prefix came from a lower tier.
    lower: Vec<(KvSource, Sample)>,
    decode_steps_ms: Vec<f64>,
}

impl KvSource {
    /// The lower tiers, in the order of the rows.
    pub const LOWER: [Self; 4] = [Self::Host, Self::Disk, Self::DiskUncached, Self::Restart];

    fn words(self) -> &'static str {
        match self {
            Self::Computed => "computed",
            Self::Device => "device",
            Self::Server => "server",
            Self::Host => "host",
            Self::Disk => "disk",
            Self::DiskUncached => "disk, page cache dropped",
            Self::Restart => "after restart",
        }
    }
}

impl LengthSamples {
    /// Adds one request whose prefix came from a lower tier.
    pub fn push_lower(&mut self, source: KvSource, sample: Sample) {
        self.lower.push((source, sample));
    }

    /// No repetition yet.
    pub fn new(prefix_len: usize) -> Self {
        Self { prefix_len, ..Self::default() }
    }

    /// Adds one repetition.
    pub fn push(&mut self, measured: Measured) {
        self.cold.push(measured.cold);
        self.warm.push(measured.warm);
        self.repeat.push(measured.repeat);
        self.decode_steps_ms.extend(measured.decode_steps_ms);
    }
}

/// One line of the result.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    pub prefix_len: usize,
    pub request: Request,
    pub kv_source: KvSource,
    pub ttft_ms: Repetitions,
    /// Median of the time divided by the median of the cold one.
    pub ratio_to_cold: f64,
    /// Fewest prompt tokens that came from the cache in any repetition.
    pub cached_tokens_min: Option<usize>,
    /// Most prompt tokens that came from the cache in any repetition.
    pub cached_tokens_max: Option<usize>,
    /// Bytes per second of the loads, from the start of each to its end.
    pub load_bytes_per_s: Option<f64>,
}

/// Time of a decode step behind a prefix: no first token can come sooner.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Floor {
    pub prefix_len: usize,
    pub decode_step_ms: Repetitions,
}

/// The whole result.
#[derive(Debug, Clone)]
pub(super) struct ReuseReport {
    /// What was measured.
    pub target: String,
    pub rows: Vec<Row>,
    pub floors: Vec<Floor>,
    /// Default lengths that did not fit, with the reason.
    pub left_out: Vec<String>,
}

impl ReuseReport {
    /// A result without rows.
    pub fn new(target: String) -> Self {
        Self { target, rows: Vec::new(), floors: Vec::new(), left_out: Vec::new() }
    }

    /// Adds the rows of one length; a length without samples adds none.
    pub fn push(&mut self, samples: LengthSamples, warm_source: KvSource) {
        let LengthSamples { prefix_len, cold, warm, repeat, lower, decode_steps_ms } = samples;
        let ttft_of = |samples: &[Sample]| Repetitions::of(samples.iter().map(|sample| sample.ttft_ms).collect());
        let Some(cold_ms) = ttft_of(&cold).map(|cold| cold.median) else { return };
        let lower = KvSource::LOWER.map(|source| {
            let samples = lower.iter().filter(|(from, _)| *from == source).map(|(_, sample)| *sample).collect();
            (Request::Warm, source, samples)
        });
        let own = [
            (Request::Cold, KvSource::Computed, cold),
            (Request::Warm, warm_source, warm),
            (Request::Repeat, warm_source, repeat),
        ];
        for (request, kv_source, samples) in own.into_iter().chain(lower) {
            let Some(ttft_ms) = ttft_of(&samples) else { continue };
            let cached = || samples.iter().filter_map(|sample| sample.cached_tokens);
            self.rows.push(Row {
                prefix_len,
                request,
                kv_source,
                ratio_to_cold: ttft_ms.median / cold_ms,
                ttft_ms,
                cached_tokens_min: cached().min(),
                cached_tokens_max: cached().max(),
                load_bytes_per_s: bandwidth(&samples),
            });
        }
        self.floors.extend(Repetitions::of(decode_steps_ms).map(|decode_step_ms| Floor { prefix_len, decode_step_ms }));
    }

    /// The result for people.
    pub fn to_text(&self) -> String {
        let mut table = Table::new(&[
            "prefix",
            "request",
            "KV from",
            "TTFT ms",
            "min",
            "max",
            "of cold",
            "cached",
            "load GB/s",
            "decode step ms",
        ]);
        for row in &self.rows {
            let floor = self.floors.iter().find(|floor| floor.prefix_len == row.prefix_len);
            table.push(vec![
                row.prefix_len.to_string(),
                format!("{:?}", row.request).to_lowercase(),
                row.kv_source.words().to_owned(),
                figure(Some(row.ttft_ms.median)),
                figure(Some(row.ttft_ms.min)),
                figure(Some(row.ttft_ms.max)),
                format!("{:.2}%", row.ratio_to_cold * 100.0),
                row.cached_tokens_min.map_or_else(|| "-".to_owned(), |cached| cached.to_string()),
                figure(row.load_bytes_per_s.map(|rate| rate / 1e9)),
                figure(floor.map(|floor| floor.decode_step_ms.median)),
            ]);
        }
        let mut text = format!("{}\n\n{table}", self.target);
        for note in self.notes() {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "\n{note}");
        }
        text
    }

    /// What a reader must know before believing the ratios.
    fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = Vec::new();
        for row in &self.rows {
            let len = row.prefix_len;
            match (row.request, row.cached_tokens_min, row.cached_tokens_max) {
                (Request::Cold, _, Some(cached)) if cached > 0 => {
                    notes.push(format!("The cold runs at {len} found up to {cached} tokens in the cache: not cold."));
                }
                (Request::Warm | Request::Repeat, Some(cached), _) if cached * 2 < len => {
                    notes.push(format!("A warm run at {len} found only {cached} tokens in the cache: not warm."));
                }
                _ => {}
            }
        }
        notes.extend(self.left_out.iter().map(|length| format!("Left out: {length}")));
        notes
    }
}

/// Bandwidth over all loads; `None` where there was none.
fn bandwidth(samples: &[Sample]) -> Option<f64> {
    let loads: Vec<LoadTime> = samples.iter().filter_map(|sample| sample.load).collect();
    let seconds: f64 = loads.iter().map(|load| load.seconds).sum();
    (seconds > 0.0).then(|| loads.iter().map(|load| load.bytes).sum::<u64>() as f64 / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(ttft_ms: f64, cached_tokens: usize) -> Sample {
        Sample { ttft_ms, cached_tokens: Some(cached_tokens), load: None }
    }

    fn report(cached_cold: usize, cached_warm: usize) -> ReuseReport {
        let mut samples = LengthSamples { prefix_len: 512, ..LengthSamples::default() };
        for cold_ms in [900.0, 1000.0, 1300.0] {
            samples.push(Measured {
                cold: sample(cold_ms, cached_cold),
                warm: sample(cold_ms / 50.0, cached_warm),
                repeat: sample(12.0, cached_warm + 16),
                decode_steps_ms: vec![8.0, 9.0, 10.0],
            });
        }
        let mut report = ReuseReport::new("test".to_owned());
        report.push(samples, KvSource::Device);
        report
    }

    #[test]
    fn every_length_has_a_row_for_each_state_of_the_cache() {
        let report = report(0, 512);
        let rows: Vec<_> = report.rows.iter().map(|row| (row.request, row.kv_source, row.ttft_ms.median)).collect();
        let expected = [
            (Request::Cold, KvSource::Computed, 1000.0),
            (Request::Warm, KvSource::Device, 20.0),
            (Request::Repeat, KvSource::Device, 12.0),
        ];
        assert_eq!(rows, expected);
        assert_eq!(report.rows[1].ratio_to_cold, 0.02);
        assert_eq!(report.floors[0].decode_step_ms.median, 9.0);
        assert!(report.to_text().contains("2.00%"), "{}", report.to_text());
        assert!(report.notes().is_empty());
    }

    #[test]
    fn a_cold_run_that_was_not_cold_and_a_warm_one_that_was_not_warm_are_said() {
        let notes = report(480, 0).notes().join("\n");
        assert!(notes.contains("not cold") && notes.contains("not warm"), "{notes}");
    }

    #[test]
    fn a_length_without_samples_adds_nothing() {
        let mut report = ReuseReport::new("test".to_owned());
        report.push(LengthSamples { prefix_len: 8192, ..LengthSamples::default() }, KvSource::Device);
        report.left_out.push("8192: too long".to_owned());
        assert!(report.rows.is_empty() && report.floors.is_empty());
        assert!(report.to_text().contains("Left out: 8192: too long"));
    }
}
