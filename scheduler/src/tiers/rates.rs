//! Load or recompute: what moving a block costs and what computing it costs, from what was measured.
use super::Tier;

/// Weight of the newest measurement in an average.
const NEWEST_SHARE: f64 = 0.25;
/// After so many refusals in a row a load is tried all the same, so that a tier that was slow once is measured again.
const REFUSALS_BEFORE_TRIAL: u32 = 64;
/// Rows that a step must have to say anything about prefill: a decode step is bound by the weights it reads.
const ROWS_MEASURED_MIN: usize = 32;

/// What the engine measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rates {
    /// Seconds of prefill for a token at the start of a sequence.
    token_s: Option<f64>,
    links: [Link; Tier::LOWER.len()],
}

/// The way from one lower tier to the device.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    byte_s: Option<f64>,
    refusals: u32,
}

/// What prefill costs, relative to a token at the start: attention reads all tokens before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrefillCost {
    /// Context at which attention costs as much as everything else of a token.
    pub attention_half_tokens: f64,
}

/// What came of weighing a load against the computation that it spares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weighed {
    /// Blocks to load, from the first on; 0: compute everything.
    pub num_blocks: usize,
    /// Seconds that loading is expected to take, for the blocks that were offered.
    pub load_s: Option<f64>,
    /// Seconds that computing the same is expected to take.
    pub compute_s: Option<f64>,
}

impl PrefillCost {
    /// Work of a token at a position, in units of a token at the start.
    pub fn work_at(self, position: usize) -> f64 {
        1.0 + position as f64 / self.attention_half_tokens
    }

    /// Work of consecutive tokens.
    pub fn work(self, start: usize, num_tokens: usize) -> f64 {
        num_tokens as f64 * (self.work_at(start) + self.work_at(start + num_tokens)) / 2.0
    }
}

impl Rates {
    pub(crate) fn observe_prefill(&mut self, num_rows: usize, work: f64, seconds: f64) {
        if num_rows >= ROWS_MEASURED_MIN && work > 0.0 {
            average(&mut self.token_s, seconds / work);
        }
    }

    pub(crate) fn observe_load(&mut self, tier: Tier, num_bytes: u64, seconds: f64) {
        if num_bytes > 0 {
            average(&mut self.link_mut(tier).byte_s, seconds / num_bytes as f64);
        }
    }

    /// Bytes per second from a lower tier; `None` before the first load.
    pub(crate) fn bandwidth(&self, tier: Tier) -> Option<f64> {
        self.links.get(tier.lower_index()?)?.byte_s.map(|byte_s| 1.0 / byte_s)
    }

    /// Seconds of prefill for `work`; `None` before the first step.
    pub(crate) fn prefill_s(&self, work: f64) -> Option<f64> {
        self.token_s.map(|token_s| token_s * work)
    }

    /// How many of the blocks at `sources`, in order, are faster to load than to compute. `works` is the work of each.
    /// What has not been measured yet is loaded: that measures it.
    pub(crate) fn weigh(&mut self, sources: &[Tier], works: &[f64], block_bytes: u64, queued_s: f64) -> Weighed {
        let Some(&first) = sources.first() else { return Weighed { num_blocks: 0, load_s: None, compute_s: None } };
        let compute_s = self.prefill_s(works.iter().sum());
        let mut load_s = Some(queued_s);
        let (mut saved, mut best) = (-queued_s, (0.0, 0));
        for (position, (&tier, &work)) in sources.iter().zip(works).enumerate() {
            let block_s = self.bandwidth(tier).map(|bandwidth| block_bytes as f64 / bandwidth);
            load_s = load_s.zip(block_s).map(|(sum, block_s)| sum + block_s);
            match block_s.zip(self.prefill_s(work)) {
                Some((block_s, compute_s)) => saved += compute_s - block_s,
                None => saved = f64::INFINITY,
            }
            if saved > 0.0 && saved >= best.0 {
                best = (saved, position + 1);
            }
        }
        let mut num_blocks = best.1;
        let link = self.link_mut(first);
        if num_blocks > 0 {
            link.refusals = 0;
        } else {
            link.refusals += 1;
            if link.refusals >= REFUSALS_BEFORE_TRIAL {
                link.refusals = 0;
                num_blocks = sources.len();
            }
        }
        Weighed { num_blocks, load_s, compute_s }
    }

    fn link_mut(&mut self, tier: Tier) -> &mut Link {
        let index = tier.lower_index().expect("nothing is loaded from the device: this is a bug");
        &mut self.links[index]
    }
}

fn average(mean: &mut Option<f64>, newest: f64) {
    *mean = Some(mean.map_or(newest, |mean| mean + NEWEST_SHARE * (newest - mean)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK_BYTES: u64 = 1_000;
    /// 16 tokens at 1 ms each.
    const COMPUTE_S: f64 = 0.016;

    fn rates(bandwidth: f64) -> Rates {
        let mut rates = Rates::default();
        rates.observe_prefill(64, 64.0, 0.064);
        rates.observe_load(Tier::Disk, 1_000_000, 1e6 / bandwidth);
        rates
    }

    fn weigh(rates: &mut Rates, num_blocks: usize, queued_s: f64) -> usize {
        rates.weigh(&vec![Tier::Disk; num_blocks], &vec![16.0; num_blocks], BLOCK_BYTES, queued_s).num_blocks
    }

    #[test]
    fn the_decision_flips_at_the_break_even() {
        let break_even = BLOCK_BYTES as f64 / COMPUTE_S;
        assert_eq!(weigh(&mut rates(1.01 * break_even), 10, 0.0), 10);
        assert_eq!(weigh(&mut rates(0.99 * break_even), 10, 0.0), 0);
    }

    #[test]
    fn a_queue_must_be_worth_waiting_for() {
        let break_even = BLOCK_BYTES as f64 / COMPUTE_S;
        // Each block saves half of its computation.
        assert_eq!(weigh(&mut rates(2.0 * break_even), 10, 11.0 * COMPUTE_S / 2.0), 0);
        assert_eq!(weigh(&mut rates(2.0 * break_even), 12, 11.0 * COMPUTE_S / 2.0), 12);
    }

    #[test]
    fn what_was_never_measured_is_loaded_and_what_was_slow_is_tried_again() {
        assert_eq!(weigh(&mut Rates::default(), 3, 0.0), 3);
        let mut slow = rates(1.0);
        let num_trials = (0..256).filter(|_| weigh(&mut slow, 3, 0.0) > 0).count();
        assert_eq!(num_trials, 4);
    }

    #[test]
    fn a_fast_start_is_loaded_without_a_slow_rest() {
        let mut rates = rates(1.0);
        rates.observe_load(Tier::Host, 1_000_000, 1e-3);
        let sources = [Tier::Host, Tier::Host, Tier::Disk];
        assert_eq!(rates.weigh(&sources, &[16.0; 3], BLOCK_BYTES, 0.0).num_blocks, 2);
    }

    #[test]
    fn deeper_tokens_are_more_work() {
        let cost = PrefillCost { attention_half_tokens: 1_000.0 };
        assert_eq!(cost.work(0, 0), 0.0);
        assert!((cost.work(1_000, 10) - 20.05).abs() < 1e-9);
    }
}
