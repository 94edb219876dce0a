//! Sequences through scheduler and model: batched, cached and preempted ones against lonely, cold, uninterrupted ones.

use std::ops::Range;

use kernels::DType;
use memos_tests::driver::{Answer, Driver, Limits, Prompt};
use memos_tests::reference_case::ReferenceCase;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use scheduler::PrefixReuse;

use crate::{CASES, SEED, assert_same, load, prompts_with_shared_prefixes};

fn prompts(case: &ReferenceCase, seed: u64, num_new: Range<usize>) -> Vec<Prompt> {
    let mut random = StdRng::seed_from_u64(seed);
    let all = prompts_with_shared_prefixes(case, &mut random).into_iter();
    all.map(|tokens| Prompt { tokens, num_new: random.random_range(num_new.clone()), reuse: PrefixReuse::Exact })
        .collect()
}

/// Each prompt with a driver of its own, nothing cached, nothing beside it.
fn alone(case: &ReferenceCase, prompts: &[Prompt]) -> anyhow::Result<Vec<Answer>> {
    let limits = Limits { num_blocks: 90, max_batch_tokens: 512, max_running: 1 };
    let mut answers = Vec::new();
    for prompt in prompts {
        let mut driver = Driver::new(load(case, DType::BF16)?, limits)?;
        let prompt = Prompt { reuse: PrefixReuse::Bypass, ..prompt.clone() };
        answers.extend(driver.run(&[prompt])?);
    }
    Ok(answers)
}

fn assert_same_answers(what: &str, answers: &[Answer], expected: &[Answer]) {
    for (at, (answer, expected)) in answers.iter().zip(expected).enumerate() {
        assert_eq!(answer.tokens, expected.tokens, "{what}: tokens of prompt {at} (seed {SEED})");
        assert_same(&format!("{what}, prompt {at}"), &answer.logits, &expected.logits);
    }
}

#[test]
fn batched_and_cached_answers_equal_lonely_cold_ones() -> anyhow::Result<()> {
    for name in CASES {
        let case = ReferenceCase::named(name)?;
        let prompts = prompts(&case, SEED, 1..24);
        let expected = alone(&case, &prompts)?;
        for max_batch_tokens in [8, 40, 512] {
            let limits = Limits { num_blocks: 90, max_batch_tokens, max_running: 8 };
            let mut driver = Driver::new(load(&case, DType::BF16)?, limits)?;
            let what = format!("{name}, {max_batch_tokens} rows a step");
            assert_same_answers(&format!("{what}, cold"), &driver.run(&prompts)?, &expected);
            let warm = driver.run(&prompts)?;
            assert_same_answers(&format!("{what}, warm"), &warm, &expected);
            for (answer, prompt) in warm.iter().zip(&prompts) {
                assert_eq!(answer.cached_tokens, (prompt.tokens.len() - 1) / 16 * 16, "{what}: full blocks are hit");
            }
            let blocks = driver.checked_blocks();
            assert_eq!(blocks.free + blocks.cached, 90, "{what}: every block is free or cached: {blocks:?}");
        }
    }
    Ok(())
}

#[test]
fn preempted_answers_equal_uninterrupted_ones() -> anyhow::Result<()> {
    for name in CASES {
        let case = ReferenceCase::named(name)?;
        // Long answers: sequences that were admitted with room to spare outgrow the pool together.
        let prompts = prompts(&case, SEED + 1, 40..70);
        let expected = alone(&case, &prompts)?;
        let mut num_preemptions = 0;
        for reuse in [PrefixReuse::Exact, PrefixReuse::Bypass] {
            let prompts: Vec<Prompt> = prompts.iter().map(|prompt| Prompt { reuse, ..prompt.clone() }).collect();
            let limits = Limits { num_blocks: 14, max_batch_tokens: 32, max_running: 6 };
            let mut driver = Driver::new(load(&case, DType::BF16)?, limits)?;
            let answers = driver.run(&prompts)?;
            assert_same_answers(&format!("{name}, {reuse:?}"), &answers, &expected);
            num_preemptions += answers.iter().map(|answer| answer.num_preemptions).sum::<u32>();
            let blocks = driver.checked_blocks();
            assert_eq!(blocks.free + blocks.cached, 14, "{name}: every block is free or cached: {blocks:?}");
        }
        println!("{name:24} {num_preemptions} preemptions, logits bit-identical");
        assert!(num_preemptions > 0, "{name}: nothing was preempted, so nothing was shown");
    }
    Ok(())
}
