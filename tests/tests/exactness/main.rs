//! Bit-identical logits: however rows are batched, split, ordered, placed, cached, preempted or spread over threads.

mod engine;
mod rows;
mod sequences;

use kernels::DType;
use memos_tests::paged_model::{PagedModel, PagedOptions};
use memos_tests::reference_case::ReferenceCase;
use memos_tests::same_bits;
use rand::{RngExt, rngs::StdRng};

/// Families, windows, rope scalings and weight precisions that differ in the code they run.
const CASES: [&str; 6] = ["llama", "llama-yarn", "mistral-window", "qwen2-window", "qwen3-v4", "llama-tied-bias"];
/// Seed of every random choice in these tests.
const SEED: u64 = 20_260_117;

fn load(case: &ReferenceCase, kv_dtype: DType) -> anyhow::Result<PagedModel> {
    PagedModel::load(&case.folder, &PagedOptions { kv_dtype, ..PagedOptions::default() })
}

fn assert_same(what: &str, left: &[Vec<f32>], right: &[Vec<f32>]) {
    assert_eq!(left.len(), right.len(), "{what}: numbers of rows");
    let differs = (0..left.len()).find(|&row| !same_bits(&left[row], &right[row]));
    assert!(differs.is_none(), "{what}: row {differs:?} of {} has other bits (seed {SEED})", left.len());
}

/// Prompts that share prefixes of several lengths, as conversations do.
fn prompts_with_shared_prefixes(case: &ReferenceCase, random: &mut StdRng) -> Vec<Vec<u32>> {
    let source = case.longest_prompt();
    let one = |index: usize| {
        let shared_len = [0, 33, 48, 80][index % 4];
        let own_len = random.random_range(1..40);
        let mut tokens = source[..shared_len].to_vec();
        tokens.extend((0..own_len).map(|_| random.random_range(3..150u32)));
        tokens
    };
    (0..9).map(one).collect()
}
