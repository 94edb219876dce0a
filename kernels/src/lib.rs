//! Operations on device buffers: weights, activations, the paged KV pool; knows nothing of sequences or memory items.
//!
//! Every operation is in [`ops`]: it validates, then dispatches to the backend of the [`Device`]. On the CPU a row's
//! result has one summation order, whatever the instruction set, the number of threads and the other rows of the call
//! are: see [`Device::numerics_id`].
#![deny(unsafe_code)]

mod cpu;
mod device;
mod dtype;
mod error;
mod key_rotation;
mod kv_pool;
mod matrix;
mod mmap;
pub mod ops;
mod rope_table;
mod tensor;
#[cfg(test)]
mod testing;

pub use device::{CpuOptions, Device, Isa};
pub use dtype::DType;
pub use error::KernelError;
pub use key_rotation::KeyRotation;
pub use kv_pool::{KvPool, KvShape};
pub use matrix::{Matrix, MatrixPart};
pub use mmap::MappedFile;
pub use ops::{AttentionBatch, AttentionParams, HeadLayout, KvSource, SpliceRun};
pub use rope_table::RopeTable;
pub use tensor::{Tensor, Vector};
