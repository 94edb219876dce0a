//! Attention and KV writes against a dense float64 reference, and the bits that must not depend on how work is cut.

use super::*;
use crate::testing::*;
use crate::{DType, Isa, KvShape};

/// A sequence: all its fused rows in order of position, and which of its positions are asked.
struct Sequence {
    rows: Vec<f32>,
    asked: Vec<u32>,
    blocks: Vec<u32>,
}

struct Case {
    layout: HeadLayout,
    shape: KvShape,
    num_blocks: usize,
    sequences: Vec<Sequence>,
    params: AttentionParams,
}

fn layout(num_heads: usize, num_kv_heads: usize, head_dim: usize) -> HeadLayout {
    HeadLayout { num_heads, num_kv_heads, head_dim }
}

impl Case {
    /// Sequences of the given lengths with `asked` positions each (all when it exceeds the length) on shuffled blocks.
    fn new(rng: &mut Rng, layout: HeadLayout, (block_size, dtype): (usize, DType), lens: &[(usize, usize)]) -> Self {
        let HeadLayout { num_kv_heads, head_dim, .. } = layout;
        let shape = KvShape { num_layers: 2, num_kv_heads, head_dim, block_size, dtype };
        let num_blocks = lens.iter().map(|(len, _)| len.div_ceil(block_size)).sum::<usize>() + 2;
        let mut free: Vec<u32> = (0..num_blocks as u32).collect();
        rng.shuffle(&mut free);
        let sequences = lens.iter().map(|&(len, asked)| {
            let mut positions: Vec<u32> = (0..len as u32).collect();
            if asked < len {
                rng.shuffle(&mut positions);
                positions.truncate(asked);
            }
            let blocks = free.split_off(free.len() - len.div_ceil(block_size));
            Sequence { rows: rng.numbers(len * layout.width()), asked: positions, blocks }
        });
        let sequences = sequences.collect();
        let scale = 2.0 / (head_dim as f32).sqrt();
        Self { layout, shape, num_blocks, sequences, params: AttentionParams { layer: 1, scale, sliding_window: None } }
    }

    /// A pool full of NaN, then the keys and values of all sequences.
    fn pool(&self, device: &Device) -> KvPool {
        let mut pool = KvPool::new(device, self.shape, self.num_blocks).expect("pool");
        let nan: Vec<u8> = bytes_of(self.shape.dtype, &vec![f32::NAN; self.shape.block_elements()]);
        for block in 0..self.num_blocks {
            pool.import_block(block as u32, &nan).expect("import");
        }
        let block_size = self.shape.block_size;
        for sequence in &self.sequences {
            let len = sequence.rows.len() / self.layout.width();
            let slots: Vec<u32> = (0..len)
                .map(|i| sequence.blocks[i / block_size] * block_size as u32 + (i % block_size) as u32)
                .collect();
            let rows = tensor(device, len, self.layout.width(), &sequence.rows);
            kv_write(device, &rows, self.layout, &slots, &mut pool, self.params.layer).expect("write");
        }
        pool
    }

    /// Attention of the asked rows of the given sequences, in one call.
    fn attend(&self, device: &Device, pool: &KvPool, sequences: &[(&Sequence, &[u32])]) -> Vec<f32> {
        let width = self.layout.width();
        let (mut rows, mut cu_rows, mut positions) = (Vec::new(), vec![0u32], Vec::new());
        let (mut block_tables, mut block_table_offsets) = (Vec::new(), vec![0u32]);
        for (sequence, asked) in sequences {
            for &position in *asked {
                rows.extend_from_slice(&sequence.rows[position as usize * width..][..width]);
                positions.push(position);
            }
            cu_rows.push(positions.len() as u32);
            block_tables.extend_from_slice(&sequence.blocks);
            block_table_offsets.push(block_tables.len() as u32);
        }
        let (cu_rows, positions) = (&cu_rows[..], &positions[..]);
        let (block_tables, block_table_offsets) = (&block_tables[..], &block_table_offsets[..]);
        let batch = AttentionBatch { cu_rows, positions, block_tables, block_table_offsets };
        let qkv = tensor(device, positions.len(), width, &rows);
        let mut out = poisoned(device);
        paged_attention(device, &qkv, self.layout, &batch, pool, self.params, &mut out).expect("valid arguments");
        out.as_slice().to_vec()
    }

    fn attend_all(&self, device: &Device, pool: &KvPool) -> Vec<f32> {
        let all: Vec<_> = self.sequences.iter().map(|s| (s, &s.asked[..])).collect();
        self.attend(device, pool, &all)
    }

    /// Dense attention in float64.
    fn reference(&self) -> Vec<f64> {
        let HeadLayout { num_heads, num_kv_heads, head_dim } = self.layout;
        let width = self.layout.width();
        let mut out = Vec::new();
        for sequence in &self.sequences {
            let stored = rounded(self.shape.dtype, &sequence.rows);
            for &position in &sequence.asked {
                let position = position as usize;
                let window = self.params.sliding_window.map_or(usize::MAX, |w| w as usize);
                let first = (position + 1).saturating_sub(window);
                for head in 0..num_heads {
                    let kv_head = head / (num_heads / num_kv_heads);
                    let q = &sequence.rows[position * width + head * head_dim..][..head_dim];
                    let at = |j: usize, part: usize| {
                        let column = (num_heads + part * num_kv_heads + kv_head) * head_dim;
                        &stored[j * width + column..][..head_dim]
                    };
                    let scores: Vec<f64> = (first..=position)
                        .map(|j| {
                            let dot: f64 = q.iter().zip(at(j, 0)).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                            dot * f64::from(self.params.scale)
                        })
                        .collect();
                    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let total: f64 = scores.iter().map(|score| (score - max).exp()).sum();
                    for d in 0..head_dim {
                        let weighted = scores
                            .iter()
                            .enumerate()
                            .map(|(i, score)| (score - max).exp() * f64::from(at(first + i, 1)[d]));
                        out.push(weighted.sum::<f64>() / total);
                    }
                }
            }
        }
        out
    }
}

/// Long enough that a softmax of random scores averages many values: results are at most 1, errors a few roundings.
const TOLERANCE: f64 = 3e-6;

#[test]
fn attention_is_the_dense_reference_at_every_head_size_and_length() {
    let mut rng = Rng::new(3);
    let device = device(Isa::detect(), 2);
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        for head_dim in [8, 16, 24, 32, 64, 80, 96, 128, 256] {
            for (heads, kv_heads) in [(1, 1), (6, 2), (7, 1)] {
                let lens = [(1, 1), (15, 15), (16, 16), (17, 17), (65, 65), (150, 150)];
                let case = Case::new(&mut rng, layout(heads, kv_heads, head_dim), (16, dtype), &lens);
                let got = case.attend_all(&device, &case.pool(&device));
                assert_close(&got, &case.reference(), TOLERANCE, &format!("{dtype}, {heads}/{kv_heads} of {head_dim}"));
            }
        }
    }
}

#[test]
fn attention_sees_its_window_only_at_every_block_size() {
    let mut rng = Rng::new(4);
    let device = device(Isa::detect(), 2);
    for block_size in [16, 32, 48, 256] {
        for window in [1, 2, 16, 63, 64, 65, 300, 10_000] {
            let lens = [(1, 1), (130, 130), (700, 40)];
            let mut case = Case::new(&mut rng, layout(4, 2, 16), (block_size, DType::F32), &lens);
            case.params.sliding_window = Some(window);
            let got = case.attend_all(&device, &case.pool(&device));
            assert_close(&got, &case.reference(), TOLERANCE, &format!("block {block_size}, window {window}"));
        }
    }
}

#[test]
fn attention_gives_the_same_bits_on_every_device_alone_and_in_any_company() {
    let mut rng = Rng::new(5);
    for (dtype, window) in [(DType::F32, None), (DType::BF16, None), (DType::F16, Some(70)), (DType::F32, Some(600))] {
        let lens = [(1, 1), (200, 200), (1300, 30), (1040, 3), (77, 20)];
        let mut case = Case::new(&mut rng, layout(6, 2, 40), (16, dtype), &lens);
        case.params.sliding_window = window;
        let mut first = Vec::new();
        for device in equal_devices() {
            let pool = case.pool(&device);
            let got = case.attend_all(&device, &pool);
            if first.is_empty() {
                assert_close(&got, &case.reference(), TOLERANCE, "reference");
                first = got.clone();
            }
            assert_same_bits(&got, &first, &device.describe());
            let mut one_by_one = Vec::new();
            for sequence in &case.sequences {
                for position in &sequence.asked {
                    one_by_one.extend(case.attend(&device, &pool, &[(sequence, &[*position])]));
                }
            }
            assert_same_bits(&one_by_one, &first, &format!("row by row on {}", device.describe()));
        }
    }
}

#[test]
fn attention_does_not_depend_on_which_blocks_hold_a_sequence() {
    let mut rng = Rng::new(6);
    let device = device(Isa::detect(), 2);
    let mut case = Case::new(&mut rng, layout(4, 4, 32), (32, DType::BF16), &[(500, 500), (333, 100)]);
    let before = case.attend_all(&device, &case.pool(&device));
    for _ in 0..3 {
        let mut blocks: Vec<u32> = (0..case.num_blocks as u32).collect();
        rng.shuffle(&mut blocks);
        for sequence in &mut case.sequences {
            sequence.blocks = blocks.split_off(blocks.len() - sequence.blocks.len());
        }
        assert_same_bits(&case.attend_all(&device, &case.pool(&device)), &before, "other blocks");
    }
}

#[test]
fn a_block_comes_back_from_export_and_import_as_it_was() {
    let mut rng = Rng::new(7);
    let device = device(Isa::detect(), 1);
    let case = Case::new(&mut rng, layout(2, 1, 8), (16, DType::F16), &[(40, 40)]);
    let pool = case.pool(&device);
    let mut moved = KvPool::new(&device, case.shape, case.num_blocks).expect("pool");
    let mut block = vec![0u8; case.shape.block_bytes()];
    for index in 0..case.num_blocks as u32 {
        pool.export_block(index, &mut block).expect("export");
        moved.import_block(index, &block).expect("import");
    }
    let before = case.attend_all(&device, &pool);
    assert_same_bits(&case.attend_all(&device, &moved), &before, "moved blocks");
    assert!(pool.export_block(case.num_blocks as u32, &mut block).is_err());
    assert!(pool.export_block(0, &mut block[1..]).is_err());
    assert_eq!(case.shape.block_bytes(), 2 * 2 * 8 * 16 * 2);
    assert_eq!(case.shape.token_bytes(), 2 * 2 * 8 * 2);
}

#[test]
fn arguments_that_reach_out_of_bounds_are_named() {
    let device = device(Isa::detect(), 1);
    let layout = layout(2, 1, 8);
    let shape = KvShape { num_layers: 1, num_kv_heads: 1, head_dim: 8, block_size: 16, dtype: DType::F32 };
    let mut pool = KvPool::new(&device, shape, 2).expect("pool");
    let qkv = Tensor::zeros(&device, 1, 32);
    let mut out = Tensor::zeros(&device, 0, 0);
    let params = AttentionParams { layer: 0, scale: 1.0, sliding_window: None };
    let good =
        AttentionBatch { cu_rows: &[0, 1], positions: &[16], block_tables: &[1, 0], block_table_offsets: &[0, 2] };
    let mut message = |batch: AttentionBatch<'_>, params: AttentionParams| {
        let result = paged_attention(&device, &qkv, layout, &batch, &pool, params, &mut out);
        result.map_or_else(|error| error.to_string(), |()| String::new())
    };
    assert_eq!(message(good, params), "");
    let late = AttentionBatch { positions: &[32], ..good };
    assert!(message(late, params).contains("row 0 is at position 32, but its sequence 0 has blocks for 32 tokens"));
    let foreign = AttentionBatch { block_tables: &[1, 2], ..good };
    assert!(message(foreign, params).contains("block 2 at 1 is out of range, there are 2"));
    let falling = AttentionBatch { block_table_offsets: &[2, 0], ..good };
    assert!(message(falling, params).contains("offsets block_table_offsets break at index 0: 2"));
    let short = AttentionBatch { cu_rows: &[0], ..good };
    assert!(message(short, params).contains("offsets cu_rows break at index 0"));
    let empty = AttentionBatch { cu_rows: &[], ..good };
    assert!(message(empty, params).contains("offsets cu_rows"));
    assert!(message(good, AttentionParams { layer: 1, ..params }).contains("layer 1"));
    assert!(message(good, AttentionParams { sliding_window: Some(0), ..params }).contains("sliding_window is 0"));
    let slot = kv_write(&device, &qkv, layout, &[32], &mut pool, 0).expect_err("32 slots only");
    assert_eq!(slot.to_string(), "kv_write: slot 32 at 0 is out of range, there are 32");
    for (shape, named) in [
        (KvShape { head_dim: 12, ..shape }, "head_dim is 12"),
        (KvShape { block_size: 24, ..shape }, "block_size is 24"),
        (KvShape { num_layers: 0, ..shape }, "num_layers is 0"),
        (KvShape { num_layers: usize::MAX / 4, ..shape }, "overflows"),
    ] {
        let error = KvPool::new(&device, shape, 2).expect_err("no such shape").to_string();
        assert!(error.contains(named), "{error}");
    }
}
