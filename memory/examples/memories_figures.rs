//! How fast the boundary is: durable additions, searches, mounting, the past and erasure, at 1,000, 10,000 and 100,000
//! memories in one cube, beside the time of a bare fsync on the same disk.
//!
//! `cargo run --release -p memory --example memories_figures -- [folder [size…]]` prints a Markdown table. Texts have twelve words by
//! Zipf's law over a vocabulary of 50,000, three of a hundred mention one of 2,000 names; questions have six words, frequent
//! or rare ones, and the last ones a name. Vectors are random, of 384 dimensions, made from the text: the time that a model
//! would take is not in here, that of making them is reported apart. Seeded.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use memory::governance::quota::{Quota, QuotaBook};
use memory::governance::retention::RetentionRules;
use memory::governance::{Actor, AuditKey, Identity, PolicyEngine, Role};
use memory::item::NewItem;
use memory::memories::{
    AddOptions, EmbedError, Embedder, Memories, MemoriesParts, MountedCube, Purpose, SearchAnswer, SearchRequest,
};
use memory::search::vectors::EmbedderId;
use memory::{Clock, Timestamp};

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
/// The past is looked at in a cube of this size: it is indexed anew for each question.
const PAST_SIZE: usize = 10_000;
const BATCH_LEN: usize = 1_000;
const NUM_SINGLE: usize = 200;
const NUM_QUERIES: usize = 200;
const NUM_WORDS: usize = 50_000;
const NUM_NAMES: usize = 2_000;
/// Words of rank below this are frequent, those above [`RARE`] rare.
const FREQUENT: usize = 100;
const RARE: usize = 5_000;
const NUM_RESULTS: usize = 10;
const DIM: usize = 384;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().map_or_else(std::env::temp_dir, Into::into);
    let asked = arguments.map(|size| size.parse()).collect::<Result<Vec<usize>, _>>()?;
    let sizes = if asked.is_empty() { SIZES.to_vec() } else { asked };
    println!("| memories | embedder | what | p50 | p99 |\n| ---: | --- | --- | ---: | ---: |");
    for embedder in [None, Some(Arc::new(RandomVectors::new()?) as Arc<dyn Embedder>)] {
        for size in &sizes {
            measure(&tempfile::tempdir_in(&parent)?, *size, embedder.clone())?;
        }
    }
    Ok(())
}

/// One cube of this size.
fn measure(folder: &tempfile::TempDir, size: usize, embedder: Option<Arc<dyn Embedder>>) -> Outcome<()> {
    let table = Table { size, embedder: if embedder.is_some() { "random, 384" } else { "none" } };
    let owner = Actor::of_tenant(Identity { tenant: "acme".parse()?, role: Role::Admin });
    let memories = open(folder.path(), embedder)?;
    let cube = memories.create(&owner, "figures".parse()?)?;
    let mut texts = Texts::new();
    let began = Instant::now();
    for start in (0..size).step_by(BATCH_LEN) {
        let batch = (start..(start + BATCH_LEN).min(size)).map(|_number| texts.item()).collect();
        let added = cube.add(&owner, batch, AddOptions::default())?;
        assert!(added.len() <= BATCH_LEN);
    }
    let rate = size as f64 / began.elapsed().as_secs_f64();
    println!("| {size} | {} | items/s in batches of {BATCH_LEN} | {rate:.0} | |", table.embedder);

    let (mut fsyncs, mut adds) = (Vec::new(), Vec::new());
    let mut beside = File::create(folder.path().join("beside"))?;
    for _ in 0..NUM_SINGLE {
        // In turns, so that both meet the same disk.
        fsyncs.push(timed(|| beside.write_all(&[7; 4096]).and_then(|()| beside.sync_all()))?);
        let item = texts.item();
        adds.push(timed(|| cube.add(&owner, vec![item], AddOptions::default()))?);
    }
    table.row("4 KiB appended and fsynced", fsyncs);
    table.row("one memory added", adds);
    searches(&table, &cube, &owner, &mut texts)?;
    if size == PAST_SIZE {
        let moment = cube.search(&owner, &SearchRequest::new("a", 1)).map(|_answer| now())?;
        let past = (0..5).map(|_| {
            let request = SearchRequest {
                as_of: Some(moment),
                ..SearchRequest::new(texts.question(Words::Frequent), NUM_RESULTS)
            };
            timed(|| cube.search(&owner, &request))
        });
        table.row("search as of a moment", past.collect::<Result<_, _>>()?);
    }
    drop(cube);
    memories.unmount(&owner, &"figures".parse()?)?;
    let began = Instant::now();
    let cube = memories.mount(&owner, &"figures".parse()?)?;
    table.row("mount", vec![began.elapsed()]);
    let item = texts.item();
    let id = cube.add(&owner, vec![item], AddOptions::default())?[0].item.id;
    table.row("one memory erased, its bytes too", vec![timed(|| cube.erase(&owner, &[id], None))?]);
    Ok(())
}

fn searches(table: &Table, cube: &MountedCube, owner: &Actor, texts: &mut Texts) -> Outcome<()> {
    for (name, words) in
        [("frequent words", Words::Frequent), ("rare words", Words::Rare), ("mixed words and a name", Words::Named)]
    {
        let (mut searching, mut embedding) = (Vec::new(), Vec::new());
        for _ in 0..NUM_QUERIES {
            let request = SearchRequest::new(texts.question(words), NUM_RESULTS);
            let began = Instant::now();
            let answer: SearchAnswer = cube.search(owner, &request)?;
            searching.push(began.elapsed().saturating_sub(answer.embedding));
            embedding.push(answer.embedding);
        }
        table.row(&format!("search, {name}"), searching);
        if table.embedder != "none" {
            table.row(&format!("making a query's vector, {name}"), embedding);
        }
    }
    Ok(())
}

fn now() -> Timestamp {
    Clock::system().now()
}

fn timed<T, E>(run: impl FnOnce() -> Result<T, E>) -> Result<Duration, E> {
    let began = Instant::now();
    run().map(|_value| began.elapsed())
}

fn open(folder: &Path, embedder: Option<Arc<dyn Embedder>>) -> Outcome<Memories> {
    for name in ["cubes", "heads"] {
        std::fs::create_dir_all(folder.join(name))?;
    }
    Ok(Memories::new(MemoriesParts {
        folder: folder.join("cubes"),
        heads_folder: folder.join("heads"),
        clock: Clock::system(),
        policy: PolicyEngine::builtin(),
        audit_key: AuditKey::from_seed(&[7; 32]),
        quotas: QuotaBook::new(Quota::default(), std::collections::HashMap::new()),
        redactor: None,
        retention: RetentionRules::none(),
        embedder,
    }))
}

struct Table {
    size: usize,
    embedder: &'static str,
}

impl Table {
    fn row(&self, what: &str, mut times: Vec<Duration>) {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
        let p99 = if times.len() > 1 { format!("{:.3} ms", at(99)) } else { String::new() };
        println!("| {} | {} | {what} | {:.3} ms | {p99} |", self.size, self.embedder, at(50));
    }
}

/// SplitMix64 (Steele et al., 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[derive(Clone, Copy)]
enum Words {
    Frequent,
    Rare,
    Named,
}

/// Texts and questions, by seed.
struct Texts {
    random: Random,
    /// Sums of `1 / rank`, by rank.
    sums: Vec<f64>,
}

impl Texts {
    fn new() -> Self {
        let sums = (1..=NUM_WORDS).scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        });
        Self { random: Random(7), sums: sums.collect() }
    }

    fn item(&mut self) -> NewItem {
        let words: Vec<String> = (0..12).map(|_| self.zipf_word()).collect();
        let mut item = NewItem::fact(words.join(" "));
        if self.random.below(100) < 3 {
            let name = self.name();
            item.text = format!("{name} {}", item.text);
            item.entities = vec![name];
        }
        item
    }

    fn question(&mut self, words: Words) -> String {
        let mut words_of = |num: usize, from: usize, end: usize| -> Vec<String> {
            (0..num).map(|_| word(from + self.random.below(end - from))).collect()
        };
        match words {
            Words::Frequent => words_of(6, 0, FREQUENT).join(" "),
            Words::Rare => words_of(6, RARE, NUM_WORDS).join(" "),
            Words::Named => {
                let mixed = [words_of(3, 0, FREQUENT), words_of(2, RARE, NUM_WORDS)].concat().join(" ");
                format!("{mixed} {}", self.name())
            }
        }
    }

    fn zipf_word(&mut self) -> String {
        let draw = self.random.unit() * self.sums[NUM_WORDS - 1];
        word(self.sums.partition_point(|sum| *sum < draw))
    }

    fn name(&mut self) -> String {
        format!("Person{}", word(self.random.below(NUM_NAMES)))
    }
}

/// A made-up word of this rank.
fn word(mut rank: usize) -> String {
    const SYLLABLES: [&str; 16] =
        ["ba", "do", "fi", "gu", "ka", "lo", "mi", "nu", "pa", "ro", "si", "tu", "va", "wo", "zi", "ju"];
    let mut word = String::new();
    for _ in 0..4 {
        word.push_str(SYLLABLES[rank % 16]);
        rank /= 16;
    }
    word + "k"
}

/// Vectors without meaning, the same for the same text.
struct RandomVectors(EmbedderId);

impl RandomVectors {
    fn new() -> Outcome<Self> {
        Ok(Self(EmbedderId::new("random")?))
    }
}

impl Embedder for RandomVectors {
    fn id(&self) -> &EmbedderId {
        &self.0
    }

    fn dim(&self) -> usize {
        DIM
    }

    fn embed(&self, texts: &[&str], _purpose: Purpose) -> Result<Vec<Vec<f32>>, EmbedError> {
        let vector = |text: &&str| {
            let mut random =
                Random(text.bytes().fold(0, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)));
            (0..DIM).map(|_| (random.unit() + random.unit() - 1.0) as f32).collect()
        };
        Ok(texts.iter().map(vector).collect())
    }
}
