//! `memos bench splice`: what spliced reuse costs in time, and in accuracy against the full computation.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Args;
use kernels::{DType, Device, KvPool};
use models::{ChatInput, ChatTemplate, Continuation, Model, SpecialTokens, Tokenizer};
use serde_json::{Map, json};

use super::output;
use super::progress::Progress;
use super::random::Random;
use super::splice_chats::{Chat, Kind};
use super::splice_report::{Method, Quality, Surroundings, Tally, Timing, quality_text, timing_text};
use super::statistics::{Repetitions, milliseconds};
use crate::cli::engine_args::{EngineArgs, LoadFormatArg};
use crate::environment::Environment;
use crate::splice::{Placement, Segment, Target, plan_splice};

/// Tokens before the segments and behind them in the timed prompt.
const TIMED_ENDS: [usize; 2] = [32, 16];

/// Options of `memos bench splice`.
#[derive(Debug, Clone, Args)]
pub struct SpliceArgs {
    /// The model under test. With --load-format dummy only times are measured.
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Chats with one question each
    #[arg(long, default_value = "120", value_name = "N")]
    pub chats: NonZeroUsize,
    /// First tokens of each segment that are computed again
    #[arg(long, default_value = "0,1,2,4,8,16", value_name = "N,...", value_delimiter = ',')]
    pub first_tokens: Vec<usize>,
    /// Shares of the moved rows that are computed again, chosen by deviation
    #[arg(long, default_value = "0.1,0.15,0.4", value_name = "SHARE,...", value_delimiter = ',')]
    pub ratios: Vec<f32>,
    /// Segments of the timed prompt
    #[arg(long, default_value = "10", value_name = "N")]
    pub segments: NonZeroUsize,
    /// Tokens of each segment of the timed prompt
    #[arg(long, default_value = "128", value_name = "TOKENS")]
    pub segment_len: NonZeroUsize,
    /// Timed repetitions
    #[arg(long, default_value = "3", value_name = "N")]
    pub repetitions: NonZeroUsize,
    /// Seed of chats and prompts
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Also write the result as JSON; `-` writes it to stdout and the table to stderr
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Model, pool and the blocks at hand: half for the prompt, half to compute segments in.
struct Bench {
    device: Device,
    model: Model,
    pool: KvPool,
    prompt_blocks: Vec<u32>,
    segment_blocks: Vec<u32>,
}

/// Runs the benchmark and prints the result.
///
/// # Errors
/// A model that cannot be loaded, options that do not fit it.
pub fn run(args: &SpliceArgs, environment: &Environment) -> anyhow::Result<()> {
    let (device, model, source, name) = args.engine.load(environment)?;
    let dtype = args.engine.kv_dtype.map_or(model.config().dtype, DType::from);
    let shape = model.kv_shape(args.engine.block_size, dtype);
    let num_blocks = model.max_positions().div_ceil(args.engine.block_size) as u32;
    let pool = KvPool::new(&device, shape, 2 * num_blocks as usize)?;
    let (prompt_blocks, segment_blocks) = ((0..num_blocks).collect(), (num_blocks..2 * num_blocks).collect());
    let mut bench = Bench { device, model, pool, prompt_blocks, segment_blocks };
    let quality = if args.engine.load_format == LoadFormatArg::Dummy {
        Vec::new()
    } else {
        let tokenizer = Tokenizer::load(&source).context("cannot load the tokenizer")?;
        let template = ChatTemplate::load(&source).context("cannot load the chat template")?;
        let template = template.context("the model has no chat template")?;
        measure_quality(args, &mut bench, &tokenizer, &template)?
    };
    let timing = measure_timing(args, &mut bench)?;
    let title = format!("{name}, KV {dtype}, {}", bench.device.describe());
    let text = format!("{title}\n\n{}{}", quality_text(&quality), timing_text(args, &timing));
    let json = json!({
        "benchmark": "splice",
        "config": {
            "model": name, "kv_dtype": dtype.to_string(), "backend": bench.device.describe(), "chats": args.chats,
            "seed": args.seed, "segments": args.segments, "segment_len": args.segment_len,
            "repetitions": args.repetitions,
        },
        "quality": quality,
        "timing": timing,
    });
    output::deliver(&text, &json, args.json.as_deref())
}

impl SpliceArgs {
    fn methods(&self, contexts: &[Surroundings]) -> Vec<Method> {
        let mut methods = Vec::new();
        for &context in contexts {
            let plain = self.first_tokens.iter().map(|k| Method { context, first_tokens: *k, ratio: None });
            let selective = self.ratios.iter().map(|r| Method { context, first_tokens: 0, ratio: Some(*r) });
            methods.extend(plain.chain(selective));
        }
        methods
    }
}

impl Bench {
    /// Fills the prompt's blocks and returns rows that went through all layers and the logits of the last rows.
    fn compute(
        &mut self,
        prompt: &[u32],
        placements: &[Placement<'_>],
        method: Option<Method>,
        num_logit_rows: usize,
    ) -> anyhow::Result<(usize, Vec<Vec<f32>>)> {
        let (first_tokens, ratio) = method.map_or((0, None), |method| (method.first_tokens, method.ratio));
        let plan = plan_splice(prompt, 0, placements, first_tokens, ratio)?;
        let Self { device, model, pool, prompt_blocks, .. } = self;
        let computed =
            plan.execute(&mut Target { device, model, pool, block_table: prompt_blocks }, prompt, num_logit_rows)?;
        let logits = self.model.logits();
        Ok((computed, (0..num_logit_rows).map(|row| logits.row(row).to_vec()).collect()))
    }

    /// Computes tokens in blocks of their own and takes pieces of them out.
    fn capture(&mut self, whole: &[u32], pieces: &[std::ops::Range<usize>]) -> anyhow::Result<Vec<Segment>> {
        let plan = plan_splice(whole, 0, &[], 0, None)?;
        let Self { device, model, pool, segment_blocks, .. } = self;
        plan.execute(&mut Target { device, model, pool, block_table: segment_blocks }, whole, 1)?;
        let capture = |range: &std::ops::Range<usize>| {
            Segment::capture(pool, segment_blocks, range.start, whole[range.clone()].to_vec(), None)
        };
        Ok(pieces.iter().map(capture).collect::<Result<_, _>>()?)
    }

    /// Segments of `lines`, each computed in its context behind `preamble`.
    fn segments(&mut self, preamble: &[u32], lines: &[&[u32]], context: Surroundings) -> anyhow::Result<Vec<Segment>> {
        if context == Surroundings::Shuffled {
            // Turned by half: every line has others before it than in the prompt.
            let order: Vec<usize> = (0..lines.len()).map(|i| (i + lines.len().div_ceil(2)) % lines.len()).collect();
            let mut whole = preamble.to_vec();
            let mut pieces = vec![0..0; lines.len()];
            for index in order {
                pieces[index] = whole.len()..whole.len() + lines[index].len();
                whole.extend(lines[index]);
            }
            return self.capture(&whole, &pieces);
        }
        let before = if context == Surroundings::Isolated { &[] } else { preamble };
        let mut segments = Vec::with_capacity(lines.len());
        for line in lines {
            let whole = [before, line].concat();
            segments.extend(self.capture(&whole, std::slice::from_ref(&(before.len()..whole.len())))?);
        }
        Ok(segments)
    }
}

/// A chat as tokens: what stands before the memories, each memory, the rest of the prompt, the answer and its end.
pub(super) struct TokenChat {
    preamble: Vec<u32>,
    lines: Vec<Vec<u32>>,
    tail: Vec<u32>,
    pub answer: Vec<u32>,
    pub kind: Kind,
}

impl TokenChat {
    fn new(chat: &Chat, tokenizer: &Tokenizer, template: &ChatTemplate) -> anyhow::Result<Self> {
        let encode = |text: &str| tokenizer.encode(text, SpecialTokens::Skip);
        let memories = chat.lines.concat();
        let system = format!("{}{memories}", chat.heading);
        let mut messages = json!([{"role": "system", "content": system}, {"role": "user", "content": chat.question}]);
        let render = |messages: &serde_json::Value, add_generation_prompt| {
            template.render(&ChatInput { messages, tools: None, add_generation_prompt, kwargs: &Map::new() })
        };
        let prompt = render(&messages, Continuation::AssistantTurn)?;
        if let Some(list) = messages.as_array_mut() {
            list.push(json!({"role": "assistant", "content": chat.answer}));
        }
        let whole = render(&messages, Continuation::Nothing)?;
        let answer = whole.strip_prefix(&prompt).context("the template does not continue the prompt")?;
        let (preamble, tail) = prompt.split_once(&memories).context("the template changes the memories")?;
        let lines: Vec<Vec<u32>> = chat.lines.iter().map(|line| encode(line)).collect::<Result<_, _>>()?;
        let (preamble, tail, answer) = (encode(preamble)?, encode(tail)?, encode(answer)?);
        let joined = [preamble.clone(), lines.concat(), tail.clone()].concat();
        ensure!(
            joined == encode(&prompt)?,
            "the tokenizer joins memory lines: their tokens depend on what is beside them"
        );
        Ok(Self { preamble, lines, tail, answer, kind: chat.kind })
    }
}

/// An answer is exact when every one of its tokens is the most likely one behind those before it, which is what greedy
/// decoding would give; so one step over prompt and answer measures it.
fn measure_quality(
    args: &SpliceArgs,
    bench: &mut Bench,
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
) -> anyhow::Result<Vec<Quality>> {
    let contexts = [Surroundings::Isolated, Surroundings::Preamble, Surroundings::Shuffled];
    let methods = args.methods(&contexts);
    let mut tallies: Vec<Tally> = (0..=methods.len()).map(|_| Tally::default()).collect();
    let progress = Progress::new("chats", args.chats.get());
    for index in 0..args.chats.get() {
        let chat = TokenChat::new(&Chat::draw(args.seed, index), tokenizer, template)?;
        let TokenChat { preamble, lines, tail, answer, .. } = &chat;
        let known = &answer[..answer.len() - 1];
        let whole = [preamble.clone(), lines.concat(), tail.clone(), known.to_vec()].concat();
        let (computed, full) = bench.compute(&whole, &[], None, answer.len())?;
        let prompt_len = whole.len() - known.len();
        let add = |tally: &mut Tally, computed: usize, logits: &[Vec<f32>]| {
            tally.prompt += prompt_len;
            tally.add(&chat, computed - known.len(), logits, &full);
        };
        add(&mut tallies[0], computed, &full);
        let lines: Vec<&[u32]> = lines.iter().map(Vec::as_slice).collect();
        for context in contexts {
            let segments = bench.segments(preamble, &lines, context)?;
            let placements = placed(&segments, preamble.len());
            for (tally, method) in tallies[1..].iter_mut().zip(&methods).filter(|(_, m)| m.context == context) {
                let (computed, logits) = bench.compute(&whole, &placements, Some(*method), answer.len())?;
                add(tally, computed, &logits);
            }
        }
        progress.advance();
    }
    let methods = std::iter::once(None).chain(methods.into_iter().map(Some));
    Ok(tallies.iter().zip(methods).map(|(tally, method)| tally.quality(method)).collect())
}

/// Segments one behind the other from `at` on.
fn placed(segments: &[Segment], mut at: usize) -> Vec<Placement<'_>> {
    let mut placements = Vec::with_capacity(segments.len());
    for segment in segments {
        placements.push(Placement { segment, at });
        at += segment.tokens().len();
    }
    placements
}

/// Segments of random tokens, computed together in another order, spliced into a prompt.
fn measure_timing(args: &SpliceArgs, bench: &mut Bench) -> anyhow::Result<Vec<Timing>> {
    let vocab_size = u32::try_from(bench.model.config().vocab_size)?;
    let mut random = Random::new(args.seed, u64::MAX);
    let [preamble, tail] = TIMED_ENDS.map(|len| random.tokens(len, 0..vocab_size));
    let lines: Vec<Vec<u32>> =
        (0..args.segments.get()).map(|_| random.tokens(args.segment_len.get(), 0..vocab_size)).collect();
    let prompt = [preamble.clone(), lines.concat(), tail].concat();
    ensure!(
        prompt.len() <= bench.model.max_positions(),
        "the timed prompt has {} tokens, the model reaches {}: take fewer or shorter segments",
        prompt.len(),
        bench.model.max_positions()
    );
    let lines: Vec<&[u32]> = lines.iter().map(Vec::as_slice).collect();
    let segments = bench.segments(&preamble, &lines, Surroundings::Shuffled)?;
    let placements = placed(&segments, preamble.len());
    let methods: Vec<Option<Method>> =
        std::iter::once(None).chain(args.methods(&[Surroundings::Shuffled]).into_iter().map(Some)).collect();
    let mut samples = vec![Vec::new(); methods.len()];
    let mut shares = vec![0.0; methods.len()];
    // Methods take turns, so that a slower moment of the machine hits all of them.
    for repetition in 0..=args.repetitions.get() {
        for (index, method) in methods.iter().enumerate() {
            let placements = if method.is_some() { &placements[..] } else { &[] };
            let start = Instant::now();
            let (computed, _) = bench.compute(&prompt, placements, *method, 1)?;
            // The first round pays for untouched memory.
            if repetition > 0 {
                samples[index].push(milliseconds(start.elapsed()));
            }
            shares[index] = computed as f64 / prompt.len() as f64;
        }
    }
    let rows: Option<Vec<Repetitions>> = samples.into_iter().map(Repetitions::of).collect();
    let rows = rows.context("no repetition was measured")?;
    let cold_ms = rows[0].median;
    let timing = |((method, share_computed), ms): ((Option<Method>, f64), Repetitions)| Timing {
        method,
        share_computed,
        ratio_to_cold: ms.median / cold_ms,
        ms,
    };
    Ok(methods.into_iter().zip(shares).zip(rows).map(timing).collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::bundled;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: SpliceArgs,
    }

    fn bench(line: &[&str]) -> (SpliceArgs, Bench) {
        let line = std::iter::once("splice").chain(line.iter().copied());
        let args = Line::try_parse_from(line).expect("options").args;
        let (device, model, ..) = args.engine.load(&Environment::default()).expect("bundled model");
        let pool = KvPool::new(&device, model.kv_shape(16, DType::BF16), 256).expect("pool");
        let (prompt_blocks, segment_blocks) = ((0..128).collect(), (128..256).collect());
        (args, Bench { device, model, pool, prompt_blocks, segment_blocks })
    }

    #[test]
    fn computing_everything_again_is_the_full_computation_and_moving_is_not() {
        let (args, mut bench) = bench(&["--chats", "6", "--first-tokens", "0,999", "--ratios", "1"]);
        let tokenizer = Tokenizer::load(&bundled::source()).expect("tokenizer");
        let template = ChatTemplate::load(&bundled::source()).expect("template").expect("has one");
        let rows = measure_quality(&args, &mut bench, &tokenizer, &template).expect("measured");
        assert_eq!(rows.len(), 1 + 3 * 3);
        let full = &rows[0];
        assert!(full.method.is_none() && full.exact > 0.0 && full.share_computed == 1.0);
        for row in &rows[1..] {
            let method = row.method.expect("spliced");
            if method.first_tokens == 999 || method.ratio == Some(1.0) {
                assert_eq!((row.logit_divergence_max, row.same_top), (0.0, 1.0), "{method:?}");
                assert_eq!((row.exact, row.share_computed), (full.exact, 1.0), "{method:?}");
            } else {
                assert!(row.logit_divergence_max > 0.0 && row.share_computed < 0.5, "{method:?}");
            }
        }
        assert!(quality_text(&rows).contains("full computation"));
    }

    #[test]
    fn the_timed_prompt_has_a_row_for_each_method_and_must_fit() {
        let (args, mut bench) = bench(&["--segments", "2", "--segment-len", "20", "--repetitions", "1"]);
        let rows = measure_timing(&args, &mut bench).expect("measured");
        assert_eq!(rows.len(), 1 + 6 + 3);
        assert_eq!(rows[0].ratio_to_cold, 1.0);
        assert!(rows.iter().all(|row| row.ms.samples.len() == 1));
        assert_eq!(rows[1].share_computed, 48.0 / 88.0);
        assert!(timing_text(&args, &rows).contains("2 segments of 20 tokens"));
        let long = SpliceArgs { segment_len: NonZeroUsize::new(5000).expect("not zero"), ..args };
        assert!(
            measure_timing(&long, &mut bench).expect_err("too long").to_string().contains("the model reaches 4096")
        );
    }
}
