//! An embedder of one's own: `cargo run -p memory --example embedder`.
//!
//! It counts the three-letter pieces of a text in 256 bins: enough to find misspelled words, without any model. Whatever makes
//! vectors of texts can stand in its place, be it a model or a service.

use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};

use memory::contracts::check_embedder;
use memory::memories::{EmbedError, Embedder, Purpose};
use memory::search::vectors::EmbedderId;

const NUM_BINS: usize = 256;

struct Trigrams {
    id: EmbedderId,
}

impl Trigrams {
    fn new() -> Result<Self, Box<dyn Error>> {
        // The id names the space: whatever changes the vectors must change the id, so that old ones are made anew.
        Ok(Self { id: EmbedderId::new("trigrams-256-v1")? })
    }

    fn vector(text: &str) -> Vec<f32> {
        // Marks at both ends, so that the shortest text has a piece as well.
        let letters: Vec<char> = format!("^{}$", text.to_lowercase()).chars().collect();
        let mut bins = vec![0.0; NUM_BINS];
        for piece in letters.windows(3.min(letters.len())) {
            let mut hasher = DefaultHasher::new();
            piece.hash(&mut hasher);
            bins[hasher.finish() as usize % NUM_BINS] += 1.0;
        }
        bins
    }
}

impl Embedder for Trigrams {
    fn id(&self) -> &EmbedderId {
        &self.id
    }

    fn dim(&self) -> usize {
        NUM_BINS
    }

    fn embed(&self, texts: &[&str], _purpose: Purpose) -> Result<Vec<Vec<f32>>, EmbedError> {
        Ok(texts.iter().map(|text| Self::vector(text)).collect())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let embedder = Trigrams::new()?;
    check_embedder(&embedder)?;
    let vectors = embedder.embed(&["Zorvan lives in Oslo", "Zorvann livs in Oslo", "Tea is hot"], Purpose::Passage)?;
    let cosine = |one: &[f32], two: &[f32]| {
        let dot = |one: &[f32], two: &[f32]| one.iter().zip(two).map(|(one, two)| one * two).sum::<f32>();
        dot(one, two) / (dot(one, one) * dot(two, two)).sqrt()
    };
    println!("misspelled: {:.2}", cosine(&vectors[0], &vectors[1]));
    println!("unrelated:  {:.2}", cosine(&vectors[0], &vectors[2]));
    println!("{} keeps the contract of an embedder", embedder.id());
    Ok(())
}
