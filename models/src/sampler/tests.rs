//! Sampling against exact probabilities and hand-computed penalties; every random test has a fixed seed.

use super::*;

fn sampler(params: SamplingParams, prompt: &[u32], vocab_size: usize) -> Sampler {
    Sampler::new(params, prompt, vocab_size).expect("valid parameters")
}

fn seeded(seed: u64) -> SamplingParams {
    SamplingParams { seed: Some(seed), ..SamplingParams::default() }
}

/// How often each token is drawn from the same logits.
fn histogram(params: &SamplingParams, logits: &[f32], num_draws: usize) -> Vec<usize> {
    let mut sampler = sampler(params.clone(), &[], logits.len());
    let mut counts = vec![0; logits.len()];
    for _ in 0..num_draws {
        counts[sampler.sample(logits).expect("finite") as usize] += 1;
    }
    counts
}

/// Pearson's statistic of counts against probabilities; tokens of probability 0 must not occur.
fn chi_square(counts: &[usize], probabilities: &[f64]) -> f64 {
    let total: usize = counts.iter().sum();
    let term = |(count, probability): (&usize, &f64)| {
        if *probability == 0.0 {
            assert_eq!(*count, 0, "a token that cannot be drawn was drawn");
            return 0.0;
        }
        let expected = probability * total as f64;
        (*count as f64 - expected).powi(2) / expected
    };
    counts.iter().zip(probabilities).map(term).sum()
}

fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let weights: Vec<f64> = logits.iter().map(|logit| (f64::from(*logit) / temperature).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

/// Keeps the given tokens and makes their probabilities sum to 1.
fn restricted(probabilities: &[f64], kept: &[usize]) -> Vec<f64> {
    let sum: f64 = kept.iter().map(|token| probabilities[*token]).sum();
    (0..probabilities.len()).map(|t| if kept.contains(&t) { probabilities[t] / sum } else { 0.0 }).collect()
}

const LOGITS: [f32; 8] = [1.0, 2.0, 0.0, 1.5, -1.0, 0.5, 2.2, -3.0];
const NUM_DRAWS: usize = 40_000;
/// 7 degrees of freedom: exceeded with probability 0.001 by a correct sampler; the seeds are fixed.
const CHI_SQUARE_MAX: f64 = 24.3;

#[test]
fn draws_follow_the_softmax_at_every_temperature() {
    for (seed, temperature) in [(1, 1.0f32), (2, 0.5), (3, 2.0)] {
        let params = SamplingParams { temperature, ..seeded(seed) };
        let statistic = chi_square(&histogram(&params, &LOGITS, NUM_DRAWS), &softmax(&LOGITS, f64::from(temperature)));
        assert!(statistic < CHI_SQUARE_MAX, "seed {seed}, temperature {temperature}: {statistic}");
    }
}

#[test]
fn top_k_top_p_and_min_p_keep_the_right_tokens_in_the_right_proportions() {
    let probabilities = softmax(&LOGITS, 1.0);
    // Descending: 6 (0.338), 1 (0.277), 3 (0.168), 0 (0.102), 5 (0.062), 2, 4, 7: sums 0.338, 0.615, 0.783, 0.885.
    let cases: [(SamplingParams, &[usize]); 6] = [
        (SamplingParams { top_k: Some(3), ..seeded(11) }, &[6, 1, 3]),
        (SamplingParams { top_p: 0.6, ..seeded(12) }, &[6, 1]),
        (SamplingParams { top_p: 0.62, ..seeded(13) }, &[6, 1, 3]),
        // Of the three most likely, the first two make up 78%.
        (SamplingParams { top_k: Some(3), top_p: 0.75, ..seeded(14) }, &[6, 1]),
        (SamplingParams { min_p: 0.25, ..seeded(15) }, &[6, 1, 3, 0]),
        (SamplingParams { top_p: 0.9, min_p: 0.4, ..seeded(16) }, &[6, 1, 3]),
    ];
    for (params, kept) in cases {
        let statistic = chi_square(&histogram(&params, &LOGITS, NUM_DRAWS), &restricted(&probabilities, kept));
        assert!(statistic < CHI_SQUARE_MAX, "{params:?}: {statistic}");
    }
}

#[test]
fn limits_that_exclude_nothing_change_nothing() {
    let draws = |params: SamplingParams| histogram(&params, &LOGITS, 500);
    let base = draws(seeded(5));
    assert_eq!(base, draws(SamplingParams { top_k: Some(8), ..seeded(5) }));
    assert_eq!(base, draws(SamplingParams { top_k: Some(1000), ..seeded(5) }));
}

#[test]
fn top_p_finds_its_tokens_in_a_large_vocabulary() {
    // 20,000 tokens in a scrambled order, each e^-0.001 as likely as the one before.
    let vocab_size = 20_000;
    let rank = |token: usize| (token * 7919) % vocab_size;
    let logits: Vec<f32> = (0..vocab_size).map(|token| rank(token) as f32 * -0.001).collect();
    let params = SamplingParams { top_p: 0.5, ..seeded(21) };
    let counts = histogram(&params, &logits, 3000);
    // The first n have mass (1 - e^(-n/1000)) / (1 - e^-20): half of it is reached at n = 694.
    let worst = (0..vocab_size).filter(|token| counts[*token] > 0).map(rank).max().expect("draws");
    assert!((600..694).contains(&worst), "{worst}");
}

#[test]
fn greedy_takes_the_lowest_id_of_the_largest() {
    let mut greedy = sampler(SamplingParams::greedy(), &[], 5);
    assert_eq!(greedy.sample(&[0.0, 3.0, 1.0, 3.0, -1.0]).expect("finite"), 1);
    assert_eq!(greedy.sample(&[-0.0, 0.0, 0.0, -5.0, -1.0]).expect("finite"), 0);
    assert_eq!(
        greedy.sample(&[f32::NEG_INFINITY; 4].iter().copied().chain([1.0]).collect::<Vec<_>>()).expect("one"),
        4
    );
    let top_1 = SamplingParams { top_k: Some(1), ..seeded(9) };
    assert_eq!(histogram(&top_1, &[1.0, 3.0, 3.0], 50), [0, 50, 0]);
}

#[test]
fn penalties_are_the_hand_computed_ones() {
    let params = SamplingParams {
        temperature: 0.0,
        repetition_penalty: 2.0,
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        logit_bias: vec![(4, 1.0)],
        ..SamplingParams::default()
    };
    let mut sampler = sampler(params, &[0, 1], 5);
    sampler.record(2);
    sampler.record(2);
    sampler.record(1);
    let mut logits = [3.0, -1.0, 2.0, 0.75, -0.5];
    sampler.adjust(&mut logits);
    // 0: prompt only, 3 / 2. 1: -1 * 2, then once in the output, 0.25 + 0.5. 2: 2 / 2, twice, 2 * 0.25 + 0.5.
    assert_eq!(logits, [1.5, -2.75, 0.0, 0.75, 0.5]);
    assert_eq!(sampler.sample(&[3.0, -1.0, 2.0, 0.75, -0.5]).expect("finite"), 0);
}

#[test]
fn a_bias_can_force_or_forbid_a_token() {
    let force = SamplingParams { logit_bias: vec![(7, 100.0)], ..seeded(1) };
    assert_eq!(histogram(&force, &LOGITS, 100)[7], 100);
    let forbid = SamplingParams { logit_bias: vec![(6, -100.0)], ..SamplingParams::greedy() };
    assert_eq!(histogram(&forbid, &LOGITS, 3)[1], 3);
    let error = Sampler::new(SamplingParams { logit_bias: vec![(8, 1.0)], ..seeded(1) }, &[], 8).expect_err("no token");
    assert_eq!((error.name, error.value.as_str()), ("logit_bias", "8"));
}

#[test]
fn the_same_seed_gives_the_same_choices_and_others_differ() {
    let run = |seed| {
        let mut sampler = sampler(seeded(seed), &[], 8);
        (0..64).map(|_| sampler.sample(&LOGITS).expect("finite")).collect::<Vec<_>>()
    };
    assert_eq!(run(42), run(42));
    assert_ne!(run(42), run(43));
    let unseeded = || {
        let mut sampler = sampler(SamplingParams::default(), &[], 8);
        (0..64).map(|_| sampler.sample(&LOGITS).expect("finite")).collect::<Vec<_>>()
    };
    assert_ne!(unseeded(), unseeded());
}

#[test]
fn logits_that_are_no_numbers_are_an_error_and_record_nothing() {
    let mut sampler = sampler(seeded(1), &[], 3);
    let before = sampler.clone();
    for (bad, at) in [(f32::NAN, 1), (f32::INFINITY, 2)] {
        let mut logits = [0.0, 1.0, 2.0];
        logits[at] = bad;
        match sampler.sample(&logits) {
            Err(ModelError::NotFiniteLogit { token, .. }) => assert_eq!(token as usize, at),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(sampler.sample(&[f32::NEG_INFINITY; 3]), Err(ModelError::NotFiniteLogit { .. })));
    assert!(matches!(sampler.sample(&[0.0; 2]), Err(ModelError::LogitCount { expected: 3, got: 2 })));
    assert_eq!(sampler.step, before.step);
}

#[test]
fn extreme_logits_and_temperatures_stay_exact() {
    let params = SamplingParams { temperature: 1e-30, ..seeded(1) };
    assert_eq!(histogram(&params, &[1e30, -1e30, 1.0001e30], 20), [0, 0, 20]);
    let params = SamplingParams { temperature: 1e-30, top_p: 0.5, min_p: 0.1, top_k: Some(2), ..seeded(1) };
    assert_eq!(histogram(&params, &[f32::MIN, f32::MAX, 0.0], 20), [0, 20, 0]);
}
