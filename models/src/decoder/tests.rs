//! Exactness on tiny random models of every family: a row's logits are the same bits however its sequence is run.

use kernels::{CpuOptions, DType, KvPool};
use serde_json::{Value, json};

use super::*;
use crate::{LoadFormat, LoadOptions, Model, ModelSource};

const BLOCK_SIZE: usize = 16;
const NUM_BLOCKS: usize = 24;
const VOCAB_SIZE: u32 = 61;

/// Tiny configurations: every family, windows smaller than the prompts, odd shares of heads, tied and untied.
fn configs() -> Vec<Value> {
    let base = |changes: Value| {
        let mut config = json!({"vocab_size": VOCAB_SIZE, "hidden_size": 48, "num_hidden_layers": 3,
            "num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 80,
            "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0});
        config.as_object_mut().expect("object").extend(changes.as_object().expect("object").clone());
        config
    };
    vec![
        base(json!({"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": true, "mlp_bias": true,
            "rope_scaling": {"rope_type": "llama3", "factor": 4, "low_freq_factor": 1, "high_freq_factor": 4,
            "original_max_position_embeddings": 64}})),
        base(json!({"architectures": ["MistralForCausalLM"], "sliding_window": 20})),
        base(json!({"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": true, "sliding_window": 17,
            "max_window_layers": 1})),
        base(json!({"architectures": ["Qwen3ForCausalLM"], "head_dim": 16, "attention_bias": true,
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}})),
    ]
}

struct Bench {
    device: Device,
    model: Model,
    pool: KvPool,
}

impl Bench {
    fn new(config: &Value, dtype: DType) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::write(folder.path().join("config.json"), config.to_string()).expect("write");
        let device = Device::cpu(CpuOptions::default()).expect("device");
        let source = ModelSource::Folder(folder.path().to_owned());
        let format = LoadFormat::Dummy { seed: 3 };
        let options = LoadOptions { format, dtype: Some(dtype), max_positions: None };
        let model = Model::load(&device, &source, options).expect("dummy model");
        let pool = KvPool::new(&device, model.kv_shape(BLOCK_SIZE, dtype), NUM_BLOCKS).expect("pool");
        Self { device, model, pool }
    }

    /// Runs rows `range` of each sequence in one batch and returns the logits of all of them.
    fn run(&mut self, sequences: &[(&Sequence, &[usize])]) -> Vec<Vec<f32>> {
        let mut flat = Flat::default();
        for (sequence, rows) in sequences {
            flat.push(sequence, rows);
        }
        let logit_rows: Vec<u32> = (0..flat.tokens.len() as u32).collect();
        let logits = self.model.forward(&self.device, &flat.input(&logit_rows), &mut self.pool).expect("step");
        (0..logits.num_rows()).map(|row| logits.row(row).to_vec()).collect()
    }
}

struct Sequence {
    tokens: Vec<u32>,
    blocks: Vec<u32>,
}

impl Sequence {
    fn new(len: usize, salt: u32, blocks: &[u32]) -> Self {
        let tokens = (0..len as u32).map(|i| (i * i * 7 + i * 3 + salt * 13) % VOCAB_SIZE).collect();
        Self { tokens, blocks: blocks.to_vec() }
    }

    fn all(&self) -> Vec<usize> {
        (0..self.tokens.len()).collect()
    }
}

/// A batch under construction.
#[derive(Default)]
struct Flat {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    slots: Vec<u32>,
    cu_rows: Vec<u32>,
    context_lens: Vec<u32>,
    block_tables: Vec<u32>,
    block_table_offsets: Vec<u32>,
}

impl Flat {
    fn push(&mut self, sequence: &Sequence, rows: &[usize]) {
        if self.cu_rows.is_empty() {
            self.cu_rows.push(0);
            self.block_table_offsets.push(0);
        }
        for &row in rows {
            self.tokens.push(sequence.tokens[row]);
            self.positions.push(row as u32);
            let block = sequence.blocks[row / BLOCK_SIZE];
            self.slots.push(block * BLOCK_SIZE as u32 + (row % BLOCK_SIZE) as u32);
        }
        self.cu_rows.push(self.tokens.len() as u32);
        self.context_lens.push(rows.iter().max().map_or(0, |last| *last as u32 + 1));
        self.block_tables.extend(&sequence.blocks);
        self.block_table_offsets.push(self.block_tables.len() as u32);
    }

    fn input<'a>(&'a self, logit_rows: &'a [u32]) -> BatchInput<'a> {
        BatchInput {
            tokens: &self.tokens,
            positions: &self.positions,
            slots: &self.slots,
            cu_rows: &self.cu_rows,
            context_lens: &self.context_lens,
            block_tables: &self.block_tables,
            block_table_offsets: &self.block_table_offsets,
            logit_rows,
        }
    }
}

/// Runs a check on every family with f32 and bf16 weights.
fn on_every_family(check: impl Fn(&mut Bench, &str)) {
    for config in configs() {
        for dtype in [DType::F32, DType::BF16] {
            let name = format!("{} {dtype}", config["architectures"][0]);
            check(&mut Bench::new(&config, dtype), &name);
        }
    }
}

#[test]
fn chunked_equals_whole_and_shuffled_blocks_equal_contiguous_ones() {
    on_every_family(|bench, name| {
        let sequence = Sequence::new(70, 1, &[0, 1, 2, 3, 4]);
        let whole = bench.run(&[(&sequence, &sequence.all())]);
        assert!(whole.iter().flatten().all(|logit| logit.is_finite()), "{name}");
        assert_ne!(whole[68], whole[69], "{name}");
        let shuffled = Sequence { tokens: sequence.tokens.clone(), blocks: vec![17, 9, 23, 5, 12] };
        let mut chunked = Vec::new();
        for chunk in [0..1, 1..14, 14..33, 33..34, 34..69, 69..70] {
            chunked.extend(bench.run(&[(&shuffled, &chunk.collect::<Vec<_>>())]));
        }
        assert_eq!(whole, chunked, "{name}");
    });
}

#[test]
fn batched_equals_single_in_a_mix_of_prefill_and_decode() {
    on_every_family(|bench, name| {
        let lens = [40, 1, 23, 64, 17];
        let tables: [&[u32]; 5] = [&[0, 7, 2], &[3], &[4, 11], &[6, 1, 8, 9], &[10, 5]];
        let sequences: Vec<Sequence> =
            (0..5).map(|index| Sequence::new(lens[index], index as u32, tables[index])).collect();
        let single: Vec<Vec<Vec<f32>>> = sequences.iter().map(|s| bench.run(&[(s, &s.all())])).collect();
        // The first ones have run before and decode their last token while the others prefill.
        let rows: Vec<Vec<usize>> =
            (0..5).map(|i| if i < 2 { vec![lens[i] - 1] } else { sequences[i].all() }).collect();
        let batch: Vec<_> = sequences.iter().zip(&rows).map(|(s, rows)| (s, rows.as_slice())).collect();
        let batched = bench.run(&batch);
        let expected: Vec<Vec<f32>> =
            single.iter().zip(&rows).flat_map(|(logits, rows)| rows.iter().map(|row| logits[*row].clone())).collect();
        assert_eq!(batched, expected, "{name}");
    });
}

#[test]
fn rows_of_a_sequence_may_have_gaps_and_any_order() {
    on_every_family(|bench, name| {
        let sequence = Sequence::new(50, 4, &[2, 0, 9, 4]);
        let whole = bench.run(&[(&sequence, &sequence.all())]);
        // Everything is in the pool; some rows are computed again, as after splicing, backwards and with gaps.
        let rows = [49, 3, 20, 21, 0, 37];
        let again = bench.run(&[(&sequence, &rows)]);
        let expected: Vec<Vec<f32>> = rows.iter().map(|row| whole[*row].clone()).collect();
        assert_eq!(again, expected, "{name}");
    });
}

#[test]
fn only_the_rows_asked_for_get_logits_and_they_are_the_same() {
    on_every_family(|bench, name| {
        let (a, b) = (Sequence::new(30, 1, &[0, 1]), Sequence::new(9, 2, &[2]));
        let all = bench.run(&[(&a, &a.all()), (&b, &b.all())]);
        let mut flat = Flat::default();
        flat.push(&a, &a.all());
        flat.push(&b, &b.all());
        for wanted in [&[29, 38][..], &[38, 0, 38], &[]] {
            let logits = bench.model.forward(&bench.device, &flat.input(wanted), &mut bench.pool).expect("step");
            assert_eq!((logits.num_rows(), logits.width()), (wanted.len(), VOCAB_SIZE as usize), "{name}");
            for (row, wanted) in wanted.iter().enumerate() {
                assert_eq!(logits.row(row), all[*wanted as usize], "{name}");
            }
            assert_eq!((bench.model.hidden().num_rows(), bench.model.hidden().width()), (wanted.len(), 48));
        }
        // What ran without logits has written its keys and values.
        let decoded = bench.run(&[(&a, &[29])]);
        assert_eq!(decoded[0], all[29], "{name}");
    });
}

#[test]
fn a_window_hides_what_lies_before_it() {
    let mistral = &configs()[1];
    let mut bench = Bench::new(mistral, DType::F32);
    let sequence = Sequence::new(70, 1, &[0, 1, 2, 3, 4]);
    let mut other = Sequence::new(70, 1, &[5, 6, 7, 8, 9]);
    other.tokens[0] = (other.tokens[0] + 1) % VOCAB_SIZE;
    let (first, second) = (bench.run(&[(&sequence, &sequence.all())]), bench.run(&[(&other, &other.all())]));
    // Three layers of window 20 reach back 3 * 19 positions.
    assert_ne!(first[57], second[57]);
    assert_eq!(first[58..], second[58..]);
}

#[test]
fn an_empty_batch_gives_no_logits() {
    let mut bench = Bench::new(&configs()[0], DType::F32);
    let input = BatchInput { cu_rows: &[0], block_table_offsets: &[0], ..BatchInput::default() };
    assert_eq!(bench.model.forward(&bench.device, &input, &mut bench.pool).expect("nothing to do").num_rows(), 0);
}

#[test]
fn arrays_that_do_not_agree_are_refused_before_anything_is_written() {
    let mut bench = Bench::new(&configs()[0], DType::F32);
    let sequence = Sequence::new(20, 1, &[3, 7]);
    let mut flat = Flat::default();
    flat.push(&sequence, &sequence.all());
    let before = bench.run(&[(&sequence, &sequence.all())]);
    type Damage = fn(&mut Flat);
    let cases: [(&str, Damage); 16] = [
        ("positions", |f| f.positions.truncate(19)),
        ("slots", |f| f.slots.push(0)),
        ("cu_rows", |f| f.cu_rows.push(20)),
        ("cu_rows", |f| f.cu_rows[1] = 19),
        ("cu_rows", |f| f.cu_rows[0] = 1),
        ("block_table_offsets", |f| f.block_table_offsets[1] = 3),
        ("tokens", |f| f.tokens[4] = VOCAB_SIZE),
        ("block_tables", |f| f.block_tables[0] = NUM_BLOCKS as u32),
        ("context_lens", |f| f.context_lens[0] = 257),
        ("context_lens", |f| f.context_lens[0] = u32::MAX),
        ("positions", |f| f.context_lens[0] = 19),
        ("a block table", |f| f.context_lens[0] = 33),
        ("positions", |f| f.positions[2] = 99),
        ("slot", |f| f.slots[2] += 1),
        ("slot", |f| f.slots[19] = u32::MAX),
        ("slot", |f| f.positions[2] = 3),
    ];
    for (name, damage) in cases {
        let mut damaged = Flat { tokens: flat.tokens.clone(), ..Flat::default() };
        damaged.push(&sequence, &sequence.all());
        damaged.tokens.drain(..20);
        damaged.cu_rows[1] = 20;
        damage(&mut damaged);
        let error = bench.model.forward(&bench.device, &damaged.input(&[19]), &mut bench.pool).expect_err(name);
        let found = match error {
            ModelError::BatchLength { array, .. }
            | ModelError::BatchOffset { array, .. }
            | ModelError::BatchValue { array, .. } => array,
            ModelError::BatchSlot { .. } => "slot",
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(found, name);
    }
    let error = bench.model.forward(&bench.device, &flat.input(&[20]), &mut bench.pool).expect_err("no such row");
    assert!(matches!(error, ModelError::BatchValue { array: "logit_rows", value: 20, limit: 20, .. }));
    assert_eq!(bench.run(&[(&sequence, &[19])])[0], before[19]);
}

#[test]
fn a_pool_of_another_model_is_refused() {
    let mut bench = Bench::new(&configs()[0], DType::F32);
    let mut shape = bench.model.kv_shape(BLOCK_SIZE, DType::F32);
    shape.num_layers += 1;
    let mut pool = KvPool::new(&bench.device, shape, 2).expect("pool");
    let input = BatchInput { cu_rows: &[0], block_table_offsets: &[0], ..BatchInput::default() };
    let error = bench.model.forward(&bench.device, &input, &mut pool).expect_err("another shape");
    assert!(matches!(error, ModelError::PoolShape { what: "num_layers", expected: 3, got: 4 }));
}

#[test]
fn positions_end_where_the_option_says() {
    let folder = tempfile::tempdir().expect("temporary folder");
    std::fs::write(folder.path().join("config.json"), configs()[0].to_string()).expect("write");
    let device = Device::cpu(CpuOptions::default()).expect("device");
    let load = |max_positions| {
        let options = LoadOptions { format: LoadFormat::Dummy { seed: 3 }, dtype: None, max_positions };
        Model::load(&device, &ModelSource::Folder(folder.path().to_owned()), options)
    };
    assert_eq!(load(None).expect("valid").max_positions(), 256);
    assert_eq!(load(Some(100)).expect("valid").max_positions(), 100);
    assert_eq!(load(Some(100_000)).expect("valid").max_positions(), 256);
    assert!(matches!(load(Some(0)), Err(ModelError::MaxPositions { got: 0, max: 256 })));
}

#[path = "splice_tests.rs"]
mod splice;
