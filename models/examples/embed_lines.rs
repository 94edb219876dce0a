//! Embeds the lines of standard input: `cargo run --release -p models --example embed_lines -- FOLDER [query] < lines`.
//!
//! Each line is a text as a JSON string, each line of output its vector as a JSON list; the rate goes to standard error.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Instant;

use models::ModelSource;
use models::embedder::{BertEmbedder, EmbedderOptions, Purpose};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("expected a folder")?);
    let purpose = match arguments.next().as_deref() {
        Some("query") => Purpose::Query,
        None | Some("passage") => Purpose::Passage,
        Some(other) => return Err(format!("{other:?} is neither query nor passage").into()),
    };
    let start = Instant::now();
    let embedder = BertEmbedder::load(&ModelSource::Folder(folder), EmbedderOptions::default())?;
    eprintln!("{}: {} numbers, loaded in {:?}", embedder.id(), embedder.dim(), start.elapsed());

    let mut texts: Vec<String> = Vec::new();
    for line in std::io::stdin().lock().lines() {
        texts.push(serde_json::from_str(&line?)?);
    }
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let start = Instant::now();
    let vectors = embedder.embed(&texts, purpose)?;
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("{} texts in {seconds:.3} s, {:.0} texts/s", texts.len(), texts.len() as f64 / seconds);

    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for vector in vectors {
        writeln!(out, "{}", serde_json::to_string(&vector)?)?;
    }
    Ok(out.flush()?)
}
