//! The benchmarks' own random numbers: tiny, and the same on every machine and in every release for the same seed.

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
///
/// Each purpose takes a stream of its own, so that drawing more for one does not change another.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    /// The numbers of one `stream` of a seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut base = Self { state: seed };
        Self { state: base.next() ^ mix(stream.wrapping_mul(GOLDEN_GAMMA)) }
    }

    /// 64 random bits.
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN_GAMMA);
        mix(self.state)
    }

    /// A number in `low..high`.
    ///
    /// # Panics
    /// When the range is empty.
    pub fn below(&mut self, range: std::ops::Range<u32>) -> u32 {
        assert!(!range.is_empty(), "the range {range:?} is empty");
        // The high half of a product is uniform up to a bias of width / 2^64.
        let width = u64::from(range.end - range.start);
        range.start + ((u128::from(self.next()) * u128::from(width)) >> 64) as u32
    }

    /// A number in (0, 1].
    pub fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Random token ids from a range.
    pub fn tokens(&mut self, count: usize, range: std::ops::Range<u32>) -> Vec<u32> {
        (0..count).map(|_| self.below(range.clone())).collect()
    }
}

fn mix(state: u64) -> u64 {
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        // First outputs of SplitMix64 from state 0.
        let mut random = Random { state: 0 };
        assert_eq!(random.next(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.next(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn equal_seeds_repeat_and_streams_differ() {
        let draw = |seed, stream| Random::new(seed, stream).tokens(8, 0..1000);
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
        assert_ne!(draw(1, 2), draw(2, 1));
    }

    #[test]
    fn tokens_stay_in_their_range_and_cover_it() {
        let tokens = Random::new(7, 0).tokens(2000, 10..20);
        assert!(tokens.iter().all(|token| (10..20).contains(token)));
        assert!((10..20).all(|token| tokens.contains(&token)));
    }

    #[test]
    fn units_are_never_zero_and_average_one_half() {
        let mut random = Random::new(3, 0);
        let units: Vec<f64> = (0..10_000).map(|_| random.unit()).collect();
        assert!(units.iter().all(|&unit| unit > 0.0 && unit <= 1.0));
        let mean = units.iter().sum::<f64>() / units.len() as f64;
        assert!((mean - 0.5).abs() < 0.01, "mean {mean}");
    }
}
