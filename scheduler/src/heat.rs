//! How much a cached block is worth keeping: its past uses, each weighted by the work it saved, fading as time goes on.

/// The base-2 logarithm of a sum of uses. A use at time `t` (in half-lives) that saved `2^w` units of work adds
/// `2^(t + w)`: later uses weigh more, so nothing has to be recomputed when time passes, and the order of two heats never
/// changes without a use. That is LRFU (Lee et al., 2001) with the work saved as weight.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Heat(f64);

impl Heat {
    /// Never used.
    pub const COLD: Heat = Heat(f64::NEG_INFINITY);

    /// One use at a time, in half-lives, that saved `2^weight_log2` units of work.
    pub fn use_at(half_lives: f64, weight_log2: f64) -> Heat {
        Heat(half_lives + weight_log2)
    }

    /// Both sums of uses together.
    #[must_use]
    pub fn plus(self, other: Heat) -> Heat {
        let (high, low) = if self.0 >= other.0 { (self.0, other.0) } else { (other.0, self.0) };
        if low == f64::NEG_INFINITY {
            return Heat(high);
        }
        Heat(high + (low - high).exp2().ln_1p() * std::f64::consts::LOG2_E)
    }

    /// The logarithm: how hot, in half-lives on the axis of time. A single use of unit weight is as hot as its moment.
    pub fn half_lives(self) -> f64 {
        self.0
    }

    /// Integers in the same order.
    pub(crate) fn ordered(self) -> u64 {
        let bits = self.0.to_bits();
        if bits >> 63 == 0 { bits | (1 << 63) } else { !bits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_uses_at_one_time_are_as_hot_as_one_a_half_life_later() {
        let two = Heat::use_at(3.0, 0.0).plus(Heat::use_at(3.0, 0.0));
        assert!((two.half_lives() - 4.0).abs() < 1e-12);
        assert_eq!(Heat::COLD.plus(Heat::use_at(1.5, 0.0)), Heat::use_at(1.5, 0.0));
        assert_eq!(Heat::COLD.plus(Heat::COLD), Heat::COLD);
    }

    #[test]
    fn work_saved_counts_like_uses() {
        assert_eq!(Heat::use_at(2.0, 1.0), Heat::use_at(2.0, 0.0).plus(Heat::use_at(2.0, 0.0)));
    }

    #[test]
    fn ordered_integers_keep_the_order() {
        let heats = [f64::NEG_INFINITY, -7.5, -0.25, 0.0, 0.5, 3.0, 1e9].map(Heat);
        assert!(heats.windows(2).all(|pair| pair[0].ordered() < pair[1].ordered()));
    }
}
