//! What the tests of several operations share: seeded numbers, devices of every kind, poisoned outputs.

use std::num::NonZeroUsize;

use crate::{CpuOptions, DType, Device, Isa, Matrix, MatrixPart, Tensor, Vector};

/// Splitmix64: the same numbers for the same seed, everywhere.
pub(crate) struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        println!("seed {seed}");
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// In `[-1, 1)`.
    pub fn number(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn numbers(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.number()).collect()
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

pub(crate) fn device(isa: Isa, num_threads: usize) -> Device {
    let num_threads = Some(NonZeroUsize::new(num_threads).expect("at least one thread"));
    Device::cpu(CpuOptions { num_threads, isa: Some(isa) }).expect("an available instruction set")
}

/// Devices that must all give the same bits: every available instruction set of the common numerics, with one thread
/// and with three. The first is the reference.
pub(crate) fn equal_devices() -> Vec<Device> {
    let common = [Isa::Portable, Isa::Avx2, Isa::Avx512];
    let (available, missing): (Vec<Isa>, Vec<Isa>) = common.into_iter().partition(|isa| isa.is_available());
    for isa in missing {
        println!("skipped: this processor has no {isa}");
    }
    available.into_iter().flat_map(|isa| [device(isa, 1), device(isa, 3)]).collect()
}

/// A tensor with the given elements.
pub(crate) fn tensor(device: &Device, num_rows: usize, width: usize, values: &[f32]) -> Tensor {
    let mut tensor = Tensor::zeros(device, num_rows, width);
    tensor.as_mut_slice().copy_from_slice(values);
    tensor
}

/// An output that shows what an operation failed to write.
pub(crate) fn poisoned(device: &Device) -> Tensor {
    let mut tensor = Tensor::zeros(device, 700, 70);
    tensor.as_mut_slice().fill(f32::NAN);
    tensor
}

/// Little-endian bytes of numbers rounded to `dtype`.
pub(crate) fn bytes_of(dtype: DType, values: &[f32]) -> Vec<u8> {
    match dtype {
        DType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
    }
}

/// Numbers as `dtype` holds them.
pub(crate) fn rounded(dtype: DType, values: &[f32]) -> Vec<f32> {
    match dtype {
        DType::F32 => values.to_vec(),
        DType::BF16 => values.iter().map(|v| half::bf16::from_f32(*v).to_f32()).collect(),
        DType::F16 => values.iter().map(|v| half::f16::from_f32(*v).to_f32()).collect(),
    }
}

pub(crate) fn matrix(device: &Device, dtype: DType, out_features: usize, weights: &[f32]) -> Matrix {
    let data = bytes_of(dtype, weights);
    let parts = [MatrixPart { out_features, data: &data }];
    Matrix::pack(device, dtype, weights.len() / out_features, &parts).expect("a valid matrix")
}

pub(crate) fn vector(device: &Device, values: &[f32]) -> Vector {
    Vector::from_slice(device, values)
}

/// Asserts that two results are the same bits.
pub(crate) fn assert_same_bits(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}: lengths");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!(got.to_bits() == expected.to_bits(), "{what}: element {i} is {got:e}, expected {expected:e}");
    }
}

/// Asserts that a result is within `tolerance` of a float64 reference.
pub(crate) fn assert_close(got: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}: lengths");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(*got) - expected).abs();
        // (Not `error > tolerance`: an error that is NaN must fail.)
        assert!(error <= tolerance, "{what}: element {i} is {got:e}, expected {expected:e}");
    }
}
