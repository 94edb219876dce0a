//! The CPU backend: how each operation is cut into parts for the threads; the inner loops are in `simd`.

pub(crate) mod attention;
pub(crate) mod matmul;
pub(crate) mod rowwise;
pub(crate) mod simd;
pub(crate) mod splice;
pub(crate) mod threads;
