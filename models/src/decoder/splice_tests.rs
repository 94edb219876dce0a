//! Spliced sequences: what is computed again is what a plain prefill computes, and what is moved stays near it.

use kernels::{KvSource, SpliceRun, ops};

use super::*;

/// A prompt of a preamble, two segments and a tail, whose segments were computed in the other order; moved into place.
struct Spliced {
    sequence: Sequence,
    /// Rows that came from a segment.
    moved: Vec<usize>,
    plain: Vec<Vec<f32>>,
}

const PREAMBLE_LEN: usize = 5;
const SEGMENT_LENS: [usize; 2] = [23, 18];
const TAIL_LEN: usize = 7;

impl Spliced {
    fn new(bench: &mut Bench) -> Self {
        let len = PREAMBLE_LEN + SEGMENT_LENS[0] + SEGMENT_LENS[1] + TAIL_LEN;
        let sequence = Sequence::new(len, 5, &[20, 3, 11, 7]);
        let plain = bench.run(&[(&sequence, &sequence.all())]);
        let (first, second) = (PREAMBLE_LEN, PREAMBLE_LEN + SEGMENT_LENS[0]);
        // In the other order behind the same preamble, in other blocks.
        let order = (0..first).chain(second..second + SEGMENT_LENS[1]).chain(first..second);
        let tokens: Vec<u32> = order.map(|row| sequence.tokens[row]).collect();
        let source = Sequence { tokens, blocks: vec![1, 15, 2] };
        bench.run(&[(&source, &source.all())]);
        let spliced = Sequence { tokens: sequence.tokens.clone(), blocks: vec![8, 19, 6, 13] };
        bench.poison(&spliced.blocks);
        let (moved_by, back_by) = (SEGMENT_LENS[1] as i64, -(SEGMENT_LENS[0] as i64));
        let rotations = [-moved_by, -back_by].map(|delta| bench.model.key_rotation(delta).expect("in reach"));
        let mut runs = Vec::new();
        for (from, to, len, rotation) in
            [(first + SEGMENT_LENS[1], first, SEGMENT_LENS[0], 0), (first, second, SEGMENT_LENS[1], 1)]
        {
            runs.extend((0..len).map(|i| SpliceRun {
                source: source.slot(from + i),
                target: spliced.slot(to + i),
                len: 1,
                rotation: Some(rotation),
            }));
        }
        ops::kv_splice(&bench.device, KvSource::Pool, &runs, &rotations, &mut bench.pool).expect("splice");
        Self { sequence: spliced, moved: (first..len - TAIL_LEN).collect(), plain }
    }
}

impl Sequence {
    fn slot(&self, row: usize) -> u32 {
        self.blocks[row / BLOCK_SIZE] * BLOCK_SIZE as u32 + (row % BLOCK_SIZE) as u32
    }
}

impl Bench {
    /// Fills blocks with numbers that would show in any result.
    fn poison(&mut self, blocks: &[u32]) {
        let bytes = vec![0x41; self.pool.shape().block_bytes()];
        for block in blocks {
            self.pool.import_block(*block, &bytes).expect("block");
        }
    }

    fn selective(
        &mut self,
        sequence: &Sequence,
        resident: &[usize],
        num_computed: usize,
        full_layers: usize,
    ) -> (Vec<u32>, Vec<f32>) {
        let mut flat = Flat::default();
        flat.push(sequence, &sequence.all());
        let resident: Vec<u32> = resident.iter().map(|row| *row as u32).collect();
        let selection = RowSelection { resident: &resident, num_computed, full_layers };
        let last = [sequence.tokens.len() as u32 - 1];
        let rows = self.model.forward_selective(&self.device, &flat.input(&last), &selection, &mut self.pool);
        let rows = rows.expect("step");
        (rows, self.model.logits().row(0).to_vec())
    }
}

#[test]
fn computing_every_row_again_over_spliced_slots_gives_the_bits_of_a_plain_prefill() {
    on_every_family(|bench, name| {
        let spliced = Spliced::new(bench);
        let again = bench.run(&[(&spliced.sequence, &spliced.sequence.all())]);
        assert_eq!(again, spliced.plain, "{name}");
    });
}

#[test]
fn keys_of_the_first_layer_depend_on_token_and_position_alone_and_are_those_of_the_new_position() {
    for config in configs() {
        let mut bench = Bench::new(&config, DType::F32);
        let spliced = Spliced::new(&mut bench);
        let shape = *bench.pool.shape();
        let first_layer = |bench: &Bench, block: u32| -> Vec<f32> {
            let mut bytes = vec![0; shape.block_bytes()];
            bench.pool.export_block(block, &mut bytes).expect("block");
            let layer = &bytes[..shape.block_bytes() / shape.num_layers];
            layer.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))).collect()
        };
        // The second block holds rows 16 to 31, of both segments, and nothing else.
        let moved = first_layer(&bench, spliced.sequence.blocks[1]);
        bench.run(&[(&spliced.sequence, &spliced.sequence.all())]);
        let computed = first_layer(&bench, spliced.sequence.blocks[1]);
        for (index, (moved, computed)) in moved.iter().zip(&computed).enumerate() {
            assert!((moved - computed).abs() < 2e-5, "{}: element {index}", config["architectures"][0]);
        }
        let values = moved.len() / 2;
        assert_eq!(moved[values..], computed[values..], "values do not change at all");
    }
}

#[test]
fn rows_below_what_is_computed_again_do_not_see_what_lies_above() {
    on_every_family(|bench, name| {
        let spliced = Spliced::new(bench);
        // Preamble, the first tokens of each segment, and the tail, in one step; the other slots are spliced.
        let second = PREAMBLE_LEN + SEGMENT_LENS[0];
        let end = spliced.sequence.tokens.len();
        let rows: Vec<usize> = (0..PREAMBLE_LEN + 3).chain(second..second + 3).chain(end - TAIL_LEN..end).collect();
        let logits = bench.run(&[(&spliced.sequence, &rows)]);
        // What has only exact rows before it is exact, though later positions are resident.
        assert_eq!(logits[..PREAMBLE_LEN + 3], spliced.plain[..PREAMBLE_LEN + 3], "{name}");
        assert!(logits.iter().flatten().all(|logit| logit.is_finite()), "{name}");
    });
}

#[test]
fn selecting_every_row_is_a_plain_prefill_and_selecting_none_computes_what_is_not_resident() {
    on_every_family(|bench, name| {
        for full_layers in [1, 2] {
            let spliced = Spliced::new(bench);
            let num_rows = spliced.sequence.tokens.len();
            let (rows, logits) = bench.selective(&spliced.sequence, &spliced.moved, usize::MAX, full_layers);
            assert_eq!(rows, (0..num_rows as u32).collect::<Vec<_>>(), "{name}");
            assert_eq!(&logits, spliced.plain.last().expect("rows"), "{name}");
            // Everything is exact now, so nothing deviates and computing less changes nothing.
            let (rows, logits) = bench.selective(&spliced.sequence, &spliced.moved, 0, full_layers);
            assert_eq!(rows.len(), PREAMBLE_LEN + TAIL_LEN, "{name}");
            assert_eq!(&logits, spliced.plain.last().expect("rows"), "{name}");
        }
    });
}

#[test]
fn the_rows_that_deviate_most_are_chosen() {
    let mut bench = Bench::new(&configs()[0], DType::F32);
    let spliced = Spliced::new(&mut bench);
    bench.run(&[(&spliced.sequence, &spliced.sequence.all())]);
    // All is exact but the slots of two rows, which take the keys and values of others.
    let runs = [(10, 31), (40, 12)].map(|(from, to)| {
        let (source, target) = (Sequence::slot(&Sequence::new(0, 0, &[20, 3, 11, 7]), from), spliced.sequence.slot(to));
        SpliceRun { source, target, len: 1, rotation: None }
    });
    ops::kv_splice(&bench.device, KvSource::Pool, &runs, &[], &mut bench.pool).expect("splice");
    let (rows, logits) = bench.selective(&spliced.sequence, &spliced.moved, 2, 1);
    let others: Vec<u32> = (0..spliced.sequence.tokens.len() as u32)
        .filter(|row| !spliced.moved.contains(&(*row as usize)) || [12, 31].contains(row))
        .collect();
    assert_eq!(rows, others);
    assert_eq!(&logits, spliced.plain.last().expect("rows"));
}

#[test]
fn selections_and_shifts_that_do_not_fit_are_refused() {
    let mut bench = Bench::new(&configs()[0], DType::F32);
    let sequence = Sequence::new(20, 1, &[3, 7]);
    let mut flat = Flat::default();
    flat.push(&sequence, &sequence.all());
    let refused = |bench: &mut Bench, resident: &[u32], full_layers| {
        let selection = RowSelection { resident, num_computed: 1, full_layers };
        let step = bench.model.forward_selective(&bench.device, &flat.input(&[19]), &selection, &mut bench.pool);
        step.expect_err("does not fit")
    };
    for got in [0, 3] {
        let error = refused(&mut bench, &[1], got);
        assert!(matches!(error, ModelError::FullLayers { got: named, num_layers: 3 } if named == got));
    }
    let error = refused(&mut bench, &[1, 20], 1);
    assert!(matches!(error, ModelError::BatchValue { array: "resident", index: 1, value: 20, limit: 20 }));
    assert!(bench.model.key_rotation(255).is_ok() && bench.model.key_rotation(-255).is_ok());
    for delta in [256, -256, i64::MIN, i64::MAX] {
        assert!(matches!(bench.model.key_rotation(delta), Err(ModelError::PositionShift { max: 255, .. })));
    }
}
