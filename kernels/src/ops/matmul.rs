//! Operations that read a packed weight: matrix product and embedding.

use super::check::{below, same};
use crate::{Device, KernelError, Matrix, Tensor, Vector, cpu};

/// `out = x * weight^T + bias`: `x` `[num_rows, in_features]`, `weight` `[out_features, in_features]`, `bias`
/// `[out_features]`, `out` `[num_rows, out_features]`.
///
/// # Errors
/// [`KernelError::Shape`] when the widths do not agree, [`KernelError::PackedForOther`] when the matrix was packed by a
/// device with other arithmetic.
pub fn matmul(
    device: &Device,
    x: &Tensor,
    weight: &Matrix,
    bias: Option<&Vector>,
    out: &mut Tensor,
) -> Result<(), KernelError> {
    same("matmul", "width of x", x.width(), weight.in_features())?;
    if let Some(bias) = bias {
        same("matmul", "length of bias", bias.len(), weight.out_features())?;
    }
    let (packed_for, device_id) = (weight.packed_for(), device.numerics_id());
    if let Some(packed_for) = packed_for.filter(|id| *id != device_id) {
        return Err(KernelError::PackedForOther { op: "matmul", packed_for, device: device_id });
    }
    out.reset(x.num_rows(), weight.out_features());
    cpu::matmul::matmul(device, x, weight, bias, out);
    Ok(())
}

/// Row `tokens[i]` of `weight` `[vocab_size, hidden_size]` becomes row `i` of `out`.
///
/// # Errors
/// [`KernelError::OutOfRange`] for a token that is not in the vocabulary.
pub fn embedding(device: &Device, weight: &Matrix, tokens: &[u32], out: &mut Tensor) -> Result<(), KernelError> {
    below("embedding", "token", tokens, weight.out_features())?;
    out.reset(tokens.len(), weight.in_features());
    cpu::rowwise::embedding(device, weight, tokens, out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;
    use crate::{DType, Isa, MatrixPart};

    fn product(x: &[f32], weights: &[f32], bias: &[f32], k_len: usize) -> (Vec<f64>, f64) {
        let mut products = Vec::new();
        for x in x.chunks_exact(k_len) {
            for (w, bias) in weights.chunks_exact(k_len).zip(bias) {
                let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                products.push(terms.sum::<f64>() + f64::from(*bias));
            }
        }
        // Terms are at most 1, so a chain of k_len additions is off by at most about k_len^2 / 2 roundings of 2^-24;
        // random signs make it far less.
        (products, 4e-7 * k_len as f64 + 1e-6)
    }

    #[test]
    fn matmul_is_the_product_and_the_same_bits_on_every_device_and_for_every_number_of_rows() {
        let mut rng = Rng::new(1);
        let devices = equal_devices();
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            for (k_len, outputs) in [(1, 1), (15, 16), (16, 15), (17, 64), (64, 65), (200, 130), (300, 64), (129, 257)]
            {
                for num_rows in [0, 1, 2, 5, 6, 7, 12, 13, 29, 130] {
                    let weights = rounded(dtype, &rng.numbers(outputs * k_len));
                    let bias = rng.numbers(outputs);
                    let values = rng.numbers(num_rows * k_len);
                    let what = format!("{dtype} [{num_rows}, {k_len}] x [{outputs}, {k_len}]");
                    let (expected, tolerance) = product(&values, &weights, &bias, k_len);
                    let mut first = Vec::new();
                    for device in &devices {
                        let x = tensor(device, num_rows, k_len, &values);
                        let w = matrix(device, dtype, outputs, &weights);
                        let bias = vector(device, &bias);
                        let mut out = poisoned(device);
                        matmul(device, &x, &w, Some(&bias), &mut out).expect("valid arguments");
                        assert_eq!((out.num_rows(), out.width()), (num_rows, outputs));
                        if first.is_empty() {
                            assert_close(out.as_slice(), &expected, tolerance, &what);
                            first = out.as_slice().to_vec();
                        }
                        assert_same_bits(out.as_slice(), &first, &format!("{what} on {}", device.describe()));
                        if let Some(row) = num_rows.checked_sub(1) {
                            let x = tensor(device, 1, k_len, x.row(row));
                            matmul(device, &x, &w, Some(&bias), &mut out).expect("valid arguments");
                            assert_same_bits(out.row(0), &first[row * outputs..], &format!("{what}, last row alone"));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn parts_are_concatenated_and_rows_are_read_back_from_any_alignment() {
        let mut rng = Rng::new(2);
        let device = device(Isa::detect(), 2);
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let (k_len, sizes) = (37, [70usize, 1, 100]);
            let weights = rounded(dtype, &rng.numbers(171 * k_len));
            let mut bytes = vec![0xff; 3];
            bytes.extend(bytes_of(dtype, &weights));
            let mut rest = &bytes[3..];
            let parts = sizes.map(|out_features| {
                let (data, remainder) = rest.split_at(out_features * k_len * dtype.size_bytes());
                rest = remainder;
                MatrixPart { out_features, data }
            });
            let w = Matrix::pack(&device, dtype, k_len, &parts).expect("valid parts");
            assert_eq!((w.out_features(), w.in_features(), w.dtype()), (171, k_len, dtype));
            let mut out = poisoned(&device);
            let tokens: Vec<u32> = (0..171).rev().collect();
            embedding(&device, &w, &tokens, &mut out).expect("tokens in the vocabulary");
            for (i, row) in weights.chunks_exact(k_len).rev().enumerate() {
                assert_same_bits(out.row(i), row, "embedding");
            }
        }
    }

    #[test]
    fn arguments_that_do_not_agree_are_named() {
        let device = device(Isa::detect(), 1);
        let w = matrix(&device, DType::F32, 3, &[0.0; 12]);
        let mut out = Tensor::zeros(&device, 0, 0);
        let x = Tensor::zeros(&device, 2, 5);
        let error = matmul(&device, &x, &w, None, &mut out).expect_err("5 inputs, not 4");
        assert_eq!(error.to_string(), "matmul: width of x is 5, expected 4");
        let x = Tensor::zeros(&device, 2, 4);
        let bias = vector(&device, &[0.0; 4]);
        assert!(matmul(&device, &x, &w, Some(&bias), &mut out).is_err());
        let error = embedding(&device, &w, &[0, 2, 3], &mut out).expect_err("3 tokens only");
        assert_eq!(error.to_string(), "embedding: token 3 at 2 is out of range, there are 3");
        let short = [MatrixPart { out_features: 2, data: &[0; 7] }];
        assert!(matches!(Matrix::pack(&device, DType::F32, 1, &short), Err(KernelError::Bytes { expected: 8, .. })));
        assert!(matches!(Matrix::pack(&device, DType::F32, 1, &[]), Err(KernelError::Value { .. })));
        assert!(matches!(Matrix::pack(&device, DType::F32, 0, &[]), Err(KernelError::Value { .. })));
        let huge = [MatrixPart { out_features: usize::MAX, data: &[] }];
        assert!(matches!(Matrix::pack(&device, DType::F32, 8, &huge), Err(KernelError::Overflow { .. })));
    }
}
