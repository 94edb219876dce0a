//! What a full block holds, in words that every tier understands: enough to file it, find it again and prove it.
use std::sync::Arc;

use crate::ids::TenantId;
use crate::key::KvKey;

/// A full block and, through its parent, the chain of tokens that it ends. Shared by all tiers that hold a copy; the
/// chain stays known even where an ancestor's bytes are gone.
#[derive(Debug)]
pub struct BlockInfo {
    key: KvKey,
    parent: Option<Arc<BlockInfo>>,
    root: KvKey,
    tokens: Box<[u32]>,
    tenant: TenantId,
    /// Blocks before it.
    depth: u32,
}

impl BlockInfo {
    /// The block of `tokens` right behind `parent`, or the first of the tenant's chain from `root`.
    pub fn new(
        parent: Option<&Arc<BlockInfo>>,
        root: KvKey,
        tenant: TenantId,
        key: KvKey,
        tokens: &[u32],
    ) -> Arc<BlockInfo> {
        let depth = parent.map_or(0, |parent| parent.depth + 1);
        Arc::new(BlockInfo { key, parent: parent.cloned(), root, tokens: tokens.into(), tenant, depth })
    }

    /// The block's content address.
    pub fn key(&self) -> KvKey {
        self.key
    }

    /// The block before it; `None` for the first.
    pub fn parent(&self) -> Option<&Arc<BlockInfo>> {
        self.parent.as_ref()
    }

    /// The key before the chain's first block.
    pub fn root(&self) -> KvKey {
        self.root
    }

    /// The block's own tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Whose it is.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Blocks before it in its chain.
    pub fn depth(&self) -> usize {
        self.depth as usize
    }

    /// All tokens from the start of the chain to the end of this block.
    pub fn chain_tokens(&self) -> Vec<u32> {
        let mut blocks = vec![self];
        while let Some(parent) = blocks[blocks.len() - 1].parent() {
            blocks.push(parent);
        }
        blocks.iter().rev().flat_map(|block| block.tokens.iter().copied()).collect()
    }
}

/// A chain of a long context has thousands of blocks: dropping one after the other keeps the stack flat.
impl Drop for BlockInfo {
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(mut parent) = next.and_then(Arc::into_inner) {
            next = parent.parent.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(num_blocks: u32) -> Arc<BlockInfo> {
        let root = KvKey::from_bytes([0; 32]);
        let next = |last: Option<Arc<BlockInfo>>, token: u32| {
            let key = last.as_ref().map_or(root, |last| last.key()).child(&[token]);
            Some(BlockInfo::new(last.as_ref(), root, TenantId(7), key, &[token]))
        };
        (0..num_blocks).fold(None, next).expect("there is a block")
    }

    #[test]
    fn a_block_knows_its_chain() {
        let last = chain(5);
        assert_eq!(last.chain_tokens(), [0, 1, 2, 3, 4]);
        assert_eq!((last.depth(), last.tenant()), (4, TenantId(7)));
    }

    #[test]
    fn a_very_long_chain_is_dropped_without_a_deep_stack() {
        drop(chain(1_000_000));
    }
}
