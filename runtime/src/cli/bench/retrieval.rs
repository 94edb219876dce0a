//! `memos bench retrieval`: how well and how fast memories are found, on a labelled collection such as those of BEIR.

mod collection;
mod known_vectors;
mod quality;

use std::collections::HashMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use memory::ItemId;
use memory::governance::{Actor, Identity, Role};
use memory::item::{ItemKind, NewItem};
use memory::memories::{AddOptions, Duplicates, Embedder, Memories, Methods, MountedCube, SearchRequest};
use memory::search::fusion::{Floor, Fusion, Weights};
use serde_json::{Value, json};
use tempfile::TempDir;

use self::collection::{Collection, Query};
use self::known_vectors::KnownVectors;
use self::quality::{Judged, Quality};
use super::output::deliver;
use super::progress::Progress;
use super::statistics::{Distribution, milliseconds};
use crate::cli::download_line::DownloadLine;
use crate::cli::table::Table;
use crate::data_dir::DataDir;
use crate::embedder::EmbedderChoice;
use crate::environment::Environment;
use crate::memories::{self, MemoryOptions};

/// Documents that are added in one transaction.
const NUM_PER_BATCH: usize = 32;
/// Results that a person or a prompt takes.
const SHALLOW: usize = 10;
/// Results that a second stage would take.
const DEEP: usize = 100;

/// Arguments of `memos bench retrieval`.
#[derive(Debug, Clone, Args)]
pub struct RetrievalArgs {
    /// Folder with corpus.jsonl, queries.jsonl, and the judgements in their field `relevant` or in qrels/SPLIT.tsv
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Which queries are measured
    #[arg(long, default_value = "validation", value_name = "NAME")]
    split: String,
    /// Queries on which ways of fusing are compared, never those that are measured; by default they are not compared
    #[arg(long, value_name = "NAME")]
    tune: Option<String>,
    /// What makes vectors: as for `memos serve`. Without it only words are measured
    #[arg(long, default_value = "none", value_name = "FOLDER|ID|URL#MODEL")]
    embedder: EmbedderChoice,
    /// File in which the vectors of the documents are kept from run to run
    #[arg(long, value_name = "FILE")]
    vectors: Option<PathBuf>,
    /// Also write the result as JSON to this file; - writes it to standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A way of finding.
#[derive(Debug, Clone, Copy)]
struct Way {
    name: &'static str,
    methods: Methods,
    fusion: Fusion,
}

impl Way {
    fn lexical() -> Self {
        let methods = Methods { lexical: true, vector: false, graph: false };
        Self { name: "lexical", methods, fusion: Fusion::default() }
    }

    fn vector() -> Self {
        let methods = Methods { lexical: false, vector: true, graph: false };
        Self { name: "vector", methods, fusion: Fusion::default() }
    }

    fn fused(name: &'static str, fusion: Fusion) -> Self {
        Self { name, methods: Methods { lexical: true, vector: true, graph: true }, fusion }
    }
}

/// Ranks alone, with k as in the paper.
fn reciprocal_rank() -> Fusion {
    Fusion::ReciprocalRank { k: 60.0, weights: Weights::default() }
}

/// A cube that holds the collection, in a folder that goes with it.
struct Bench {
    cube: Arc<MountedCube>,
    actor: Actor,
    documents: HashMap<ItemId, String>,
    // In this order: the files go last.
    _memories: Memories,
    _data_dir: DataDir,
    _folder: TempDir,
}

/// Figures of one way.
struct Row {
    way: Way,
    quality: Quality,
    searching: Distribution,
    embedding: Option<Distribution>,
}

/// Runs the benchmark. Blocks: not to be called from an async task.
///
/// # Errors
/// The collection or the embedder cannot be used, or a search fails.
pub fn run(args: &RetrievalArgs, environment: &Environment) -> anyhow::Result<()> {
    let collection = Collection::read(&args.data)?;
    let queries = collection.queries(&args.split)?;
    let tuning = args.tune.as_deref().map(|split| collection.queries(split)).transpose()?;
    if args.tune.as_ref() == Some(&args.split) {
        bail!(
            "--tune {} are the queries that are measured: figures of what was chosen on them would mean little",
            args.split
        );
    }
    let embedder = args.embedder.open(environment, &mut DownloadLine::default())?;
    let embedder = embedder.map(|inner| KnownVectors::open(inner, args.vectors.clone())).transpose()?.map(Arc::new);
    let bench = Bench::fill(&collection, embedder.clone().map(|known| known as Arc<dyn Embedder>))?;
    if let Some(known) = &embedder {
        known.save()?;
    }
    let mut ways = vec![Way::lexical()];
    let mut tuned = Vec::new();
    if embedder.is_some() {
        ways.push(Way::vector());
        ways.push(Way::fused("fused, by rank", reciprocal_rank()));
        ways.push(Way::fused("fused, default", Fusion::default()));
        if let Some(tuning) = &tuning {
            tuned = bench.tune(tuning)?;
            ways.extend(tuned.first().map(|(fusion, _ndcg)| Way::fused("fused, as tuned", *fusion)));
        }
    }
    let rows = ways.into_iter().map(|way| bench.measure(way, &queries)).collect::<anyhow::Result<Vec<Row>>>()?;
    let text = report(&collection, &args.split, queries.len(), &rows, &tuned);
    deliver(&text, &report_json(&collection, &args.split, queries.len(), &rows, &tuned), args.json.as_deref())
}

impl Bench {
    fn fill(collection: &Collection, embedder: Option<Arc<dyn Embedder>>) -> anyhow::Result<Self> {
        let folder = TempDir::new().context("cannot make a temporary folder")?;
        let data_dir = DataDir::open(folder.path())?;
        // Nothing is blacked out: numbers in abstracts are no secrets, and the figures are to be comparable.
        let options = MemoryOptions { redact: Vec::new(), embedder, ..MemoryOptions::default() };
        let memories = memories::open(&data_dir, options)?;
        let actor = Actor::of_tenant(Identity { tenant: "bench".parse()?, role: Role::Admin });
        let cube = memories.create(&actor, "bench".parse()?)?;
        let progress = Progress::new("documents", collection.documents.len().div_ceil(NUM_PER_BATCH));
        let options = AddOptions { duplicates: Duplicates::Keep, ..AddOptions::default() };
        let mut documents = HashMap::new();
        for batch in collection.documents.chunks(NUM_PER_BATCH) {
            let item = |text: &str| NewItem { kind: ItemKind::Document, ..NewItem::fact(text) };
            let items = batch.iter().map(|document| item(&document.text)).collect();
            let added = cube.add(&actor, items, options)?;
            documents
                .extend(added.into_iter().zip(batch).map(|(added, document)| (added.item.id, document.id.clone())));
            progress.advance();
        }
        Ok(Self { cube, actor, documents, _memories: memories, _data_dir: data_dir, _folder: folder })
    }

    /// The documents that a query finds, best first, and the times of embedding and searching in ms.
    fn find(&self, way: Way, query: &Query, limit: usize) -> anyhow::Result<(Vec<&str>, f64, f64)> {
        let request =
            SearchRequest { methods: way.methods, fusion: way.fusion, ..SearchRequest::new(&query.text, limit) };
        let answer = self.cube.search(&self.actor, &request)?;
        let found = answer.results.iter().filter_map(|found| self.documents.get(&found.item.id).map(String::as_str));
        Ok((found.collect(), milliseconds(answer.embedding), milliseconds(answer.searching)))
    }

    fn measure(&self, way: Way, queries: &[&Query]) -> anyhow::Result<Row> {
        let (mut judged, mut searching, mut embedding) = (Judged::default(), Vec::new(), Vec::new());
        for query in queries {
            let (shallow, embedding_ms, searching_ms) = self.find(way, query, SHALLOW)?;
            let (deep, ..) = self.find(way, query, DEEP)?;
            judged.add(&query.relevant, &shallow, &deep);
            searching.push(searching_ms);
            embedding.push(embedding_ms);
        }
        // Only the first way that needs a query's vector makes it; the others know it.
        let embedding = if way.name == Way::vector().name { Distribution::of(embedding) } else { None };
        let searching = Distribution::of(searching).context("there is no query to measure")?;
        Ok(Row { way, quality: judged.quality(), searching, embedding })
    }

    /// Ways of fusing with their nDCG@10 on these queries, the best first.
    fn tune(&self, queries: &[&Query]) -> anyhow::Result<Vec<(Fusion, f64)>> {
        let grid = grid();
        let progress = Progress::new("ways of fusing", grid.len());
        let mut tried = Vec::new();
        for fusion in grid {
            let mut judged = Judged::default();
            for query in queries {
                let (shallow, ..) = self.find(Way::fused("", fusion), query, SHALLOW)?;
                judged.add(&query.relevant, &shallow, &[]);
            }
            tried.push((fusion, judged.quality().ndcg_shallow));
            progress.advance();
        }
        tried.sort_by(|one, two| two.1.total_cmp(&one.1));
        Ok(tried)
    }
}

/// What is compared: both methods, over the weight of the vectors.
fn grid() -> Vec<Fusion> {
    let weights = |vector: f32| Weights { lexical: 1.0 - vector, vector, graph: 0.25 };
    let by_score = |floor| {
        let shares = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8].into_iter();
        shares.map(move |vector| Fusion::ConvexCombination { weights: weights(vector), floor })
    };
    let by_rank = |k| {
        let shares = [0.3, 0.4, 0.5, 0.6, 0.7].into_iter();
        shares.map(move |vector| Fusion::ReciprocalRank { k, weights: weights(vector) })
    };
    let by_score = [Floor::Least, Floor::Possible].into_iter().flat_map(by_score);
    by_score.chain([5.0, 20.0, 60.0].into_iter().flat_map(by_rank)).collect()
}

fn report(collection: &Collection, split: &str, num_queries: usize, rows: &[Row], tuned: &[(Fusion, f64)]) -> String {
    let mut text = format!("{} documents, {num_queries} queries ({split})\n\n", collection.documents.len());
    let mut table = Table::new(&["", "recall@10", "recall@100", "nDCG@10", "p50 ms", "p99 ms"]);
    for Row { way, quality, searching, .. } in rows {
        let share = |value: f64| format!("{value:.4}");
        let (p50, p99) = (format!("{:.2}", searching.p50), format!("{:.2}", searching.p99));
        let qualities = [quality.recall_shallow, quality.recall_deep, quality.ndcg_shallow].map(share);
        table.push([way.name.to_owned()].into_iter().chain(qualities).chain([p50, p99]).collect());
    }
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{table}\nTimes are of searches for {SHALLOW} results, without embedding the query.");
    for row in rows {
        if let Some(embedding) = &row.embedding {
            let _ = writeln!(text, "Embedding a query: p50 {:.2} ms, p99 {:.2} ms.", embedding.p50, embedding.p99);
        }
    }
    if !tuned.is_empty() {
        let mut table = Table::new(&["tried on the tuning queries, best first", "nDCG@10"]);
        for (fusion, ndcg) in tuned {
            table.push(vec![describe(fusion), format!("{ndcg:.4}")]);
        }
        let _ = write!(text, "\n{table}");
    }
    text
}

fn describe(fusion: &Fusion) -> String {
    match fusion {
        Fusion::ReciprocalRank { k, weights } => format!("by rank, k {k}, vectors {:.1}", weights.vector),
        Fusion::ConvexCombination { weights, floor } => {
            format!("by score, floor {floor:?}, vectors {:.1}", weights.vector)
        }
    }
}

fn report_json(
    collection: &Collection,
    split: &str,
    num_queries: usize,
    rows: &[Row],
    tuned: &[(Fusion, f64)],
) -> Value {
    let row = |row: &Row| {
        json!({
            "name": row.way.name,
            "fusion": row.way.fusion,
            "recall_at_10": row.quality.recall_shallow,
            "recall_at_100": row.quality.recall_deep,
            "ndcg_at_10": row.quality.ndcg_shallow,
            "searching_ms": row.searching,
            "embedding_ms": row.embedding,
        })
    };
    let tried = |(fusion, ndcg): &(Fusion, f64)| json!({ "fusion": fusion, "ndcg_at_10": ndcg });
    json!({
        "num_documents": collection.documents.len(),
        "split": split,
        "num_queries": num_queries,
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
        "tried": tuned.iter().map(tried).collect::<Vec<_>>(),
    })
}
