//! How fast a whole model computes: prefill and decode tokens a second on the SmolLM-135M shape with random weights.
//!
//! `cargo bench -p memos-benches --bench model`
use std::path::Path;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kernels::{CpuOptions, DType, Device, KvPool};
use models::{BatchInput, LoadFormat, LoadOptions, Model, ModelSource};

const BLOCK_SIZE: usize = 16;
/// Rows of a prefill step.
const PREFILL_LEN: usize = 512;
/// Context that a decode step attends to.
const CONTEXT_LEN: usize = 512;
const NUM_BLOCKS: usize = 64;

fn load(device: &Device, dtype: DType) -> (Model, KvPool) {
    let shape = Path::new(env!("CARGO_MANIFEST_DIR")).join("shapes/smollm-135m");
    let options =
        LoadOptions { format: LoadFormat::Dummy { seed: 0 }, dtype: Some(dtype), max_positions: Some(CONTEXT_LEN + 1) };
    let model = Model::load(device, &ModelSource::Folder(shape), options).expect("the shape is part of the repository");
    let pool = KvPool::new(device, model.kv_shape(BLOCK_SIZE, dtype), NUM_BLOCKS).expect("a small pool fits");
    (model, pool)
}

/// Rows `first..first + tokens.len()` of one sequence whose blocks are `0, 1, 2, …`.
fn forward(device: &Device, model: &mut Model, pool: &mut KvPool, tokens: &[u32], first: usize) {
    let context_len = first + tokens.len();
    let positions: Vec<u32> = (first as u32..context_len as u32).collect();
    let blocks: Vec<u32> = (0..context_len.div_ceil(BLOCK_SIZE) as u32).collect();
    let batch = BatchInput {
        tokens,
        positions: &positions,
        // Block b of the sequence is block b of the pool, so a position is its own slot.
        slots: &positions,
        cu_rows: &[0, tokens.len() as u32],
        context_lens: &[context_len as u32],
        block_tables: &blocks,
        block_table_offsets: &[0, blocks.len() as u32],
        logit_rows: &[tokens.len() as u32 - 1],
    };
    model.forward(device, &batch, pool).expect("the batch is well formed");
}

fn model_speed(criterion: &mut Criterion) {
    let device = Device::cpu(CpuOptions::default()).expect("the processor can compute");
    for dtype in [DType::F32, DType::BF16] {
        let (mut model, mut pool) = load(&device, dtype);
        let prompt: Vec<u32> = (0..PREFILL_LEN as u32).map(|position| position * 97 % 49_000).collect();
        let mut group = criterion.benchmark_group("model");
        group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(8));
        group.throughput(Throughput::Elements(PREFILL_LEN as u64));
        group.bench_function(BenchmarkId::new("prefill_512", dtype), |bencher| {
            bencher.iter(|| forward(&device, &mut model, &mut pool, &prompt, 0));
        });
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("decode_at_512", dtype), |bencher| {
            bencher.iter(|| forward(&device, &mut model, &mut pool, &prompt[..1], CONTEXT_LEN));
        });
        group.finish();
    }
}

criterion_group!(benches, model_speed);
criterion_main!(benches);
