//! Identities of tenants, sequences and KV blocks, so that none can be taken for another.
use std::fmt;

/// Who a sequence belongs to; resolved from the API key by the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(pub u64);

/// A sequence's identity. Never reused within one scheduler; a smaller one arrived earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(u64);

/// A block's index in the device pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(u32);

/// A piece of a lower tier: one block in host memory, or the blocks of one file on disk. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitId(u64);

/// A load from lower tiers into the device pool. Never reused within one scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoadId(u64);

impl UnitId {
    /// The number, for names of files and messages.
    pub fn get(self) -> u64 {
        self.0
    }

    pub(crate) const FIRST: UnitId = UnitId(0);

    pub(crate) fn next(self) -> UnitId {
        UnitId(self.0 + 1)
    }
}

impl LoadId {
    pub(crate) const FIRST: LoadId = LoadId(0);

    pub(crate) fn next(self) -> LoadId {
        LoadId(self.0 + 1)
    }
}

impl SequenceId {
    pub(crate) const FIRST: SequenceId = SequenceId(0);

    /// The arrival number.
    pub fn get(self) -> u64 {
        self.0
    }

    pub(crate) fn next(self) -> SequenceId {
        SequenceId(self.0 + 1)
    }
}

impl BlockId {
    /// The block at an index of the physical pool.
    ///
    /// # Panics
    /// When the index is beyond what a pool can have.
    pub fn new(index: usize) -> BlockId {
        BlockId(u32::try_from(index).expect("pools are limited to 32-bit indices: this is a bug"))
    }

    /// The index in the physical pool, as kernels take it.
    pub fn index(self) -> u32 {
        self.0
    }

    pub(crate) fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tenant {}", self.0)
    }
}

impl fmt::Display for SequenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sequence {}", self.0)
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {}", self.0)
    }
}
