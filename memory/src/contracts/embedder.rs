//! The contract of an embedder: one usable vector for each text, the same for the same text, whatever its neighbours are.

use super::require;
use crate::item::TEXT_BYTES_MAX;
use crate::memories::{Embedder, Purpose};
use crate::search::vectors::NUM_DIMENSIONS_MAX;

/// How much two vectors of one text may differ, as the length of the difference of unit vectors: a service on a GPU does
/// not add in the same order twice.
const TOLERANCE: f64 = 1e-3;

/// Checks an embedder. Some twenty texts are embedded.
///
/// # Errors
/// The first rule that does not hold.
pub fn check_embedder(embedder: &dyn Embedder) -> Result<(), String> {
    let dim = embedder.dim();
    require((1..=NUM_DIMENSIONS_MAX).contains(&dim), || {
        format!("a vector has 1 to {NUM_DIMENSIONS_MAX} numbers, but dim() is {dim}")
    })?;
    let nothing = embed(embedder, &[], Purpose::Passage)?;
    require(nothing.is_empty(), || format!("no text gives no vector, but there are {}", nothing.len()))?;
    for purpose in [Purpose::Query, Purpose::Passage] {
        check_vectors(embedder, purpose)?;
    }
    require(embedder.dim() == dim, || format!("dim() stays the same, but it became {}", embedder.dim()))
}

fn check_vectors(embedder: &dyn Embedder, purpose: Purpose) -> Result<(), String> {
    let texts = ["Anna lives in Oslo.", "The lab code is 4417.", "Zażółć gęślą jaźń 🍵 東京", "a"];
    let together = embed(embedder, &texts, purpose)?;
    for (text, vector) in texts.iter().zip(&together) {
        let alone = embed(embedder, &[text], purpose)?;
        require(distance(vector, &alone[0]) < TOLERANCE, || {
            format!("a text has one vector, but that of {text:?} depends on the texts beside it")
        })?;
        let again = embed(embedder, &[text], purpose)?;
        require(distance(&alone[0], &again[0]) < TOLERANCE, || {
            format!("a text has one vector, but {text:?} got another one the second time")
        })?;
    }
    let reversed: Vec<&str> = texts.iter().rev().copied().collect();
    let reversed = embed(embedder, &reversed, purpose)?;
    for ((text, vector), other) in texts.iter().zip(&together).zip(reversed.iter().rev()) {
        require(distance(vector, other) < TOLERANCE, || {
            format!("vectors come in the order of their texts, but that of {text:?} does not")
        })?;
    }
    require(distance(&together[0], &together[1]) >= TOLERANCE, || {
        format!("{:?} and {:?} say different things, but have one vector", texts[0], texts[1])
    })?;
    // A memory may be this long, and odd; it must still be storable, cut where the model wants it cut.
    let long = "A long text. ".repeat(TEXT_BYTES_MAX / 13);
    embed(embedder, &[&long, "\t \n", "\u{200b}\u{301}"], purpose).map(|_vectors| ())
}

/// The vectors, each checked by itself.
fn embed(embedder: &dyn Embedder, texts: &[&str], purpose: Purpose) -> Result<Vec<Vec<f32>>, String> {
    let shown: Vec<String> = texts.iter().map(|text| text.chars().take(30).collect()).collect();
    let vectors = embedder
        .embed(texts, purpose)
        .map_err(|error| format!("every text gets a vector, but {shown:?} as {purpose:?} failed: {error}"))?;
    require(vectors.len() == texts.len(), || {
        format!("each text gets a vector, but {} texts got {}", texts.len(), vectors.len())
    })?;
    for (vector, text) in vectors.iter().zip(&shown) {
        require(vector.len() == embedder.dim(), || {
            format!("a vector has dim() = {} numbers, but that of {text:?} has {}", embedder.dim(), vector.len())
        })?;
        require(vector.iter().all(|value| value.is_finite()), || {
            format!("a vector holds numbers, but that of {text:?} holds an infinity or NaN")
        })?;
        let length = length(vector);
        require(length.is_normal(), || {
            format!("a vector has a direction, but that of {text:?} has the length {length}")
        })?;
    }
    Ok(vectors)
}

fn length(vector: &[f32]) -> f64 {
    vector.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

/// Between the directions of two vectors.
fn distance(one: &[f32], two: &[f32]) -> f64 {
    let (first, second) = (length(one), length(two));
    let difference = |(&one, &two): (&f32, &f32)| f64::from(one) / first - f64::from(two) / second;
    one.iter().zip(two).map(|pair| difference(pair).powi(2)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memories::EmbedError;
    use crate::search::vectors::EmbedderId;

    /// Counts bytes by their value modulo 8, unless it is told to break a rule.
    struct Counting {
        id: EmbedderId,
        broken: &'static str,
    }

    impl Embedder for Counting {
        fn id(&self) -> &EmbedderId {
            &self.id
        }

        fn dim(&self) -> usize {
            8
        }

        fn embed(&self, texts: &[&str], _purpose: Purpose) -> Result<Vec<Vec<f32>>, EmbedError> {
            let vector = |text: &&str| {
                let mut counts = vec![0.0; if self.broken == "dim" { 7 } else { 8 }];
                let len = counts.len();
                text.bytes().for_each(|byte| counts[usize::from(byte) % len] += 1.0);
                counts
            };
            let mut vectors: Vec<Vec<f32>> = texts.iter().map(vector).collect();
            match self.broken {
                "nan" => vectors.iter_mut().for_each(|vector| vector[0] = f32::NAN),
                "zero" => vectors.iter_mut().for_each(|vector| vector.fill(0.0)),
                "constant" => vectors.iter_mut().for_each(|vector| vector.fill(1.0)),
                "order" => vectors.reverse(),
                "neighbours" if texts.len() > 1 => vectors[0][0] += 9.0,
                "missing" => drop(vectors.pop()),
                "long" if texts.iter().any(|text| text.len() > 1000) => return Err(EmbedError("too long".to_owned())),
                _ => {}
            }
            Ok(vectors)
        }
    }

    #[test]
    fn each_broken_rule_is_found_and_a_sound_embedder_passes() {
        let check = |broken| {
            let id = EmbedderId::new("counting").expect("a name");
            check_embedder(&Counting { id, broken })
        };
        assert_eq!(check(""), Ok(()));
        for broken in ["dim", "nan", "zero", "constant", "order", "neighbours", "missing", "long"] {
            assert!(check(broken).is_err(), "{broken} is found");
        }
    }
}
