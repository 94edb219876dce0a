//! Planning and moving on the bundled model: placements that do not fit, exactness where everything is computed, nearness.

use kernels::{CpuOptions, DType, Device, KvPool};
use models::{LoadOptions, Model};

use super::*;

const BLOCK_SIZE: usize = 16;

struct Bench {
    device: Device,
    model: Model,
    pool: KvPool,
}

impl Bench {
    fn new() -> Self {
        let device = Device::cpu(CpuOptions::default()).expect("device");
        let model = Model::load(&device, &crate::bundled::source(), LoadOptions::default()).expect("bundled model");
        let pool = KvPool::new(&device, model.kv_shape(BLOCK_SIZE, DType::F32), 16).expect("pool");
        Self { device, model, pool }
    }

    fn run(&mut self, plan: &SplicePlan<'_>, prompt: &[u32], block_table: &[u32]) -> Result<Vec<f32>, SpliceError> {
        let Self { device, model, pool } = self;
        plan.execute(&mut Target { device, model, pool, block_table }, prompt, 1)?;
        Ok(self.model.logits().row(0).to_vec())
    }

    fn capture(&mut self, preamble: &[u32], tokens: &[u32]) -> Segment {
        let whole = [preamble, tokens].concat();
        let plan = plan_splice(&whole, 0, &[], 0, None).expect("nothing to move");
        self.run(&plan, &whole, &[12, 13, 14, 15]).expect("step");
        let hidden = Some(self.model.hidden().row(0).to_vec());
        Segment::capture(&self.pool, &[12, 13, 14, 15], preamble.len(), tokens.to_vec(), hidden).expect("capture")
    }
}

fn tokens(len: usize, salt: u32) -> Vec<u32> {
    (0..len as u32).map(|i| 10 + (i * i * 7 + i * 3 + salt * 131) % 1000).collect()
}

#[test]
fn a_segment_that_stays_in_place_behind_its_preamble_is_exact() {
    let mut bench = Bench::new();
    let (preamble, memory, tail) = (tokens(9, 1), tokens(30, 2), tokens(5, 3));
    let prompt = [&preamble[..], &memory, &tail].concat();
    let cold = plan_splice(&prompt, 0, &[], 0, None).expect("nothing to move");
    let exact = bench.run(&cold, &prompt, &[0, 1, 2]).expect("step");
    let segment = bench.capture(&preamble, &memory);
    assert_eq!(segment.hidden().map(<[f32]>::len), Some(256));
    let placements = find_segments(&prompt, 0, std::slice::from_ref(&segment));
    assert_eq!(placements.iter().map(|p| p.at).collect::<Vec<_>>(), [9]);
    for first_tokens in [0, 1, 7, 30, 99] {
        for selective in [None, Some(0.0), Some(0.2), Some(1.0)] {
            let plan = plan_splice(&prompt, 0, &placements, first_tokens, selective).expect("fits");
            assert_eq!(plan.num_moved(), 30usize.saturating_sub(first_tokens));
            let logits = bench.run(&plan, &prompt, &[7, 4, 6]).expect("step");
            assert_eq!(logits, exact, "{first_tokens} {selective:?}");
        }
    }
}

#[test]
fn two_segments_in_another_order_are_near_and_exact_when_all_is_computed_again() {
    let mut bench = Bench::new();
    let (preamble, a, b, tail) = (tokens(9, 1), tokens(20, 2), tokens(25, 4), tokens(5, 3));
    let prompt = [&preamble[..], &b, &a, &tail].concat();
    let cold = plan_splice(&prompt, 0, &[], 0, None).expect("nothing to move");
    let exact = bench.run(&cold, &prompt, &[0, 1, 2, 3]).expect("step");
    let segments = [bench.capture(&preamble, &a), bench.capture(&preamble, &b)];
    let placements = find_segments(&prompt, 0, &segments);
    assert_eq!(placements.iter().map(|p| p.at).collect::<Vec<_>>(), [9, 34]);
    let mut distance = |first_tokens, selective| {
        let plan = plan_splice(&prompt, 0, &placements, first_tokens, selective).expect("fits");
        let logits = bench.run(&plan, &prompt, &[7, 4, 6, 9]).expect("step");
        logits.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max)
    };
    assert_eq!(distance(0, Some(1.0)), 0.0);
    assert_eq!(distance(99, None), 0.0);
    let spread = exact.iter().copied().fold(f32::MIN, f32::max) - exact.iter().copied().fold(f32::MAX, f32::min);
    for near in [distance(0, None), distance(8, None), distance(0, Some(0.3))] {
        assert!(near > 0.0 && near < 0.8 * spread, "{near} of {spread}");
    }
}

#[test]
fn placements_and_shares_that_do_not_fit_are_named() {
    let mut bench = Bench::new();
    let segment = bench.capture(&[], &tokens(20, 2));
    let prompt = [tokens(4, 1), tokens(20, 2)].concat();
    let place = |at| Placement { segment: &segment, at };
    let refused = |prefix_len, placements: &[Placement<'_>], ratio| {
        plan_splice(&prompt, prefix_len, placements, 0, ratio).expect_err("does not fit")
    };
    assert!(matches!(refused(0, &[place(5)], None), SpliceError::NotThere { placement: 0, at: 5, len: 20, .. }));
    assert!(matches!(refused(0, &[place(usize::MAX)], None), SpliceError::NotThere { .. }));
    assert!(matches!(refused(5, &[place(4)], None), SpliceError::Overlap { at: 4, free_from: 5, .. }));
    assert!(matches!(refused(0, &[place(4), place(4)], None), SpliceError::Overlap { placement: 1, .. }));
    for got in [-0.1, 1.1, f32::NAN] {
        assert!(matches!(refused(0, &[place(4)], Some(got)), SpliceError::Ratio { .. }));
    }
    assert!(matches!(refused(25, &[], None), SpliceError::Mismatch { .. }));
    assert!(matches!(plan_splice(&[], 0, &[], 0, None), Err(SpliceError::EmptyPrompt)));
    // The prompt ends with the segment: its last row is computed all the same.
    let plan = plan_splice(&prompt, 0, &[place(4)], 0, None).expect("fits");
    assert_eq!((plan.num_moved(), plan.computed.last()), (19, Some(&23)));
    assert!(matches!(bench.run(&plan, &prompt, &[1]), Err(SpliceError::BlockTable { expected: 2, got: 1 })));
    assert!(matches!(bench.run(&plan, &prompt[1..], &[1, 2]), Err(SpliceError::Mismatch { .. })));
    let shape = *bench.pool.shape();
    let short = Segment::from_parts(&shape, tokens(20, 2), 15, segment.blocks().to_vec(), None);
    assert!(matches!(short, Err(SpliceError::SegmentBytes { .. })));
    let none = Segment::capture(&bench.pool, &[0], 0, Vec::new(), None);
    assert!(matches!(none, Err(SpliceError::EmptySegment)));
    let far = Segment::capture(&bench.pool, &[0], 10, tokens(20, 1), None);
    assert!(matches!(far, Err(SpliceError::BlockTable { expected: 2, got: 1 })));
}
