//! Kernel benches at the shapes of SmolLM-135M: products as GFLOP/s and GB/s, attention as tokens per second.
//!
//! Every run also measures what the machine can give just then, with one thread and with all of the device's: `cached_product`
//! (independent chains of vector fused multiply-adds: GFLOP/s as elements) and `read` (a sum over 256 MiB: bytes).
//! Compare the ratios, not runs on a machine that has other work.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kernels::{
    AttentionBatch, AttentionParams, CpuOptions, DType, Device, HeadLayout, KvPool, KvShape, Matrix, MatrixPart,
    Tensor, ops,
};

/// Outputs and inputs of SmolLM-135M's products: hidden 576, 9 heads of 64, 3 kv heads, feed-forward 1536.
const PRODUCTS: [(&str, usize, usize); 5] = [
    ("qkv", 960, 576),
    ("attention_out", 576, 576),
    ("gate_up", 3072, 576),
    ("down", 576, 1536),
    ("lm_head", 49152, 576),
];
const LAYOUT: HeadLayout = HeadLayout { num_heads: 9, num_kv_heads: 3, head_dim: 64 };
const BLOCK_SIZE: usize = 16;

fn device() -> Device {
    let device = Device::cpu(CpuOptions::default()).expect("a CPU device");
    println!("{}", device.describe());
    device
}

/// Numbers in `[-1, 1)` from a fixed seed (splitmix64).
fn numbers(len: usize) -> Vec<f32> {
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn matrix(device: &Device, dtype: DType, out_features: usize, in_features: usize) -> Matrix {
    let values = numbers(out_features * in_features);
    let data: Vec<u8> = match dtype {
        DType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        // The upper half of a binary32 is a bf16; which numbers these are does not matter here.
        DType::BF16 | DType::F16 => values.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect(),
    };
    let parts = [MatrixPart { out_features, data: &data }];
    Matrix::pack(device, dtype, in_features, &parts).expect("a valid matrix")
}

fn tensor(device: &Device, num_rows: usize, width: usize) -> Tensor {
    let mut tensor = Tensor::zeros(device, num_rows, width);
    tensor.as_mut_slice().copy_from_slice(&numbers(num_rows * width));
    tensor
}

/// Runs `work` on as many threads as asked at once.
fn on_threads(num_threads: usize, work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        for _ in 1..num_threads {
            scope.spawn(&work);
        }
        work();
    });
}

/// What the machine gives: fused multiply-adds through a product that stays in the first-level cache, and reads.
fn machine(c: &mut Criterion) {
    let device = Device::cpu(CpuOptions { num_threads: std::num::NonZeroUsize::new(1), isa: None }).expect("device");
    let mut group = c.benchmark_group("machine");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    let data = numbers(64 << 20);
    for num_threads in [1, std::thread::available_parallelism().map_or(1, |n| n.get())] {
        group.throughput(Throughput::Bytes(data.len() as u64 * 4));
        group.bench_function(BenchmarkId::new("read", num_threads), |b| {
            b.iter(|| {
                let next = std::sync::atomic::AtomicUsize::new(0);
                on_threads(num_threads, || {
                    let mut sums = [0u32; 64];
                    while let Some(part) =
                        data.chunks(1 << 18).nth(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                    {
                        for line in part.chunks_exact(64) {
                            for (sum, x) in sums.iter_mut().zip(line) {
                                *sum ^= x.to_bits();
                            }
                        }
                    }
                    black_box(sums);
                });
            });
        });
    }
    let weight = matrix(&device, DType::F32, 64, 128);
    let x = tensor(&device, 6 * 32, 128);
    let mut out = Tensor::zeros(&device, 0, 0);
    group.throughput(Throughput::Elements(2 * 6 * 32 * 128 * 64));
    group.bench_function(BenchmarkId::new("cached_product", 1), |b| {
        b.iter(|| ops::matmul(&device, &x, &weight, None, &mut out).expect("valid arguments"));
    });
    group.finish();
}

fn products(c: &mut Criterion) {
    let device = device();
    for dtype in [DType::F32, DType::BF16] {
        for (name, outputs, inputs) in PRODUCTS {
            let weight = matrix(&device, dtype, outputs, inputs);
            let mut out = Tensor::zeros(&device, 0, 0);
            let mut prefill = c.benchmark_group("prefill_512");
            prefill.sample_size(10).measurement_time(Duration::from_secs(2));
            let x = tensor(&device, 512, inputs);
            prefill.throughput(Throughput::Elements(2 * 512 * (outputs * inputs) as u64));
            prefill.bench_function(BenchmarkId::new(name, dtype), |b| {
                b.iter(|| ops::matmul(&device, &x, &weight, None, &mut out).expect("valid arguments"));
            });
            prefill.finish();
        }
        decode(c, &device, dtype);
    }
}

/// One row through all layers' weights and the vocabulary: as in a decode step, nothing stays in the caches.
fn decode(c: &mut Criterion, device: &Device, dtype: DType) {
    let layers: Vec<(Matrix, Tensor)> = (0..30)
        .flat_map(|_| PRODUCTS[..4].iter())
        .chain(&PRODUCTS[4..])
        .map(|(_, outputs, inputs)| (matrix(device, dtype, *outputs, *inputs), tensor(device, 8, *inputs)))
        .collect();
    let num_bytes: usize = layers.iter().map(|(weight, _)| weight.num_bytes()).sum();
    let mut group = c.benchmark_group("decode_weights");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Bytes(num_bytes as u64));
    for num_rows in [1, 8] {
        let mut out = Tensor::zeros(device, 0, 0);
        let mut x = Tensor::zeros(device, 0, 0);
        let rows: Vec<u32> = (0..num_rows).collect();
        group.bench_function(BenchmarkId::new(format!("rows_{num_rows}"), dtype), |b| {
            b.iter(|| {
                for (weight, from) in &layers {
                    ops::gather_rows(device, from, &rows, &mut x).expect("rows that are there");
                    ops::matmul(device, &x, weight, None, &mut out).expect("valid arguments");
                }
            });
        });
    }
    group.finish();
}

fn attention(c: &mut Criterion) {
    let device = device();
    for dtype in [DType::F32, DType::BF16] {
        for context_len in [512usize, 4096, 8192] {
            let shape = KvShape { num_layers: 1, num_kv_heads: 3, head_dim: 64, block_size: BLOCK_SIZE, dtype };
            let num_blocks = context_len / BLOCK_SIZE;
            let mut pool = KvPool::new(&device, shape, num_blocks).expect("pool");
            let qkv = tensor(&device, context_len, LAYOUT.width());
            // Blocks in an order that no prefetcher guesses.
            let blocks: Vec<u32> = (0..num_blocks as u32).map(|i| i * 77 % num_blocks as u32).collect();
            let slots: Vec<u32> = (0..context_len)
                .map(|i| blocks[i / BLOCK_SIZE] * BLOCK_SIZE as u32 + (i % BLOCK_SIZE) as u32)
                .collect();
            ops::kv_write(&device, &qkv, LAYOUT, &slots, &mut pool, 0).expect("slots in the pool");
            for (name, num_rows) in [("attention_prefill", 512), ("attention_decode", 1)] {
                let mut group = c.benchmark_group(name);
                group.sample_size(10).measurement_time(Duration::from_secs(2));
                let rows: Vec<u32> = (context_len as u32 - num_rows..context_len as u32).collect();
                let mut x = Tensor::zeros(&device, 0, 0);
                ops::gather_rows(&device, &qkv, &rows, &mut x).expect("rows that are there");
                let (cu_rows, offsets) = ([0, num_rows], [0, num_blocks as u32]);
                let (positions, block_tables) = (&rows[..], &blocks[..]);
                let batch =
                    AttentionBatch { cu_rows: &cu_rows, positions, block_tables, block_table_offsets: &offsets };
                let params = AttentionParams { layer: 0, scale: 0.125, sliding_window: None };
                let mut out = Tensor::zeros(&device, 0, 0);
                // Two products of 64 for every visible key of every head.
                let keys: u64 = rows.iter().map(|position| u64::from(*position) + 1).sum();
                group.throughput(Throughput::Elements(keys * 9 * 64 * 4));
                group.bench_function(BenchmarkId::new(context_len.to_string(), dtype), |b| {
                    b.iter(|| {
                        ops::paged_attention(&device, &x, LAYOUT, &batch, &pool, params, &mut out).expect("valid");
                    });
                });
                group.finish();
            }
        }
    }
}

criterion_group!(benches, machine, products, attention);
criterion_main!(benches);
