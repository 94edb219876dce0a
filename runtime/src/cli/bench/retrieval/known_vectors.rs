//! An embedder that remembers: documents from run to run in a file, queries within one run.
//!
//! ```text
//! memos-vectors 1 <embedder id> <dim>\n
//! BLAKE3 of a text [32 bytes], its vector [dim little-endian f32], again and again
//! ```

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail};
use memory::memories::{EmbedError, Embedder, Purpose};
use memory::search::vectors::EmbedderId;

const HASH_LEN: usize = 32;

type TextHash = [u8; HASH_LEN];

/// See the module's description.
pub(super) struct KnownVectors {
    inner: Arc<dyn Embedder>,
    file: Option<PathBuf>,
    passages: Mutex<HashMap<TextHash, Vec<f32>>>,
    queries: Mutex<HashMap<TextHash, Vec<f32>>>,
}

impl KnownVectors {
    /// Around an embedder, with what the file holds if it is there.
    ///
    /// # Errors
    /// The file cannot be read, is broken, or holds the vectors of another embedder.
    pub(super) fn open(inner: Arc<dyn Embedder>, file: Option<PathBuf>) -> anyhow::Result<Self> {
        let passages = match &file {
            Some(path) if path.exists() => {
                let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
                read(&bytes, &header(&*inner), inner.dim()).with_context(|| path.display().to_string())?
            }
            _ => HashMap::new(),
        };
        Ok(Self { inner, file, passages: Mutex::new(passages), queries: Mutex::default() })
    }

    /// Writes the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn save(&self) -> anyhow::Result<()> {
        let Some(path) = &self.file else { return Ok(()) };
        let mut bytes = header(&*self.inner).into_bytes();
        for (hash, vector) in locked(&self.passages).iter() {
            bytes.extend_from_slice(hash);
            bytes.extend(vector.iter().flat_map(|value| value.to_le_bytes()));
        }
        fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Embedder for KnownVectors {
    fn id(&self) -> &EmbedderId {
        self.inner.id()
    }

    fn dim(&self) -> usize {
        self.inner.dim()
    }

    fn embed(&self, texts: &[&str], purpose: Purpose) -> Result<Vec<Vec<f32>>, EmbedError> {
        let mut known = locked(match purpose {
            Purpose::Query => &self.queries,
            Purpose::Passage => &self.passages,
        });
        let hash = |text: &str| *blake3::hash(text.as_bytes()).as_bytes();
        let new: Vec<&str> = texts.iter().copied().filter(|text| !known.contains_key(&hash(text))).collect();
        let vectors = if new.is_empty() { Vec::new() } else { self.inner.embed(&new, purpose)? };
        known.extend(new.iter().map(|text| hash(text)).zip(vectors));
        let vector = |text: &&str| known.get(&hash(text)).cloned();
        let missing = || EmbedError("the embedder left a text out".to_owned());
        texts.iter().map(|text| vector(text).ok_or_else(missing)).collect()
    }
}

fn header(embedder: &dyn Embedder) -> String {
    format!("memos-vectors 1 {} {}\n", embedder.id(), embedder.dim())
}

fn read(bytes: &[u8], header: &str, dim: usize) -> anyhow::Result<HashMap<TextHash, Vec<f32>>> {
    let Some(records) = bytes.strip_prefix(header.as_bytes()) else {
        bail!("it does not begin with {:?}: it holds other vectors, or none", header.trim_end());
    };
    let record_len = HASH_LEN + dim * size_of::<f32>();
    if records.len() % record_len != 0 {
        bail!("it ends inside a record of {record_len} bytes");
    }
    let record = |record: &[u8]| {
        let (hash, numbers) = record.split_first_chunk::<HASH_LEN>()?;
        let (numbers, _rest) = numbers.as_chunks::<4>();
        Some((*hash, numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()))
    };
    Ok(records.chunks_exact(record_len).filter_map(record).collect())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Counting(EmbedderId, AtomicUsize);

    impl Embedder for Counting {
        fn id(&self) -> &EmbedderId {
            &self.0
        }

        fn dim(&self) -> usize {
            2
        }

        fn embed(&self, texts: &[&str], _purpose: Purpose) -> Result<Vec<Vec<f32>>, EmbedError> {
            self.1.fetch_add(texts.len(), Ordering::Relaxed);
            Ok(texts.iter().map(|text| vec![text.len() as f32, 1.0]).collect())
        }
    }

    fn counting(id: &str) -> Arc<Counting> {
        Arc::new(Counting(EmbedderId::new(id).expect("a name"), AtomicUsize::new(0)))
    }

    #[test]
    fn a_text_is_embedded_once_and_known_in_the_next_run() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join("vectors");
        let inner = counting("one");
        let known = KnownVectors::open(inner.clone(), Some(file.clone())).expect("opened");
        let expected = vec![vec![1.0, 1.0], vec![2.0, 1.0], vec![1.0, 1.0]];
        assert_eq!(known.embed(&["a", "bb", "a"], Purpose::Passage).expect("vectors"), expected);
        known.embed(&["bb"], Purpose::Passage).expect("vectors");
        known.save().expect("saved");
        let asked = inner.1.load(Ordering::Relaxed);
        let known = KnownVectors::open(inner.clone(), Some(file.clone())).expect("opened again");
        assert_eq!(known.embed(&["a", "bb", "a"], Purpose::Passage).expect("vectors"), expected);
        assert_eq!(inner.1.load(Ordering::Relaxed), asked);
        assert!(KnownVectors::open(counting("two"), Some(file.clone())).is_err());
        let mut bytes = fs::read(&file).expect("read");
        bytes.pop();
        fs::write(&file, bytes).expect("written");
        assert!(KnownVectors::open(inner, Some(file)).is_err());
    }
}
