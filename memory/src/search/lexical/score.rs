//! BM25 in fixed point: sums of whole numbers come out the same in any order, so a skipping search equals a naive one.

use crate::search::SearchError;
use crate::search::analyzer::TERM_FREQUENCY_MAX;

/// Parameters of BM25 (Robertson & Zaragoza, 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", 3.5).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bm25 {
    k1: f32,
    b: f32,
}

impl Bm25 {
    /// `k1`: how soon repetitions of a term stop to count; `b`: how much a long text is held against it.
    ///
    /// # Errors
    /// [`SearchError::InvalidParameter`] unless `k1` is in 0..=10 and `b` in 0..=1.
    pub fn new(k1: f32, b: f32) -> Result<Self, SearchError> {
        let check = |name, value: f32, max: f32, expected| match (0.0..=max).contains(&value) {
            true => Ok(()),
            false => Err(SearchError::InvalidParameter { name, value: f64::from(value), expected }),
        };
        check("k1", k1, 10.0, "from 0 to 10")?;
        check("b", b, 1.0, "from 0 to 1")?;
        Ok(Self { k1, b })
    }
}

impl Default for Bm25 {
    /// Chosen on the training claims of SciFact (example `scifact_lexical`, which prints the grid): nDCG@10 0.709
    /// there, 0.690 on its validation claims. It is flat around: 0.70 to 0.71 there for k1 from 0.9 to 1.5 and b from
    /// 0.3 to 0.75.
    fn default() -> Self {
        Self { k1: 1.2, b: 0.6 }
    }
}

/// One unit of a score in fixed point. 64 terms of the greatest weight (ln 2^25, see [`Weigh`]) stay below `u32::MAX`.
const ONE: f32 = (1 << 20) as f32;

/// A fixed-point score as callers see it.
pub(super) fn to_score(fixed: u32) -> f32 {
    (f64::from(fixed) / f64::from(ONE)) as f32
}

/// Weighs the postings of one term: `idf / (1 + norm / frequency)` with `idf = ln(1 + (N - n + 0.5) / (n + 0.5))`,
/// `norm = k1 (1 - b + b len / len_mean)`. This is BM25 without its constant factor `k1 + 1`, as in Lucene.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weigh {
    idf: f32,
    norm_base: f32,
    norm_per_word: f32,
}

impl Weigh {
    /// For a term in `num_with_term` of `num_texts` texts with `num_words` words in all.
    pub fn new(bm25: Bm25, num_with_term: usize, num_texts: usize, num_words: u64) -> Self {
        let (with, all) = (num_with_term as f64, num_texts as f64);
        let idf = (1.0 + (all - with + 0.5) / (with + 0.5)).ln();
        let len_mean = (num_words.max(1) as f64 / all.max(1.0)) as f32;
        Self { idf: idf as f32 * ONE, norm_base: bm25.k1 * (1.0 - bm25.b), norm_per_word: bm25.k1 * bm25.b / len_mean }
    }

    /// Contribution to a score, in fixed point; at least 1, so that a match is never a score of 0.
    ///
    /// Each step rounds monotonically, so this rises with the frequency and falls with the length without exception:
    /// the bounds of a posting list rest on that.
    pub fn weight(self, frequency: u8, len: u32) -> u32 {
        let norm = self.norm_base + self.norm_per_word * len as f32;
        (self.idf / (1.0 + norm * INVERSE[usize::from(frequency)])) as u32 + 1
    }
}

/// `1 / frequency`; a product is cheaper than a second division.
const INVERSE: [f32; TERM_FREQUENCY_MAX as usize + 1] = {
    let mut inverse = [0.0; TERM_FREQUENCY_MAX as usize + 1];
    let mut frequency = 1;
    while frequency < inverse.len() {
        inverse[frequency] = 1.0 / frequency as f32;
        frequency += 1;
    }
    inverse
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_rise_with_frequency_and_fall_with_length() {
        for bm25 in [Bm25::default(), Bm25::new(0.0, 0.0).expect("valid"), Bm25::new(10.0, 1.0).expect("valid")] {
            let weigh = Weigh::new(bm25, 3, 1000, 17_000);
            for len in 1..300 {
                for frequency in 1..255 {
                    assert!(weigh.weight(frequency, len) <= weigh.weight(frequency + 1, len));
                    assert!(weigh.weight(frequency, len) >= weigh.weight(frequency, len + 1));
                }
            }
        }
    }

    #[test]
    fn the_greatest_score_fits() {
        let most = Weigh::new(Bm25::new(0.0, 0.0).expect("valid"), 1, 1 << 24, 1 << 24).weight(1, 1);
        assert!(most.checked_mul(super::super::QUERY_TERMS_MAX as u32).is_some(), "{most}");
        let least = Weigh::new(Bm25::default(), 1 << 24, 1 << 24, 1 << 24).weight(1, u32::MAX);
        assert!(least >= 1);
    }

    #[test]
    fn parameters_out_of_range_are_refused() {
        for (k1, b) in [(f32::NAN, 0.5), (-0.1, 0.5), (11.0, 0.5), (1.0, 1.1), (1.0, f32::NAN)] {
            assert!(matches!(Bm25::new(k1, b), Err(SearchError::InvalidParameter { .. })), "{k1} {b}");
        }
    }
}
