//! The vector index against comparing every original, on random, clustered and equal vectors, and what it refuses.

use std::collections::BTreeMap;

use super::*;
use crate::search::random::Random;

fn embedder() -> EmbedderId {
    EmbedderId::new("test-embedder").expect("a short name")
}

/// Vectors as they would lie in the store.
struct Originals {
    vectors: BTreeMap<Row, Vec<f32>>,
    dim: usize,
}

impl Originals {
    fn new(dim: usize) -> Self {
        Self { vectors: BTreeMap::new(), dim }
    }

    fn index(&self) -> VectorIndex {
        let mut index = VectorIndex::new(embedder(), self.dim).expect("valid");
        for (row, values) in &self.vectors {
            index.insert(*row, Embedding { embedder: &embedder(), values }).expect("valid");
        }
        index
    }

    fn nearest(&self, query: &[f32], limit: usize, filter: impl Fn(Row) -> bool) -> Vec<Hit> {
        let unit = mirror::unit(query).expect("a direction");
        let score = |values: &[f32]| mirror::cosine(&unit, values).expect("a direction");
        let passing = self.vectors.iter().filter(|(row, _)| filter(**row));
        let mut hits: Vec<Hit> = passing.map(|(row, values)| Hit { row: *row, score: score(values) }).collect();
        hits.sort_by(|left, right| right.score.total_cmp(&left.score).then(left.row.cmp(&right.row)));
        hits.truncate(limit);
        hits
    }

    fn get(&self, row: Row) -> Option<Vec<f32>> {
        self.vectors.get(&row).cloned()
    }

    fn check(&self, index: &VectorIndex, query: &[f32], limit: usize, filter: impl Fn(Row) -> bool) {
        let embedder = embedder();
        let embedding = Embedding { embedder: &embedder, values: query };
        let expected = self.nearest(query, limit, &filter);
        let exact = index.search_exact(embedding, limit, &filter, |row| self.get(row)).expect("valid");
        assert_eq!(exact, expected, "dim {} limit {limit}", self.dim);
        let near = index.search(embedding, limit, &filter).expect("valid");
        assert_eq!(near.len(), expected.len());
        for (near, exact) in near.iter().zip(&expected) {
            assert!((near.score - exact.score).abs() < 2e-4, "{near:?} {exact:?}");
            let its_own = self.nearest(query, 1, |row| row == near.row)[0].score;
            assert!((near.score - its_own).abs() < 2e-4, "{near:?} {its_own}");
        }
    }
}

fn random_vector(random: &mut Random, dim: usize) -> Vec<f32> {
    (0..dim).map(|_| random.normal()).collect()
}

/// Near a centre; the smaller the spread, the more vectors are candidates.
fn near(random: &mut Random, centre: &[f32], spread: f32) -> Vec<f32> {
    centre.iter().map(|value| value + spread * random.normal()).collect()
}

#[test]
fn exact_search_finds_the_true_best_on_random_clustered_and_equal_vectors() {
    for (dim, seed) in [(1, 1), (3, 2), (32, 3), (33, 4), (100, 5), (384, 6)] {
        println!("seed {seed}");
        let mut random = Random(seed);
        let mut originals = Originals::new(dim);
        let centres: Vec<Vec<f32>> = (0..4).map(|_| random_vector(&mut random, dim)).collect();
        for row in 0..1200 {
            let centre = &centres[random.below(4)];
            let values = match row % 4 {
                0 => random_vector(&mut random, dim),
                1 => near(&mut random, centre, 0.1),
                2 => near(&mut random, centre, 1e-3),
                // Equal vectors of other lengths: rows must decide.
                _ => centre.iter().map(|value| value * (1 << random.below(3)) as f32).collect(),
            };
            originals.vectors.insert(Row(row * 7), values);
        }
        let index = originals.index();
        for limit in [0, 1, 10, 2000] {
            originals.check(&index, &random_vector(&mut random, dim), limit, |_| true);
            originals.check(&index, &near(&mut random, &centres[0], 0.01), limit, |_| true);
            originals.check(&index, &centres[1], limit, |row| row.0.is_multiple_of(3));
            originals.check(&index, &centres[2], limit, |_| false);
        }
    }
}

#[test]
fn extreme_values_keep_their_direction() {
    let mut originals = Originals::new(3);
    for (row, values) in
        [[f32::MAX, f32::MAX, -f32::MAX], [f32::MIN_POSITIVE / 4.0, 0.0, 0.0], [1.0, 1e-30, 0.0], [-0.0, 0.0, 1e38]]
            .into_iter()
            .enumerate()
    {
        originals.vectors.insert(Row(row as u32), values.to_vec());
    }
    let index = originals.index();
    for query in [[1.0, 0.0, 0.0], [f32::MAX, f32::MIN, 1.0], [1e-40, 1e-40, 1e-40]] {
        originals.check(&index, &query, 4, |_| true);
    }
}

#[test]
fn the_mirror_follows_inserts_replacements_and_removals() {
    for seed in 20..24 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let mut originals = Originals::new(40);
        let mut index = originals.index();
        for step in 0..600 {
            let row = Row(random.below(60) as u32);
            if random.below(3) == 0 {
                assert_eq!(index.remove(row), originals.vectors.remove(&row).is_some());
            } else {
                let values = random_vector(&mut random, 40);
                index.insert(row, Embedding { embedder: &embedder(), values: &values }).expect("valid");
                originals.vectors.insert(row, values);
            }
            assert_eq!(index.len(), originals.vectors.len());
            assert_eq!(index.contains(row), originals.vectors.contains_key(&row));
            if step % 20 == 0 {
                originals.check(&index, &random_vector(&mut random, 40), 10, |_| true);
            }
        }
        for row in 0..60 {
            index.remove(Row(row));
        }
        assert!(index.is_empty() && index.coarse.is_empty() && index.fine.is_empty() && index.layers.is_empty());
    }
}

#[test]
fn error_bounds_hold() {
    let mut random = Random(9);
    for dim in [1, 5, 64, 384, 1024, NUM_DIMENSIONS_MAX] {
        let query = mirror::unit(&random_vector(&mut random, dim)).expect("a direction");
        let quantised = QuantisedQuery::new(&query);
        let mut index = VectorIndex::new(embedder(), dim).expect("valid");
        let mut originals = Vec::new();
        for row in 0..20 {
            // Some vectors with one great element: the worst case for one scale per vector.
            let mut values = random_vector(&mut random, dim);
            if row % 3 == 0 {
                values[random.below(dim)] = 50.0;
            }
            index.insert(Row(row), Embedding { embedder: &embedder(), values: &values }).expect("valid");
            originals.push(values);
        }
        let coarse = scan::scores(&index.layers, &index.coarse, &quantised);
        for (slot, values) in originals.iter().enumerate() {
            let exact = mirror::cosine(&query, values).expect("a direction");
            let coarse_error = quantised.error_with(index.layers[slot].coarse_error);
            assert!((coarse[slot] - exact).abs() <= coarse_error, "dim {dim}");
            let refined = index.refine(&quantised, slot);
            assert!((refined.score - exact).abs() <= refined.error, "dim {dim}");
            let error_max = if dim <= 1024 { 4e-4 } else { 2e-3 };
            assert!(refined.error < error_max, "dim {dim}: {}", refined.error);
        }
    }
}

#[test]
fn what_is_no_vector_of_this_space_is_refused_and_changes_nothing() {
    let mut index = VectorIndex::new(embedder(), 3).expect("valid");
    let own = embedder();
    index.insert(Row(1), Embedding { embedder: &own, values: &[1.0, 0.0, 0.0] }).expect("valid");
    let other = EmbedderId::new("another").expect("a short name");
    let cases: [(&EmbedderId, &[f32]); 6] = [
        (&own, &[1.0, 0.0]),
        (&own, &[0.0, -0.0, 0.0]),
        (&own, &[0.0, f32::NAN, 0.0]),
        (&own, &[0.0, f32::INFINITY, 0.0]),
        (&own, &[]),
        (&other, &[1.0, 0.0, 0.0]),
    ];
    let mut messages = Vec::new();
    for (embedder, values) in cases {
        let embedding = Embedding { embedder, values };
        let refused = index.insert(Row(1), embedding).expect_err("not of this space");
        assert_eq!(index.search(embedding, 1, |_| true).map_err(|error| error.to_string()), Err(refused.to_string()));
        messages.push(refused.to_string());
        let kept = index.search(Embedding { embedder: &own, values: &[2.0, 0.0, 0.0] }, 9, |_| true).expect("valid");
        assert!(kept.len() == 1 && (kept[0].score - 1.0).abs() < 1e-4);
    }
    assert!(messages[2].contains("element 1 is NaN") && messages[5].contains("another"), "{messages:?}");
    for dim in [0, NUM_DIMENSIONS_MAX + 1] {
        assert!(matches!(VectorIndex::new(embedder(), dim), Err(SearchError::InvalidDimension { .. })));
    }
    for name in [String::new(), "x".repeat(EMBEDDER_ID_BYTES_MAX + 1)] {
        assert!(matches!(EmbedderId::new(name), Err(SearchError::InvalidEmbedderId { .. })));
    }
}

#[test]
fn a_row_without_its_original_keeps_its_place() {
    let mut random = Random(30);
    let mut originals = Originals::new(64);
    for row in 0..50 {
        originals.vectors.insert(Row(row), random_vector(&mut random, 64));
    }
    let index = originals.index();
    let query = random_vector(&mut random, 64);
    let own = embedder();
    let embedding = Embedding { embedder: &own, values: &query };
    let expected = originals.nearest(&query, 10, |_| true);
    let found = index.search_exact(embedding, 10, |_| true, |row| originals.get(row).filter(|_| row.0 % 2 == 0));
    for (found, expected) in found.expect("valid").iter().zip(&expected) {
        assert!((found.score - expected.score).abs() < 2e-4);
    }
}

#[test]
fn similarity_of_two_rows_is_their_cosine() {
    let mut random = Random(40);
    let mut originals = Originals::new(50);
    for row in 0..30 {
        originals.vectors.insert(Row(row), random_vector(&mut random, 50));
    }
    let index = originals.index();
    for left in 0..30 {
        let unit = mirror::unit(&originals.vectors[&Row(left)]).expect("a direction");
        for right in 0..30 {
            let exact = mirror::cosine(&unit, &originals.vectors[&Row(right)]).expect("a direction");
            let similarity = index.similarity(Row(left), Row(right)).expect("both are there");
            assert!((similarity - exact).abs() < 4e-4, "{similarity} {exact}");
        }
    }
    assert_eq!(index.similarity(Row(0), Row(9999)), None);
}
