//! Rows of forward passes: split, mixed, shuffled, recomputed, on other blocks and threads, against one whole prefill.

use std::ops::Range;

use kernels::DType;
use memos_tests::paged_model::{PagedModel, PagedOptions, Piece};
use memos_tests::reference_case::ReferenceCase;
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};

use crate::{CASES, SEED, assert_same, load};

fn positions(range: Range<usize>) -> Vec<u32> {
    range.map(|position| position as u32).collect()
}

/// Logits of all rows of a sequence computed alone, in one piece.
fn whole(model: &mut PagedModel, tokens: &[u32]) -> anyhow::Result<Vec<Vec<f32>>> {
    let block_table: Vec<u32> = (0..tokens.len().div_ceil(model.block_size()) as u32).collect();
    model.extend(0, tokens, &block_table)
}

/// Runs a check for every case and all kinds of KV precision.
fn for_each_case(check: impl Fn(&str, &ReferenceCase, DType) -> anyhow::Result<()>) -> anyhow::Result<()> {
    for name in CASES {
        let case = ReferenceCase::named(name)?;
        for kv_dtype in [DType::F32, DType::BF16, DType::F16] {
            check(&format!("{name}, KV in {kv_dtype}"), &case, kv_dtype)?;
        }
    }
    Ok(())
}

#[test]
fn chunked_prefill_equals_whole_prefill() -> anyhow::Result<()> {
    for_each_case(|what, case, kv_dtype| {
        let mut model = load(case, kv_dtype)?;
        let tokens = &case.longest_prompt()[..150];
        let expected = whole(&mut model, tokens)?;
        // Other blocks than the first run's, so that nothing can be left over from it.
        let block_table: Vec<u32> = (40..60).rev().collect();
        for chunk_len in [1, 2, 7, 15, 16, 17, 64, 149] {
            let mut logits = Vec::new();
            for (index, chunk) in tokens.chunks(chunk_len).enumerate() {
                logits.extend(model.extend(index * chunk_len, chunk, &block_table)?);
            }
            assert_same(&format!("{what}, chunks of {chunk_len}"), &logits, &expected);
        }
        Ok(())
    })
}

#[test]
fn a_mixed_batch_equals_single_sequences() -> anyhow::Result<()> {
    for_each_case(|what, case, kv_dtype| {
        let mut model = load(case, kv_dtype)?;
        let source = case.longest_prompt();
        let sequences: Vec<Vec<u32>> =
            [1usize, 16, 33, 90, 2].iter().map(|&len| source[len..2 * len + 1].to_vec()).collect();
        let expected: anyhow::Result<Vec<_>> = sequences.iter().map(|tokens| whole(&mut model, tokens)).collect();
        let expected = expected?;
        let tables: Vec<Vec<u32>> = (0..5u32).map(|at| (at * 10 + 30..at * 10 + 40).rev().collect()).collect();
        // First a part of each, then the rest of each: one is down to a decode, others are still in their prompt.
        let splits: Vec<usize> = sequences.iter().map(|tokens| (tokens.len() - 1).min(20)).collect();
        let mut logits = vec![Vec::new(); sequences.len()];
        for part in 0..2 {
            let ranges: Vec<Range<usize>> = sequences
                .iter()
                .zip(&splits)
                .map(|(tokens, &split)| if part == 0 { 0..split } else { split..tokens.len() })
                .collect();
            let rows: Vec<Vec<u32>> = ranges.iter().cloned().map(positions).collect();
            let present: Vec<usize> = (0..sequences.len()).filter(|&at| !ranges[at].is_empty()).collect();
            let pieces: Vec<Piece<'_>> = present
                .iter()
                .map(|&at| Piece {
                    tokens: &sequences[at][ranges[at].clone()],
                    positions: &rows[at],
                    block_table: &tables[at],
                })
                .collect();
            let mut all = model.forward(&pieces)?.into_iter();
            for at in present {
                logits[at].extend(all.by_ref().take(ranges[at].len()));
            }
        }
        for at in 0..sequences.len() {
            assert_same(&format!("{what}, sequence {at}"), &logits[at], &expected[at]);
        }
        Ok(())
    })
}

#[test]
fn rows_may_come_in_any_order_and_with_gaps() -> anyhow::Result<()> {
    for_each_case(|what, case, kv_dtype| {
        let mut random = StdRng::seed_from_u64(SEED);
        let mut model = load(case, kv_dtype)?;
        let tokens = &case.longest_prompt()[..100];
        let expected = whole(&mut model, tokens)?;
        let block_table: Vec<u32> = (50..57).collect();
        let mut order = positions(0..tokens.len());
        order.shuffle(&mut random);
        let shuffled: Vec<u32> = order.iter().map(|&position| tokens[position as usize]).collect();
        let logits = model.forward(&[Piece { tokens: &shuffled, positions: &order, block_table: &block_table }])?;
        let sorted: Vec<Vec<f32>> = order.iter().map(|&position| expected[position as usize].clone()).collect();
        assert_same(&format!("{what}, shuffled"), &logits, &sorted);
        // With the whole sequence in place, a few rows computed again see what they saw before.
        let some: Vec<u32> = [3u32, 16, 17, 40, 63, 99].into();
        let again: Vec<u32> = some.iter().map(|&position| tokens[position as usize]).collect();
        let logits = model.forward(&[Piece { tokens: &again, positions: &some, block_table: &block_table }])?;
        let sorted: Vec<Vec<f32>> = some.iter().map(|&position| expected[position as usize].clone()).collect();
        assert_same(&format!("{what}, recomputed with gaps"), &logits, &sorted);
        Ok(())
    })
}

#[test]
fn the_number_of_threads_and_the_block_size_change_nothing() -> anyhow::Result<()> {
    for name in CASES {
        let case = ReferenceCase::named(name)?;
        let tokens = &case.longest_prompt()[..130];
        let mut expected: Option<Vec<Vec<f32>>> = None;
        for (num_threads, block_size) in [(1, 16), (2, 16), (3, 16), (2, 32), (5, 64)] {
            let options = PagedOptions { num_threads, block_size, ..PagedOptions::default() };
            let logits = whole(&mut PagedModel::load(&case.folder, &options)?, tokens)?;
            let what = format!("{name}, {num_threads} threads, blocks of {block_size}");
            match &expected {
                Some(expected) => assert_same(&what, &logits, expected),
                None => expected = Some(logits),
            }
        }
    }
    Ok(())
}
