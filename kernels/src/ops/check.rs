//! Checks that several operations share.

use crate::KernelError;

/// Two sizes that must agree.
pub(super) fn same(op: &'static str, what: &'static str, got: usize, expected: usize) -> Result<(), KernelError> {
    if got == expected { Ok(()) } else { Err(KernelError::Shape { op, what, expected, got }) }
}

/// Indices that must all be below `len`.
pub(super) fn below(op: &'static str, what: &'static str, indices: &[u32], len: usize) -> Result<(), KernelError> {
    match indices.iter().position(|&index| index as usize >= len) {
        None => Ok(()),
        Some(at) => Err(KernelError::OutOfRange { op, what, index: indices[at] as usize, at, len }),
    }
}

/// Offsets that must rise from 0 to `end`.
pub(super) fn offsets(op: &'static str, what: &'static str, offsets: &[u32], end: usize) -> Result<(), KernelError> {
    let broken = |at: usize, value: u32| Err(KernelError::Offsets { op, what, at, value: value as usize, end });
    let Some((&first, &last)) = offsets.first().zip(offsets.last()) else { return broken(0, 0) };
    if first != 0 {
        return broken(0, first);
    }
    if let Some(at) = offsets.windows(2).position(|pair| pair[1] < pair[0]) {
        return broken(at + 1, offsets[at + 1]);
    }
    if last as usize != end { broken(offsets.len() - 1, last) } else { Ok(()) }
}
