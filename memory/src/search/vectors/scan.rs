//! The scan over the coarse layer: one dot product of bytes per vector, on the widest SIMD that the CPU has.

use std::iter::Enumerate;
use std::num::NonZero;
use std::slice::ChunksMut;
use std::sync::{Mutex, PoisonError};
use std::thread;

use pulp::{Arch, Simd, WithSimd};

use super::mirror::{self, Layers, QuantisedQuery};

/// Layers below this size are scanned faster by one thread than a second one starts.
const PARALLEL_BYTES_MIN: usize = 8 << 20;
/// Most threads of one scan: the others of the machine serve the model.
const NUM_THREADS_MAX: usize = 2;

/// What is scanned, for which query.
#[derive(Clone, Copy)]
pub(super) struct Scan<'a> {
    /// `[num_slots]`
    pub layers: &'a [Layers],
    /// `[num_slots, stride]`
    pub coarse: &'a [i8],
    pub query: &'a QuantisedQuery,
}

impl Scan<'_> {
    /// The approximate cosine of every slot.
    pub fn scores(self) -> Vec<f32> {
        let num_threads = match self.coarse.len() {
            ..PARALLEL_BYTES_MIN => 1,
            _ => thread::available_parallelism().map_or(1, NonZero::get).min(NUM_THREADS_MAX),
        };
        self.scores_with_threads(num_threads)
    }

    /// As [`Self::scores`], with so many threads. A scan that gets no more from the system is only slower.
    pub fn scores_with_threads(self, num_threads: usize) -> Vec<f32> {
        let mut scores = vec![0.0; self.layers.len()];
        let part_len = scores.len().div_ceil(num_threads).max(1);
        let num_parts = scores.len().div_ceil(part_len);
        // Threads take parts as long as there are any, so a thread that could not be started leaves none undone.
        let parts = Mutex::new(scores.chunks_mut(part_len).enumerate());
        let work = || {
            while let Some((part, scores)) = next_part(&parts) {
                self.score_from(part * part_len, scores);
            }
        };
        thread::scope(|scope| {
            for _ in 1..num_parts {
                // An error is the answer of a system without threads to spare.
                let _ = thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
        scores
    }

    /// Scores of the slots from `start` on.
    fn score_from(self, start: usize, scores: &mut [f32]) {
        Arch::new().dispatch(ScoreSlots { scan: self, start, scores });
    }
}

/// The next of the parts that nobody scores yet.
fn next_part<'s>(parts: &Mutex<Enumerate<ChunksMut<'s, f32>>>) -> Option<(usize, &'s mut [f32])> {
    parts.lock().unwrap_or_else(PoisonError::into_inner).next()
}

struct ScoreSlots<'a, 's> {
    scan: Scan<'a>,
    start: usize,
    scores: &'s mut [f32],
}

impl WithSimd for ScoreSlots<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let levels = &self.scan.query.levels[..];
        let layers = &self.scan.layers[self.start..];
        let vectors = self.scan.coarse[self.start * levels.len()..].chunks_exact(levels.len());
        for ((score, layers), vector) in self.scores.iter_mut().zip(layers).zip(vectors) {
            *score = mirror::dot(vector, levels) as f32 * (layers.coarse_scale * self.scan.query.scale);
        }
    }
}
