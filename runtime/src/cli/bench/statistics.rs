//! Samples of a measurement and what is told about them: mean, median, percentiles, extremes.

use std::time::Duration;

use serde::Serialize;

/// What a distribution of latencies is reduced to. The unit is that of the samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Distribution {
    /// Number of samples.
    pub count: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest sample.
    pub max: f64,
}

impl Distribution {
    /// Summarises samples in any order; `None` without samples.
    pub fn of(mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        let max = *samples.last()?;
        Some(Self {
            count: samples.len(),
            mean: samples.iter().sum::<f64>() / samples.len() as f64,
            p50: percentile(&samples, 50.0),
            p90: percentile(&samples, 90.0),
            p95: percentile(&samples, 95.0),
            p99: percentile(&samples, 99.0),
            max,
        })
    }
}

/// Median and extremes of a few repetitions. The unit is that of the samples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Repetitions {
    /// Median.
    pub median: f64,
    /// Smallest sample.
    pub min: f64,
    /// Largest sample.
    pub max: f64,
    /// All of them, in the order in which they were taken.
    pub samples: Vec<f64>,
}

impl Repetitions {
    /// Summarises repetitions; `None` without any.
    pub fn of(samples: Vec<f64>) -> Option<Self> {
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        Some(Self { median: percentile(&sorted, 50.0), min, max, samples })
    }
}

/// The `percent`-th percentile of ascending samples, linearly interpolated between the two nearest ranks (the default
/// of NumPy, so that figures can be compared).
///
/// # Panics
/// Without samples, or with a percentage outside 0 to 100.
pub fn percentile(ascending: &[f64], percent: f64) -> f64 {
    assert!(!ascending.is_empty(), "a percentile needs a sample");
    assert!((0.0..=100.0).contains(&percent), "{percent} is not a percentage");
    let rank = percent / 100.0 * (ascending.len() - 1) as f64;
    let below = ascending[rank.floor() as usize];
    let above = ascending[rank.ceil() as usize];
    below + (above - below) * rank.fract()
}

/// A duration in milliseconds with its fraction.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_interpolate_between_the_nearest_ranks() {
        let samples = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(percentile(&samples, 0.0), 1.0);
        assert_eq!(percentile(&samples, 50.0), 2.5);
        assert_eq!(percentile(&samples, 100.0), 4.0);
        assert!((percentile(&samples, 90.0) - 3.7).abs() < 1e-12);
        assert_eq!(percentile(&[7.0], 99.0), 7.0);
    }

    #[test]
    fn a_distribution_does_not_depend_on_the_order_of_its_samples() {
        let ascending: Vec<f64> = (1..=100).map(f64::from).collect();
        let shuffled: Vec<f64> = (0..100).map(|i| f64::from(i * 37 % 100 + 1)).collect();
        let distribution = Distribution::of(ascending).expect("samples");
        assert_eq!(Distribution::of(shuffled), Some(distribution));
        assert_eq!((distribution.count, distribution.mean, distribution.max), (100, 50.5, 100.0));
        assert!((distribution.p99 - 99.01).abs() < 1e-9);
        assert!(distribution.p50 < distribution.p90 && distribution.p90 < distribution.p95);
    }

    #[test]
    fn nothing_measured_is_not_zero() {
        assert_eq!(Distribution::of(Vec::new()), None);
        assert_eq!(Repetitions::of(Vec::new()), None);
    }

    #[test]
    fn repetitions_keep_their_order_beside_median_and_extremes() {
        let repetitions = Repetitions::of(vec![3.0, 1.0, 2.0]).expect("samples");
        assert_eq!((repetitions.median, repetitions.min, repetitions.max), (2.0, 1.0, 3.0));
        assert_eq!(repetitions.samples, [3.0, 1.0, 2.0]);
    }
}
