//! What a load run comes to: throughput, latency distributions, failures by kind; as JSON and as tables.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::load::{Answer, Record};
use super::statistics::{Distribution, milliseconds};
use crate::cli::table::{Table, figure};

/// Result of `memos bench serve`. Latencies are in milliseconds and count from the moment a request was due.
#[derive(Debug, Clone, Serialize)]
pub struct ServeReport {
    /// Requests that were sent.
    pub num_requests: usize,
    /// Complete answers.
    pub num_successes: usize,
    /// The others.
    pub num_failures: usize,
    /// The others by kind.
    pub failures: BTreeMap<String, FailureCount>,
    /// From the start to the end of the last request.
    pub duration_s: f64,
    /// Most requests that were in flight at the same time.
    pub peak_in_flight: usize,
    /// Complete answers a second.
    pub requests_per_s: f64,
    /// Generated tokens of complete answers a second.
    pub output_tokens_per_s: f64,
    /// Prompt and generated tokens a second; `None` when the server does not count.
    pub total_tokens_per_s: Option<f64>,
    /// Prompt tokens of complete answers; `None` when the server does not count.
    pub prompt_tokens: Option<usize>,
    /// Those of them that came from the server's cache; `None` when the server does not say.
    pub cached_tokens: Option<usize>,
    /// Generated tokens of complete answers.
    pub output_tokens: usize,
    /// Complete answers whose tokens the server counted; for the others each event with text is one token.
    pub num_counted_by_server: usize,
    /// Generated tokens that an event with text carried on average.
    pub tokens_per_event: Option<f64>,
    /// Time to the first event with text.
    pub time_to_first_token_ms: Option<Distribution>,
    /// Gaps between two events with text, over all answers.
    pub inter_token_latency_ms: Option<Distribution>,
    /// One figure an answer: time from its first to its last event with text, by its tokens less one.
    pub time_per_output_token_ms: Option<Distribution>,
    /// Time to the end of the answer.
    pub end_to_end_ms: Option<Distribution>,
    /// Time a due request waited in the client because `concurrency` others were in flight; part of the latencies.
    pub client_wait_ms: Option<Distribution>,
}

/// Failures of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailureCount {
    /// How many.
    pub count: usize,
    /// What the first one said.
    pub example: String,
}

impl ServeReport {
    /// Evaluates the records of a run.
    pub fn of(records: &[Record]) -> Self {
        let duration_s = records.iter().map(|record| record.ended).max().unwrap_or_default().as_secs_f64();
        let successes: Vec<(&Record, &Answer)> =
            records.iter().filter_map(|record| Some((record, record.outcome.as_ref().ok()?))).collect();
        let answers = || successes.iter().map(|(_record, answer)| *answer);
        let usages = || answers().filter_map(|answer| answer.usage);
        let num_counted_by_server = usages().count();
        let output_tokens = answers().map(Answer::output_tokens).sum();
        let prompt_tokens =
            (num_counted_by_server > 0).then(|| usages().map(|usage| usage.prompt_tokens).sum::<usize>());
        let cached: Vec<usize> = usages().filter_map(|usage| usage.cached_tokens).collect();
        let num_events: usize = answers().map(|answer| answer.text_events.len()).sum();
        let per_second = |count: usize| if duration_s > 0.0 { count as f64 / duration_s } else { 0.0 };
        Self {
            num_requests: records.len(),
            num_successes: successes.len(),
            num_failures: records.len() - successes.len(),
            failures: count_failures(records),
            duration_s,
            peak_in_flight: peak_in_flight(records),
            requests_per_s: per_second(successes.len()),
            output_tokens_per_s: per_second(output_tokens),
            total_tokens_per_s: prompt_tokens.map(|prompt_tokens| per_second(prompt_tokens + output_tokens)),
            prompt_tokens,
            cached_tokens: (!cached.is_empty()).then(|| cached.iter().sum()),
            output_tokens,
            num_counted_by_server,
            tokens_per_event: (num_events > 0).then(|| output_tokens as f64 / num_events as f64),
            time_to_first_token_ms: distribution(
                successes
                    .iter()
                    .filter_map(|(record, answer)| answer.text_events.first().map(|first| *first - record.due)),
            ),
            inter_token_latency_ms: distribution(
                answers().flat_map(|answer| answer.text_events.windows(2).map(|pair| pair[1] - pair[0])),
            ),
            time_per_output_token_ms: distribution(answers().filter_map(Answer::mean_step)),
            end_to_end_ms: distribution(successes.iter().map(|(record, _answer)| record.ended - record.due)),
            client_wait_ms: distribution(records.iter().map(|record| record.sent - record.due)),
        }
    }

    /// The report for people.
    pub fn to_text(&self) -> String {
        let mut summary = Table::new(&["", "total", "per second"]);
        let mut row = |name: &str, total: String, rate: Option<f64>| {
            summary.push(vec![name.to_owned(), total, rate.map_or_else(String::new, |rate| figure(Some(rate)))]);
        };
        row("answers", format!("{} of {}", self.num_successes, self.num_requests), Some(self.requests_per_s));
        row("output tokens", self.output_tokens.to_string(), Some(self.output_tokens_per_s));
        if let Some(prompt_tokens) = self.prompt_tokens {
            row("prompt tokens", prompt_tokens.to_string(), Some(prompt_tokens as f64 / self.duration_s));
        }
        if let Some(cached_tokens) = self.cached_tokens {
            row("prompt tokens from the cache", cached_tokens.to_string(), None);
        }
        row("seconds", figure(Some(self.duration_s)), None);
        row("peak in flight", self.peak_in_flight.to_string(), None);
        let mut latency = Table::new(&["milliseconds", "mean", "p50", "p90", "p95", "p99", "max"]);
        for (name, distribution) in [
            ("time to first token", &self.time_to_first_token_ms),
            ("inter-token latency", &self.inter_token_latency_ms),
            ("time per output token", &self.time_per_output_token_ms),
            ("end to end", &self.end_to_end_ms),
            ("of it waiting in the client", &self.client_wait_ms),
        ] {
            let value = |of: fn(&Distribution) -> f64| figure(distribution.as_ref().map(of));
            latency.push(vec![
                name.to_owned(),
                value(|d| d.mean),
                value(|d| d.p50),
                value(|d| d.p90),
                value(|d| d.p95),
                value(|d| d.p99),
                value(|d| d.max),
            ]);
        }
        let mut text = format!("{summary}\n{latency}");
        self.add_notes(&mut text);
        text
    }

    fn add_notes(&self, text: &mut String) {
        // Writing into a String cannot fail.
        if self.num_counted_by_server < self.num_successes {
            let uncounted = self.num_successes - self.num_counted_by_server;
            let _ =
                writeln!(text, "\n{uncounted} answers came without usage: each event with text counts as one token.");
        }
        if let Some(tokens_per_event) = self.tokens_per_event.filter(|&tokens| tokens > 1.05) {
            let _ = writeln!(
                text,
                "\nAn event carried {tokens_per_event:.2} tokens on average: the inter-token latency is that of events."
            );
        }
        if self.num_failures > 0 {
            let _ = writeln!(text, "\n{} failed:", self.num_failures);
            for (kind, failure) in &self.failures {
                let _ = writeln!(text, "  {} x {kind}, for example: {}", failure.count, failure.example);
            }
        }
    }
}

fn distribution(durations: impl Iterator<Item = Duration>) -> Option<Distribution> {
    Distribution::of(durations.map(milliseconds).collect())
}

fn count_failures(records: &[Record]) -> BTreeMap<String, FailureCount> {
    let mut failures: BTreeMap<String, FailureCount> = BTreeMap::new();
    for failure in records.iter().filter_map(|record| record.outcome.as_ref().err()) {
        failures
            .entry(failure.kind.clone())
            .and_modify(|known| known.count += 1)
            .or_insert_with(|| FailureCount { count: 1, example: failure.message.clone() });
    }
    failures
}

fn peak_in_flight(records: &[Record]) -> usize {
    // Ends sort before beginnings of the same instant: a place that is handed on is not counted twice.
    let mut changes: Vec<(Duration, isize)> =
        records.iter().flat_map(|record| [(record.sent, 1), (record.ended, -1)]).collect();
    changes.sort_unstable();
    let mut in_flight = 0isize;
    changes.iter().fold(0, |peak, (_at, change)| {
        in_flight += change;
        peak.max(in_flight.unsigned_abs())
    })
}

#[cfg(test)]
mod tests {
    use super::super::load::Failure;
    use super::*;
    use crate::client::Usage;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn answered(due: u64, sent: u64, text_events: &[u64], usage: Option<Usage>) -> Record {
        let text_events: Vec<Duration> = text_events.iter().map(|&at| ms(at)).collect();
        let ended = text_events.last().copied().unwrap_or(ms(sent)) + ms(5);
        Record { due: ms(due), sent: ms(sent), ended, outcome: Ok(Answer { text_events, usage }) }
    }

    fn failed(kind: &str) -> Record {
        let failure = Failure { kind: kind.to_owned(), message: format!("{kind}!") };
        Record { due: ms(0), sent: ms(0), ended: ms(1), outcome: Err(failure) }
    }

    #[test]
    fn latencies_count_from_when_a_request_was_due() {
        let usage = Usage { prompt_tokens: 10, completion_tokens: 3, cached_tokens: Some(4) };
        let report = ServeReport::of(&[answered(100, 400, &[500, 520, 560], Some(usage))]);
        let p50 = |distribution: Option<Distribution>| distribution.expect("one sample").p50;
        assert_eq!(p50(report.time_to_first_token_ms), 400.0);
        assert_eq!(p50(report.client_wait_ms), 300.0);
        assert_eq!(p50(report.end_to_end_ms), 465.0);
        assert_eq!(p50(report.inter_token_latency_ms), 30.0);
        assert_eq!(p50(report.time_per_output_token_ms), 30.0);
        assert_eq!((report.prompt_tokens, report.cached_tokens, report.output_tokens), (Some(10), Some(4), 3));
    }

    #[test]
    fn events_are_counted_where_the_server_does_not_count() {
        let report = ServeReport::of(&[answered(0, 0, &[10, 20], None)]);
        assert_eq!((report.output_tokens, report.num_counted_by_server, report.prompt_tokens), (2, 0, None));
        assert_eq!(report.total_tokens_per_s, None);
        assert!(report.to_text().contains("1 answers came without usage"), "{}", report.to_text());
    }

    #[test]
    fn several_tokens_an_event_are_said_and_counted_by_usage() {
        let usage = Usage { prompt_tokens: 1, completion_tokens: 9, cached_tokens: None };
        let report = ServeReport::of(&[answered(0, 0, &[10, 50, 90], Some(usage))]);
        assert_eq!(report.time_per_output_token_ms.expect("one sample").p50, 10.0);
        assert!(report.to_text().contains("An event carried 3.00 tokens"), "{}", report.to_text());
    }

    #[test]
    fn failures_are_counted_by_kind_and_kept_out_of_the_latencies() {
        let report =
            ServeReport::of(&[failed("HTTP 429"), answered(0, 0, &[10], None), failed("timeout"), failed("HTTP 429")]);
        assert_eq!((report.num_successes, report.num_failures), (1, 3));
        assert_eq!(report.failures["HTTP 429"], FailureCount { count: 2, example: "HTTP 429!".to_owned() });
        assert_eq!(report.end_to_end_ms.expect("one sample").count, 1);
    }

    #[test]
    fn nothing_answered_still_makes_a_report() {
        let text = ServeReport::of(&[failed("connect")]).to_text();
        assert!(text.contains("0 of 1") && text.contains("1 x connect"), "{text}");
        assert_eq!(ServeReport::of(&[]).num_requests, 0);
    }

    #[test]
    fn a_place_handed_on_is_one_request_in_flight() {
        let first = answered(0, 0, &[5], None);
        let next = answered(10, 10, &[15], None);
        assert_eq!(peak_in_flight(&[first.clone(), next]), 1);
        assert_eq!(peak_in_flight(&[first.clone(), first]), 2);
    }
}
