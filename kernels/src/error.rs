//! The one error type of the crate; operations return it before any buffer is touched.

use std::path::PathBuf;

use crate::{DType, Isa};

/// Why a kernel refused its arguments, or a device or buffer could not be made.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// An instruction set was asked for that this processor does not have.
    #[error("this processor lacks instruction set {isa}")]
    IsaUnavailable {
        /// The instruction set asked for.
        isa: Isa,
    },
    /// A name that is no instruction set.
    #[error("unknown instruction set {name:?}; expected avx512-bf16, avx512, avx2 or portable")]
    UnknownIsa {
        /// The name that was given.
        name: String,
    },
    /// The operating system refused a worker thread.
    #[error("could not start worker thread {index}")]
    SpawnThread {
        /// Index of the worker.
        index: usize,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The operating system refused memory.
    #[error("could not allocate {bytes} bytes for {what}")]
    Allocate {
        /// What the memory was for.
        what: &'static str,
        /// Size asked for.
        bytes: usize,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file could not be opened or mapped.
    #[error("could not map {}", path.display())]
    MapFile {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Two sizes that must agree do not.
    #[error("{op}: {what} is {got}, expected {expected}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// Which size.
        what: &'static str,
        /// What the other arguments call for.
        expected: usize,
        /// What was given.
        got: usize,
    },
    /// A size that must be in a range is not.
    #[error("{op}: {what} is {got}, allowed: {allowed}")]
    Value {
        /// The operation.
        op: &'static str,
        /// Which value.
        what: &'static str,
        /// What was given.
        got: usize,
        /// What is allowed, in words.
        allowed: &'static str,
    },
    /// A size in bytes or elements does not fit the address space.
    #[error("{what} overflows the address space")]
    Overflow {
        /// Which size.
        what: &'static str,
    },
    /// An index points outside of what it indexes.
    #[error("{op}: {what} {index} at {at} is out of range, there are {len}")]
    OutOfRange {
        /// The operation.
        op: &'static str,
        /// What is indexed: token, slot, block, position, row, layer.
        what: &'static str,
        /// The index given.
        index: usize,
        /// Where in the argument it stands.
        at: usize,
        /// How many there are.
        len: usize,
    },
    /// A row's position is not covered by its sequence's block table.
    #[error(
        "{op}: row {row} is at position {position}, but its sequence {sequence} has blocks for {covered} tokens only"
    )]
    NotCovered {
        /// The operation.
        op: &'static str,
        /// Index of the row.
        row: usize,
        /// Index of the sequence.
        sequence: usize,
        /// The row's position.
        position: usize,
        /// Tokens that the block table has room for.
        covered: usize,
    },
    /// An offset array that must rise from 0 to the length of what it divides does not.
    #[error("{op}: offsets {what} break at index {at}: {value} (they must rise from 0 to {end})")]
    Offsets {
        /// The operation.
        op: &'static str,
        /// Which array.
        what: &'static str,
        /// Index of the offending entry.
        at: usize,
        /// The offending entry.
        value: usize,
        /// The value the last entry must have.
        end: usize,
    },
    /// A matrix was packed for a device with other arithmetic.
    #[error("{op}: the matrix was packed for {packed_for}, this device computes {device}")]
    PackedForOther {
        /// The operation.
        op: &'static str,
        /// Numerics id of the device that packed the matrix.
        packed_for: &'static str,
        /// Numerics id of the device at hand.
        device: &'static str,
    },
    /// Bytes whose count does not match the number of elements they stand for.
    #[error("{what}: {got} bytes of {dtype}, expected {expected}")]
    Bytes {
        /// What the bytes are.
        what: &'static str,
        /// Element type.
        dtype: DType,
        /// Bytes needed.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
}
