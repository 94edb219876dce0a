//! The Merkle tree of RFC 6962 (section 2.1) over BLAKE3: roots, inclusion proofs and consistency proofs.
//!
//! A leaf is `BLAKE3(0x00 || data)` and an inner node `BLAKE3(0x01 || left || right)`, so that neither can be passed off
//! as the other. The tree over `n` leaves splits at the greatest power of two below `n`. Complete subtrees never change;
//! they are what is stored, by level and index:
//!
//! ```text
//! level 2            (2,0)
//! level 1      (1,0)       (1,1)          the tree over 7 leaves = node(node-of-4, node(node-of-2, leaf))
//! level 0   (0,0) (0,1) (0,2) (0,3) (0,4) (0,5) (0,6)
//! ```

use serde::{Deserialize, Serialize};

use super::error::GovernanceError;

/// Length of a node's hash.
pub const HASH_LEN: usize = 32;
/// Longest proof: a tree cannot have more levels than a size has bits, and a consistency proof has one node more.
pub const PROOF_LEN_MAX: usize = 65;

/// Hash of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeHash(pub [u8; HASH_LEN]);

impl NodeHash {
    /// Root of the tree without leaves.
    pub fn empty() -> Self {
        Self(*blake3::hash(b"").as_bytes())
    }

    /// The leaf that holds this data.
    pub fn leaf(data: &[u8]) -> Self {
        Self(*blake3::Hasher::new().update(&[0]).update(data).finalize().as_bytes())
    }

    /// The node over these two.
    #[must_use]
    pub fn parent(left: &Self, right: &Self) -> Self {
        Self(*blake3::Hasher::new().update(&[1]).update(&left.0).update(&right.0).finalize().as_bytes())
    }

    /// As 64 hex digits.
    pub fn to_hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }
}

impl From<NodeHash> for String {
    fn from(hash: NodeHash) -> Self {
        hash.to_hex()
    }
}

impl TryFrom<String> for NodeHash {
    type Error = GovernanceError;

    fn try_from(hex: String) -> Result<Self, GovernanceError> {
        let hash = blake3::Hash::from_hex(&hex);
        let invalid = |_| GovernanceError::InvalidField { field: "a hash", reason: "must be 64 hex digits" };
        hash.map(|hash| Self(*hash.as_bytes())).map_err(invalid)
    }
}

/// A complete subtree: the leaves from `index << level` to `(index + 1) << level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodePlace {
    /// Leaves are level 0.
    pub level: u32,
    /// From the left, from 0.
    pub index: u64,
}

/// What completes when leaf `index` is appended: its ancestors that have all their leaves now, lowest first, each with
/// the left sibling that is needed for it.
pub fn completed_by(index: u64) -> impl Iterator<Item = (NodePlace, NodePlace)> {
    (0..index.trailing_ones()).map(move |level| {
        let parent = NodePlace { level: level + 1, index: index >> (level + 1) };
        (parent, NodePlace { level, index: parent.index * 2 })
    })
}

/// Root of the tree over the first `size` leaves, from stored complete subtrees.
///
/// # Errors
/// A node could not be had.
pub fn root<E>(size: u64, node: &mut impl FnMut(NodePlace) -> Result<NodeHash, E>) -> Result<NodeHash, E> {
    if size == 0 { Ok(NodeHash::empty()) } else { subtree(0, size, node) }
}

/// Proof that leaf `index` is in the tree over the first `size` leaves: the siblings on its way to the root, lowest first.
///
/// # Errors
/// A node could not be had.
///
/// # Panics
/// The leaf is not in the tree.
pub fn inclusion_proof<E>(
    index: u64,
    size: u64,
    node: &mut impl FnMut(NodePlace) -> Result<NodeHash, E>,
) -> Result<Vec<NodeHash>, E> {
    assert!(index < size, "leaf {index} is not among {size}");
    let (mut start, mut end) = (0, size);
    let mut proof = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            proof.push(subtree(middle, end, node)?);
            end = middle;
        } else {
            proof.push(subtree(start, middle, node)?);
            start = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// Proof that the tree over the first `new_size` leaves continues the one over the first `old_size`.
///
/// # Errors
/// A node could not be had.
///
/// # Panics
/// The old tree is larger than the new one.
pub fn consistency_proof<E>(
    old_size: u64,
    new_size: u64,
    node: &mut impl FnMut(NodePlace) -> Result<NodeHash, E>,
) -> Result<Vec<NodeHash>, E> {
    assert!(old_size <= new_size, "{old_size} leaves are more than {new_size}");
    let mut proof = Vec::new();
    if old_size == 0 || old_size == new_size {
        return Ok(proof);
    }
    let (mut start, mut end) = (0, new_size);
    // Down to the subtree in which the old tree ends; it is left out when the verifier has it as the old root.
    while end != old_size {
        let middle = start + split(end - start);
        if old_size <= middle {
            proof.push(subtree(middle, end, node)?);
            end = middle;
        } else {
            proof.push(subtree(start, middle, node)?);
            start = middle;
        }
    }
    if start > 0 {
        proof.push(subtree(start, end, node)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Checks an inclusion proof (RFC 9162, section 2.1.3.2).
///
/// # Errors
/// The proof does not lead from the leaf to the root.
pub fn verify_inclusion(
    leaf: NodeHash,
    index: u64,
    size: u64,
    proof: &[NodeHash],
    root: &NodeHash,
) -> Result<(), GovernanceError> {
    if index >= size || proof.len() > PROOF_LEN_MAX {
        return Err(GovernanceError::ProofRejected);
    }
    let (mut position, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in proof {
        if last == 0 {
            return Err(GovernanceError::ProofRejected);
        }
        if position & 1 == 1 || position == last {
            hash = NodeHash::parent(sibling, &hash);
            // A right edge without siblings on these levels is lifted to the level where it has one.
            let lift = if position & 1 == 1 { 0 } else { position.trailing_zeros().min(63) };
            (position, last) = (position >> lift, last >> lift);
        } else {
            hash = NodeHash::parent(&hash, sibling);
        }
        (position, last) = (position >> 1, last >> 1);
    }
    if last == 0 && hash == *root { Ok(()) } else { Err(GovernanceError::ProofRejected) }
}

/// Checks a consistency proof (RFC 9162, section 2.1.4.2).
///
/// # Errors
/// The new tree does not continue the old one.
pub fn verify_consistency(
    (old_size, old_root): (u64, &NodeHash),
    (new_size, new_root): (u64, &NodeHash),
    proof: &[NodeHash],
) -> Result<(), GovernanceError> {
    let rejected = Err(GovernanceError::ProofRejected);
    if old_size > new_size || proof.len() > PROOF_LEN_MAX {
        return rejected;
    }
    if old_size == 0 || old_size == new_size {
        let same = if old_size == 0 { *old_root == NodeHash::empty() } else { old_root == new_root };
        let new_is_empty = new_size > 0 || *new_root == NodeHash::empty();
        return if proof.is_empty() && same && new_is_empty { Ok(()) } else { rejected };
    }
    // A complete old tree is itself the first node of the path.
    let mut path = Vec::with_capacity(proof.len() + 1);
    if old_size.is_power_of_two() {
        path.push(*old_root);
    }
    path.extend_from_slice(proof);
    let Some((&first, rest)) = path.split_first() else { return rejected };
    let lift = (old_size - 1).trailing_ones();
    let (mut position, mut last) = ((old_size - 1) >> lift, (new_size - 1) >> lift);
    let (mut from_old, mut from_new) = (first, first);
    for sibling in rest {
        if last == 0 {
            return rejected;
        }
        if position & 1 == 1 || position == last {
            from_old = NodeHash::parent(sibling, &from_old);
            from_new = NodeHash::parent(sibling, &from_new);
            let lift = if position & 1 == 1 { 0 } else { position.trailing_zeros().min(63) };
            (position, last) = (position >> lift, last >> lift);
        } else {
            from_new = NodeHash::parent(&from_new, sibling);
        }
        (position, last) = (position >> 1, last >> 1);
    }
    if last == 0 && from_old == *old_root && from_new == *new_root { Ok(()) } else { rejected }
}

/// Grows a tree leaf by leaf and keeps only its frontier: what a check needs that recomputes everything.
#[derive(Debug, Clone, Default)]
pub struct Frontier {
    size: u64,
    /// The complete subtrees that the size decomposes into, largest first.
    subtrees: Vec<NodeHash>,
}

impl Frontier {
    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf and tells each subtree that it completes.
    pub fn push(&mut self, leaf: NodeHash, mut completed: impl FnMut(NodePlace, &NodeHash)) {
        let mut hash = leaf;
        for (parent, _sibling) in completed_by(self.size) {
            let left = self.subtrees.pop().expect("each set bit of the size has its subtree: this is a bug");
            hash = NodeHash::parent(&left, &hash);
            completed(parent, &hash);
        }
        self.subtrees.push(hash);
        self.size += 1;
    }

    /// Root over all leaves so far.
    pub fn root(&self) -> NodeHash {
        let folded = self.subtrees.iter().rev().copied().reduce(|right, left| NodeHash::parent(&left, &right));
        folded.unwrap_or_else(NodeHash::empty)
    }
}

/// Hash over the leaves from `start` to `end`, where `start` is a multiple of the power of two that covers them.
fn subtree<E>(start: u64, end: u64, node: &mut impl FnMut(NodePlace) -> Result<NodeHash, E>) -> Result<NodeHash, E> {
    let len = end - start;
    if len.is_power_of_two() {
        let level = len.trailing_zeros();
        return node(NodePlace { level, index: start >> level });
    }
    let middle = start + split(len);
    let left = subtree(start, middle, node)?;
    let right = subtree(middle, end, node)?;
    Ok(NodeHash::parent(&left, &right))
}

/// The greatest power of two below `len`, which is at least 2.
fn split(len: u64) -> u64 {
    1 << (u64::BITS - 1 - (len - 1).leading_zeros())
}

#[cfg(test)]
#[path = "merkle_tests.rs"]
mod tests;
