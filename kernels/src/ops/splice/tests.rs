//! Spliced keys and values against rotating at the new position directly, and against moving token by token.

use super::*;
use crate::testing::*;
use crate::{DType, Isa, KvShape, RopeTable};

const DTYPES: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

fn shape(block_size: usize, head_dim: usize, dtype: DType) -> KvShape {
    KvShape { num_layers: 2, num_kv_heads: 2, head_dim, block_size, dtype }
}

fn layout(shape: &KvShape) -> HeadLayout {
    HeadLayout { num_heads: 2, num_kv_heads: shape.num_kv_heads, head_dim: shape.head_dim }
}

fn frequencies(half_dim: usize) -> Vec<f64> {
    (0..half_dim).map(|pair| 10_000f64.powf(-(pair as f64) / half_dim as f64)).collect()
}

fn rotation(half_dim: usize, delta: i64) -> KeyRotation {
    let (sin, cos) = frequencies(half_dim).iter().map(|f| (delta as f64 * f).sin_cos()).unzip();
    let narrowed = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect();
    KeyRotation::new(narrowed(cos), narrowed(sin)).expect("pairs")
}

/// A table whose cosines and sines have an amplitude, as YaRN's do.
fn table(device: &Device, half_dim: usize, max_positions: usize, amplitude: f64) -> RopeTable {
    let angles = (0..max_positions).flat_map(|p| frequencies(half_dim).into_iter().map(move |f| p as f64 * f));
    let (sin, cos) = angles.map(|angle| ((angle.sin() * amplitude) as f32, (angle.cos() * amplitude) as f32)).unzip();
    RopeTable::new(device, cos, sin, half_dim).expect("table")
}

/// Writes rows, rotated for their positions, to slots of all layers.
fn write_rotated(
    device: &Device,
    pool: &mut KvPool,
    rows: &[f32],
    table: &RopeTable,
    (positions, slots): (&[u32], &[u32]),
) {
    let layout = layout(pool.shape());
    for layer in 0..pool.shape().num_layers {
        // Other layers hold other numbers.
        let rows: Vec<f32> = rows.iter().map(|x| x * (layer as f32 + 1.0)).collect();
        let mut qkv = tensor(device, positions.len(), layout.width(), &rows);
        super::super::rope(device, &mut qkv, layout, positions, table).expect("rope");
        super::super::kv_write(device, &qkv, layout, slots, pool, layer).expect("write");
    }
}

fn random_pool(rng: &mut Rng, device: &Device, shape: KvShape, num_blocks: usize) -> KvPool {
    let mut pool = KvPool::new(device, shape, num_blocks).expect("pool");
    for block in 0..num_blocks {
        let numbers = rng.numbers(shape.block_elements());
        pool.import_block(block as u32, &bytes_of(shape.dtype, &numbers)).expect("block");
    }
    pool
}

fn blocks_of(pool: &KvPool) -> Vec<u8> {
    let mut bytes = vec![0; pool.shape().block_bytes() * pool.num_blocks()];
    for (block, bytes) in bytes.chunks_exact_mut(pool.shape().block_bytes()).enumerate() {
        pool.export_block(block as u32, bytes).expect("block");
    }
    bytes
}

fn as_f32(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        DType::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4"))).collect(),
        DType::BF16 => bytes.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        DType::F16 => bytes.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
    }
}

#[test]
fn spliced_keys_are_those_rotated_at_the_new_position_and_an_amplitude_is_not_applied_twice() {
    let mut rng = Rng::new(11);
    let device = device(Isa::detect(), 2);
    for dtype in DTYPES {
        // What is stored was rounded once before it is turned and once after.
        let tolerance = match dtype {
            DType::F32 => 4e-6,
            DType::BF16 => 2.5 * 2.0 / 128.0,
            DType::F16 => 2.5 * 2.0 / 1024.0,
        };
        for (head_dim, half_dim) in [(16, 8), (24, 8), (64, 32), (40, 20)] {
            for (from, to) in [(0u32, 70u32), (70, 0), (5, 6), (90, 33), (17, 17)] {
                let table = table(&device, half_dim, 200, 1.25);
                let shape = shape(16, head_dim, dtype);
                let mut pool = KvPool::new(&device, shape, 12).expect("pool");
                let mut direct = KvPool::new(&device, shape, 12).expect("pool");
                let len = 37;
                let rows = rng.numbers(len * layout(&shape).width());
                let consecutive = |first: u32| (first..first + len as u32).collect::<Vec<_>>();
                let (source, target) = (consecutive(3), consecutive(75));
                write_rotated(&device, &mut pool, &rows, &table, (&consecutive(from), &source));
                write_rotated(&device, &mut direct, &rows, &table, (&consecutive(to), &target));
                let run = SpliceRun { source: 3, target: 75, len: len as u32, rotation: Some(0) };
                let delta = i64::from(to) - i64::from(from);
                kv_splice(&device, KvSource::Pool, &[run], &[rotation(half_dim, delta)], &mut pool).expect("splice");
                // The source stays; from block 4 on there is only what was spliced.
                let at = 4 * shape.block_bytes();
                let got = as_f32(dtype, &blocks_of(&pool)[at..]);
                let expected: Vec<f64> = as_f32(dtype, &blocks_of(&direct)[at..]).into_iter().map(f64::from).collect();
                assert_close(&got, &expected, tolerance, &format!("{dtype}, {head_dim}, {from} to {to}"));
            }
        }
    }
}

#[test]
fn without_a_rotation_every_bit_is_kept_and_other_slots_are_untouched() {
    let mut rng = Rng::new(12);
    let device = device(Isa::detect(), 3);
    for dtype in DTYPES {
        let shape = shape(32, 16, dtype);
        let mut pool = random_pool(&mut rng, &device, shape, 4);
        let before = blocks_of(&pool);
        let whole = SpliceRun { source: 0, target: 64, len: 64, rotation: None };
        kv_splice(&device, KvSource::Pool, &[whole], &[], &mut pool).expect("splice");
        let after = blocks_of(&pool);
        let half = before.len() / 2;
        assert_eq!(after[..half], before[..half], "{dtype}");
        assert_eq!(after[half..], before[..half], "{dtype}");
        // No run and an empty run change nothing.
        let empty = SpliceRun { source: 128, target: 128, len: 0, rotation: None };
        kv_splice(&device, KvSource::Pool, &[], &[], &mut pool).expect("nothing to do");
        kv_splice(&device, KvSource::Pool, &[empty], &[], &mut pool).expect("nothing to do");
        assert_eq!(blocks_of(&pool), after);
    }
}

/// Runs over random, distinct target slots of the last blocks from random source slots of the first ones.
fn random_runs(rng: &mut Rng, block_size: usize, num_sources: usize, num_targets: usize) -> Vec<SpliceRun> {
    let (mut at, end) = (num_sources * block_size, (num_sources + num_targets) * block_size);
    let mut runs = Vec::new();
    loop {
        at += rng.below(block_size);
        let len = 1 + rng.below(2 * block_size);
        if at + len > end {
            break;
        }
        let source = rng.below(num_sources * block_size - len + 1) as u32;
        let rotation = [None, Some(0), Some(1)][rng.below(3)];
        runs.push(SpliceRun { source, target: at as u32, len: len as u32, rotation });
        at += len;
    }
    rng.shuffle(&mut runs);
    runs
}

#[test]
fn any_runs_equal_moving_token_by_token_on_every_device_from_the_pool_and_from_bytes() {
    let mut rng = Rng::new(13);
    for round in 0..60 {
        let dtype = DTYPES[round % 3];
        let block_size = [16, 32, 48][rng.below(3)];
        let shape = shape(block_size, [8, 16, 40][rng.below(3)], dtype);
        let half_dim = [shape.head_dim / 2, shape.head_dim / 4][rng.below(2)];
        let rotations = [rotation(half_dim, -17), rotation(half_dim, 400)];
        let runs = random_runs(&mut rng, block_size, 3, 5);
        let devices = equal_devices();
        let start = random_pool(&mut rng, &devices[0], shape, 8);
        let bytes = blocks_of(&start);
        let singles: Vec<SpliceRun> = runs
            .iter()
            .flat_map(|run| {
                (0..run.len).map(|i| SpliceRun { source: run.source + i, target: run.target + i, len: 1, ..*run })
            })
            .collect();
        let mut first = Vec::new();
        for device in &devices {
            for source in [KvSource::Pool, KvSource::Blocks(&bytes)] {
                for runs in [&runs, &singles] {
                    let mut pool = KvPool::new(device, shape, 8).expect("pool");
                    for (block, bytes) in bytes.chunks_exact(shape.block_bytes()).enumerate() {
                        pool.import_block(block as u32, bytes).expect("block");
                    }
                    kv_splice(device, source, runs, &rotations, &mut pool).expect("splice");
                    let got = blocks_of(&pool);
                    if first.is_empty() {
                        first = got;
                    } else {
                        assert!(got == first, "round {round} on {}", device.describe());
                    }
                }
            }
        }
        assert!(runs.is_empty() || first != bytes, "round {round}: something moves");
    }
}

#[test]
fn turning_forth_and_back_restores_the_keys_but_for_rounding() {
    let mut rng = Rng::new(14);
    let device = device(Isa::detect(), 1);
    let shape = shape(16, 32, DType::F32);
    let mut pool = random_pool(&mut rng, &device, shape, 3);
    let run = |source, target, rotation| SpliceRun { source, target, len: 16, rotation: Some(rotation) };
    let rotations = [rotation(16, 1234), rotation(16, -1234)];
    kv_splice(&device, KvSource::Pool, &[run(0, 16, 0)], &rotations, &mut pool).expect("forth");
    kv_splice(&device, KvSource::Pool, &[run(16, 32, 1)], &rotations, &mut pool).expect("back");
    let blocks = as_f32(DType::F32, &blocks_of(&pool));
    let expected: Vec<f64> = blocks[..shape.block_elements()].iter().map(|x| f64::from(*x)).collect();
    assert_close(&blocks[2 * shape.block_elements()..], &expected, 1e-6, "back");
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_written() {
    let mut rng = Rng::new(15);
    let device = device(Isa::detect(), 1);
    let shape = shape(16, 16, DType::BF16);
    let mut pool = random_pool(&mut rng, &device, shape, 4);
    let before = blocks_of(&pool);
    let run = |source, target, len| SpliceRun { source, target, len, rotation: None };
    let turned = SpliceRun { rotation: Some(1), ..run(0, 32, 1) };
    let cases: [(&[SpliceRun], &str); 7] = [
        (&[run(0, 16, 1), run(63, 17, 2)], "kv_splice: source slot 64 at 1 is out of range, there are 64"),
        (&[run(0, 60, 5)], "kv_splice: target slot 64 at 0 is out of range, there are 64"),
        (&[run(u32::MAX, 60, u32::MAX)], "kv_splice: source slot 8589934589 at 0 is out of range, there are 64"),
        (&[turned], "kv_splice: rotation 1 at 0 is out of range, there are 1"),
        (&[run(0, 32, 5), run(4, 36, 2)], "kv_splice: target slot is 36, allowed: each slot once"),
        (&[run(0, 8, 1)], "kv_splice: source block is 0, allowed: a block that the same call does not write"),
        (
            &[run(15, 32, 2), run(0, 20, 1)],
            "kv_splice: source block is 1, allowed: a block that the same call does not write",
        ),
    ];
    for (runs, message) in cases {
        let error = kv_splice(&device, KvSource::Pool, runs, &[rotation(8, 3)], &mut pool).expect_err(message);
        assert_eq!(error.to_string(), message);
    }
    let error = kv_splice(&device, KvSource::Pool, &[], &[rotation(9, 3)], &mut pool).expect_err("wider than a head");
    assert!(matches!(error, KernelError::Value { what: "half_dim", got: 9, .. }));
    let short = vec![0; shape.block_bytes() - 1];
    let error = kv_splice(&device, KvSource::Blocks(&short), &[], &[], &mut pool).expect_err("no whole block");
    assert!(matches!(error, KernelError::Value { what: "bytes of the source", .. }));
    assert!(KeyRotation::new(Vec::new(), Vec::new()).is_err());
    assert!(KeyRotation::new(vec![1.0], vec![0.0, 0.0]).is_err());
    assert_eq!(blocks_of(&pool), before);
}

#[test]
fn the_deviation_is_the_squared_difference_to_what_is_stored() {
    let mut rng = Rng::new(16);
    for dtype in DTYPES {
        let mut first = Vec::new();
        for device in equal_devices() {
            let shape = shape(16, 24, dtype);
            let layout = layout(&shape);
            let mut rng = Rng::new(17);
            let rows = rng.numbers(40 * layout.width());
            let qkv = tensor(&device, 40, layout.width(), &rows);
            let slots: Vec<u32> = (0..40).map(|row| row * 7 % 64).collect();
            let mut pool = KvPool::new(&device, shape, 4).expect("pool");
            super::super::kv_write(&device, &qkv, layout, &slots, &mut pool, 1).expect("write");
            let mut deviation = vec![f32::NAN; 3];
            kv_deviation(&device, &qkv, layout, &slots, &pool, 1, &mut deviation).expect("deviation");
            assert_eq!(deviation, [0.0; 40], "{dtype}: what is stored is what was computed");
            // Another value in one element of row 5's last value head.
            let mut changed = rows.clone();
            let element = 5 * layout.width() + layout.width() - 1;
            changed[element] = rounded(dtype, &[changed[element]])[0] + 2.0;
            let qkv = tensor(&device, 40, layout.width(), &changed);
            kv_deviation(&device, &qkv, layout, &slots, &pool, 1, &mut deviation).expect("deviation");
            assert!((deviation[5] - 4.0).abs() < 0.1, "{dtype}: {}", deviation[5]);
            assert_eq!(deviation.iter().filter(|d| **d != 0.0).count(), 1, "{dtype}");
            if first.is_empty() {
                first.clone_from(&deviation);
            }
            assert_same_bits(&deviation, &first, &device.describe());
        }
    }
    let device = device(Isa::detect(), 1);
    let shape = shape(16, 24, DType::F32);
    let pool = KvPool::new(&device, shape, 1).expect("pool");
    let qkv = tensor(&device, 1, layout(&shape).width(), &rng.numbers(layout(&shape).width()));
    assert!(kv_deviation(&device, &qkv, layout(&shape), &[16], &pool, 0, &mut Vec::new()).is_err());
    assert!(kv_deviation(&device, &qkv, layout(&shape), &[0], &pool, 2, &mut Vec::new()).is_err());
}
