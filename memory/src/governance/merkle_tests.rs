//! Tests of the Merkle tree against a tree that is built as RFC 6962 defines it, for all sizes up to 64 and all pairs.

use std::collections::HashMap;
use std::convert::Infallible;

use super::*;

const SIZE_MAX: u64 = 64;

fn leaf(index: u64) -> NodeHash {
    NodeHash::leaf(&index.to_le_bytes())
}

/// The definition, word for word: MTH(D[n]) = HASH(0x01 || MTH(D[0:k]) || MTH(D[k:n])).
fn naive_root(leaves: &[NodeHash]) -> NodeHash {
    match leaves {
        [] => NodeHash::empty(),
        [only] => *only,
        _ => {
            let middle = leaves.len().next_power_of_two() / 2;
            NodeHash::parent(&naive_root(&leaves[..middle]), &naive_root(&leaves[middle..]))
        }
    }
}

struct Tree {
    leaves: Vec<NodeHash>,
    nodes: HashMap<NodePlace, NodeHash>,
}

impl Tree {
    fn of_size(size: u64) -> Self {
        let mut tree = Self { leaves: Vec::new(), nodes: HashMap::new() };
        for index in 0..size {
            tree.leaves.push(leaf(index));
            tree.nodes.insert(NodePlace { level: 0, index }, leaf(index));
            for (parent, left) in completed_by(index) {
                let right = NodePlace { level: left.level, index: left.index + 1 };
                let hash = NodeHash::parent(&tree.nodes[&left], &tree.nodes[&right]);
                tree.nodes.insert(parent, hash);
            }
        }
        tree
    }

    fn node(&self) -> impl FnMut(NodePlace) -> Result<NodeHash, Infallible> {
        |place| Ok(self.nodes[&place])
    }

    fn root(&self, size: u64) -> NodeHash {
        let Ok(root) = root(size, &mut self.node());
        root
    }
}

#[test]
fn roots_are_those_of_the_definition() {
    let tree = Tree::of_size(SIZE_MAX);
    let mut frontier = Frontier::default();
    for size in 0..=SIZE_MAX {
        let expected = naive_root(&tree.leaves[..usize::try_from(size).expect("small")]);
        assert_eq!(tree.root(size), expected, "size {size}");
        assert_eq!(frontier.root(), expected, "size {size}");
        if size < SIZE_MAX {
            frontier.push(leaf(size), |place, hash| assert_eq!(tree.nodes[&place], *hash));
        }
    }
    assert_eq!(frontier.size(), SIZE_MAX);
}

#[test]
fn every_leaf_is_proven_in_every_size_and_nothing_else_is() {
    let tree = Tree::of_size(SIZE_MAX);
    for size in 1..=SIZE_MAX {
        let root = tree.root(size);
        for index in 0..size {
            let Ok(proof) = inclusion_proof(index, size, &mut tree.node());
            verify_inclusion(leaf(index), index, size, &proof, &root).expect("a proof of what is there");
            assert!(verify_inclusion(leaf(SIZE_MAX), index, size, &proof, &root).is_err(), "another leaf");
            for other in 0..=size {
                let accepted = verify_inclusion(leaf(index), other, size, &proof, &root).is_ok();
                assert_eq!(accepted, other == index, "leaf {index} of {size} at {other}");
            }
            for position in 0..proof.len() {
                let mut forged = proof.clone();
                forged[position].0[7] ^= 1;
                assert!(verify_inclusion(leaf(index), index, size, &forged, &root).is_err());
                let mut short = proof.clone();
                short.remove(position);
                assert!(verify_inclusion(leaf(index), index, size, &short, &root).is_err());
            }
            let longer = [&proof[..], &[root]].concat();
            assert!(verify_inclusion(leaf(index), index, size, &longer, &root).is_err());
        }
    }
}

#[test]
fn every_pair_of_sizes_is_proven_consistent_and_changed_histories_are_not() {
    let tree = Tree::of_size(SIZE_MAX);
    for new_size in 0..=SIZE_MAX {
        let new_root = tree.root(new_size);
        for old_size in 0..=new_size {
            let old_root = tree.root(old_size);
            let Ok(proof) = consistency_proof(old_size, new_size, &mut tree.node());
            verify_consistency((old_size, &old_root), (new_size, &new_root), &proof).expect("a consistent pair");
            let mut other = old_root;
            other.0[0] ^= 1;
            assert!(verify_consistency((old_size, &other), (new_size, &new_root), &proof).is_err(), "old root");
            if old_size > 0 {
                let mut other = new_root;
                other.0[0] ^= 1;
                assert!(verify_consistency((old_size, &old_root), (new_size, &other), &proof).is_err(), "new root");
            }
            for position in 0..proof.len() {
                let mut forged = proof.clone();
                forged[position].0[31] ^= 0x80;
                assert!(verify_consistency((old_size, &old_root), (new_size, &new_root), &forged).is_err());
            }
            let longer = [&proof[..], &[new_root]].concat();
            assert!(verify_consistency((old_size, &old_root), (new_size, &new_root), &longer).is_err());
            if old_size < new_size && old_size > 0 {
                assert!(verify_consistency((old_size + 1, &old_root), (new_size, &new_root), &proof).is_err());
            }
        }
    }
    let (old, new) = (tree.root(9), tree.root(3));
    assert!(verify_consistency((9, &old), (3, &new), &[]).is_err(), "a shrunken log");
}

#[test]
fn sizes_at_the_end_of_the_range_do_not_overflow() {
    let hash = leaf(0);
    let proof = vec![hash; PROOF_LEN_MAX];
    for (index, size) in [(0, u64::MAX), (u64::MAX - 1, u64::MAX), (1 << 63, u64::MAX), (u64::MAX, u64::MAX)] {
        assert!(verify_inclusion(hash, index, size, &proof, &hash).is_err());
        assert!(verify_consistency((index.max(1), &hash), (size, &hash), &proof[1..]).is_err());
    }
    assert!(verify_inclusion(hash, 0, 1, &vec![hash; 1000], &hash).is_err(), "longer than any proof");
}

#[test]
fn a_leaf_is_never_an_inner_node() {
    let (left, right) = (leaf(0), leaf(1));
    let both = [left.0, right.0].concat();
    assert_ne!(NodeHash::leaf(&both), NodeHash::parent(&left, &right));
}
