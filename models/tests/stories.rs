//! A real trained checkpoint: greedy decoding through tokenizer, model and sampler gives the known continuation.

use std::path::{Path, PathBuf};

use kernels::{CpuOptions, DType, Device, KvPool};
use models::{
    BatchInput, LoadOptions, Model, ModelSource, Sampler, SamplingParams, SpecialText, SpecialTokens, TextStart,
    Tokenizer,
};

const BLOCK_SIZE: usize = 16;
const NUM_BLOCKS: usize = 8;

/// The checkpoint, or `None` with a printed note when it is not there.
fn stories() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/stories260K");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("SKIPPED (1): ../shared/data/stories260K is not there");
    None
}

#[test]
fn the_trained_checkpoint_continues_its_story() {
    let Some(folder) = stories() else { return };
    let device = Device::cpu(CpuOptions::default()).expect("device");
    let source = ModelSource::Folder(folder);
    let mut model = Model::load(&device, &source, LoadOptions::default()).expect("model");
    let tokenizer = Tokenizer::load(&source).expect("tokenizer");
    let prompt = tokenizer.encode("Once upon a time", SpecialTokens::Add).expect("prompt");
    let mut sampler =
        Sampler::new(SamplingParams::greedy(), &prompt, model.config().vocab_size).expect("greedy parameters");
    let mut pool = KvPool::new(&device, model.kv_shape(BLOCK_SIZE, DType::F32), NUM_BLOCKS).expect("pool");
    let table: Vec<u32> = (0..NUM_BLOCKS as u32).rev().collect();

    let mut text = String::from("Once upon a time");
    let mut stream = tokenizer.decode_stream(SpecialText::Skip, TextStart::Continuation);
    let mut tokens = prompt;
    let mut num_computed = 0;
    while tokens.len() < 60 {
        let positions: Vec<u32> = (num_computed as u32..tokens.len() as u32).collect();
        let slot = |p: &u32| table[*p as usize / BLOCK_SIZE] * BLOCK_SIZE as u32 + p % BLOCK_SIZE as u32;
        let slots: Vec<u32> = positions.iter().map(slot).collect();
        let num_rows = positions.len() as u32;
        let batch = BatchInput {
            tokens: &tokens[num_computed..],
            positions: &positions,
            slots: &slots,
            cu_rows: &[0, num_rows],
            context_lens: &[tokens.len() as u32],
            block_tables: &table,
            block_table_offsets: &[0, NUM_BLOCKS as u32],
            logit_rows: &[num_rows - 1],
        };
        let logits = model.forward(&device, &batch, &mut pool).expect("step");
        let next = sampler.sample(logits.row(0)).expect("finite logits");
        text.extend(stream.push(next));
        num_computed = tokens.len();
        tokens.push(next);
    }
    text.extend(stream.finish());
    let expected = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park";
    assert!(text.starts_with(expected), "{text}");
}
