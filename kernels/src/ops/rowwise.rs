//! Operations on single rows: norms, sums, rotation, activation, selection.

use super::HeadLayout;
use super::check::{below, same};
use crate::{Device, KernelError, RopeTable, Tensor, Vector, cpu};

/// `out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight`: `x` and `out` `[num_rows, width]`, `weight` `[width]`.
///
/// # Errors
/// [`KernelError::Shape`] when the weight has another width.
pub fn rms_norm(device: &Device, x: &Tensor, weight: &Vector, eps: f32, out: &mut Tensor) -> Result<(), KernelError> {
    same("rms_norm", "length of weight", weight.len(), x.width())?;
    out.reset(x.num_rows(), x.width());
    if !x.as_slice().is_empty() {
        cpu::rowwise::rms_norm(device, x, weight, eps, out);
    }
    Ok(())
}

/// `residual += delta`, then `out = rms_norm(residual)`; all `[num_rows, width]`, `weight` `[width]`.
///
/// # Errors
/// [`KernelError::Shape`] when the shapes do not agree.
pub fn add_rms_norm(
    device: &Device,
    residual: &mut Tensor,
    delta: &Tensor,
    weight: &Vector,
    eps: f32,
    out: &mut Tensor,
) -> Result<(), KernelError> {
    let op = "add_rms_norm";
    same(op, "rows of delta", delta.num_rows(), residual.num_rows())?;
    same(op, "width of delta", delta.width(), residual.width())?;
    same(op, "length of weight", weight.len(), residual.width())?;
    out.reset(residual.num_rows(), residual.width());
    if !residual.as_slice().is_empty() {
        cpu::rowwise::add_rms_norm(device, residual, delta, (weight, eps), out);
    }
    Ok(())
}

/// `residual += delta`; both `[num_rows, width]`.
///
/// # Errors
/// [`KernelError::Shape`] when the shapes do not agree.
pub fn add(device: &Device, residual: &mut Tensor, delta: &Tensor) -> Result<(), KernelError> {
    same("add", "rows of delta", delta.num_rows(), residual.num_rows())?;
    same("add", "width of delta", delta.width(), residual.width())?;
    if !residual.as_slice().is_empty() {
        cpu::rowwise::add(device, residual, delta);
    }
    Ok(())
}

/// [`rms_norm`] of every query head and every key head of `qkv` `[num_rows, layout.width()]`, in place; weights
/// `[head_dim]` (Qwen3).
///
/// # Errors
/// [`KernelError::Value`] for a layout that is none, [`KernelError::Shape`] when the sizes do not agree.
pub fn head_rms_norm(
    device: &Device,
    qkv: &mut Tensor,
    layout: HeadLayout,
    q_weight: &Vector,
    k_weight: &Vector,
    eps: f32,
) -> Result<(), KernelError> {
    let op = "head_rms_norm";
    layout.validate(op)?;
    same(op, "width of qkv", qkv.width(), layout.width())?;
    same(op, "length of q_weight", q_weight.len(), layout.head_dim)?;
    same(op, "length of k_weight", k_weight.len(), layout.head_dim)?;
    cpu::rowwise::head_rms_norm(device, qkv, layout, (q_weight, k_weight), eps);
    Ok(())
}

/// Rotates the query and key heads of `qkv` `[num_rows, layout.width()]` by the rows' positions, in place. The first
/// `2 * half_dim` elements of a head are rotated, the others stay.
///
/// # Errors
/// [`KernelError::Value`] for a layout that is none or a table wider than a head, [`KernelError::Shape`] when the sizes
/// do not agree, [`KernelError::OutOfRange`] for a position beyond the table.
pub fn rope(
    device: &Device,
    qkv: &mut Tensor,
    layout: HeadLayout,
    positions: &[u32],
    table: &RopeTable,
) -> Result<(), KernelError> {
    let op = "rope";
    layout.validate(op)?;
    same(op, "width of qkv", qkv.width(), layout.width())?;
    same(op, "number of positions", positions.len(), qkv.num_rows())?;
    if 2 * table.half_dim() > layout.head_dim {
        let allowed = "at most half of head_dim";
        return Err(KernelError::Value { op, what: "half_dim", got: table.half_dim(), allowed });
    }
    below(op, "position", positions, table.max_positions())?;
    cpu::rowwise::rope(device, qkv, layout, positions, table);
    Ok(())
}

/// `out = silu(gate) * up`: `gate_up` `[num_rows, 2 * width]` with the gate first, `out` `[num_rows, width]`.
///
/// # Errors
/// [`KernelError::Value`] when the width of `gate_up` is odd.
pub fn silu_mul(device: &Device, gate_up: &Tensor, out: &mut Tensor) -> Result<(), KernelError> {
    let width = gate_up.width();
    if !width.is_multiple_of(2) {
        let allowed = "an even number";
        return Err(KernelError::Value { op: "silu_mul", what: "width of gate_up", got: width, allowed });
    }
    out.reset(gate_up.num_rows(), width / 2);
    if !gate_up.as_slice().is_empty() {
        cpu::rowwise::silu_mul(device, gate_up, out);
    }
    Ok(())
}

/// Row `rows[i]` of `x` becomes row `i` of `out`.
///
/// # Errors
/// [`KernelError::OutOfRange`] for a row that is not there.
pub fn gather_rows(_device: &Device, x: &Tensor, rows: &[u32], out: &mut Tensor) -> Result<(), KernelError> {
    below("gather_rows", "row", rows, x.num_rows())?;
    out.reset(rows.len(), x.width());
    if x.width() > 0 {
        cpu::rowwise::gather_rows(x, rows, out);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::*;

    const SIZES: [usize; 8] = [1, 7, 15, 16, 17, 64, 100, 576];
    const ROWS: [usize; 4] = [0, 1, 3, 90];

    /// Runs `op` on every device; compares the first result with the reference and the others with the first. Rows of
    /// 90 are many enough to be shared among threads; each must be what it is alone.
    fn check(what: &str, expected: &[f64], tolerance: f64, op: impl Fn(&Device) -> Vec<f32>) -> Vec<f32> {
        let mut first = Vec::new();
        for device in equal_devices() {
            let got = op(&device);
            if first.is_empty() {
                assert_close(&got, expected, tolerance, what);
                first = got;
            } else {
                assert_same_bits(&got, &first, &format!("{what} on {}", device.describe()));
            }
        }
        first
    }

    fn norm_reference(x: &[f32], weight: &[f32], eps: f32) -> Vec<f64> {
        let rows = x.chunks_exact(weight.len());
        rows.flat_map(|x| {
            let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / x.len() as f64;
            let scale = 1.0 / (mean + f64::from(eps)).sqrt();
            x.iter().zip(weight).map(move |(x, w)| f64::from(*x) * scale * f64::from(*w)).collect::<Vec<_>>()
        })
        .collect()
    }

    #[test]
    fn rms_norm_is_the_reference_with_and_without_a_residual() {
        let mut rng = Rng::new(10);
        for width in SIZES {
            for num_rows in ROWS {
                let (x, delta) = (rng.numbers(num_rows * width), rng.numbers(num_rows * width));
                let weight = rng.numbers(width);
                let eps = 1e-5;
                let what = format!("[{num_rows}, {width}]");
                check(&what, &norm_reference(&x, &weight, eps), 4e-6, |device| {
                    let mut out = poisoned(device);
                    let x = tensor(device, num_rows, width, &x);
                    rms_norm(device, &x, &vector(device, &weight), eps, &mut out).expect("valid");
                    out.as_slice().to_vec()
                });
                let sums: Vec<f32> = x.iter().zip(&delta).map(|(x, delta)| x + delta).collect();
                let normed = norm_reference(&sums, &weight, eps);
                let expected: Vec<f64> = sums.iter().map(|x| f64::from(*x)).chain(normed).collect();
                check(&what, &expected, 4e-6, |device| {
                    let mut out = poisoned(device);
                    let mut residual = tensor(device, num_rows, width, &x);
                    let delta = tensor(device, num_rows, width, &delta);
                    let weight = vector(device, &weight);
                    add_rms_norm(device, &mut residual, &delta, &weight, eps, &mut out).expect("valid");
                    let mut added = tensor(device, num_rows, width, &x);
                    add(device, &mut added, &delta).expect("valid");
                    assert_same_bits(added.as_slice(), residual.as_slice(), "add");
                    [residual.as_slice(), out.as_slice()].concat()
                });
            }
        }
    }

    #[test]
    fn silu_mul_is_the_reference() {
        let mut rng = Rng::new(11);
        for width in SIZES {
            for num_rows in ROWS {
                let gate_up: Vec<f32> = rng.numbers(num_rows * 2 * width).iter().map(|x| 20.0 * x).collect();
                let rows = gate_up.chunks_exact(2 * width);
                let expected: Vec<f64> = rows
                    .flat_map(|row| {
                        let (gate, up) = row.split_at(width);
                        let silu = |x: f64| x / (1.0 + (-x).exp());
                        gate.iter().zip(up).map(move |(g, u)| silu(f64::from(*g)) * f64::from(*u))
                    })
                    .collect();
                // Results reach 400.
                check(&format!("[{num_rows}, {width}]"), &expected, 2e-4, |device| {
                    let mut out = poisoned(device);
                    silu_mul(device, &tensor(device, num_rows, 2 * width, &gate_up), &mut out).expect("valid");
                    out.as_slice().to_vec()
                });
            }
        }
    }

    #[test]
    fn silu_of_extreme_gates_is_zero_or_the_gate() {
        let device = device(Isa::detect(), 1);
        let gate_up = tensor(&device, 1, 8, &[-1e30, -200.0, 200.0, 1e30, 1.0, 1.0, 1.0, 1.0]);
        let mut out = poisoned(&device);
        silu_mul(&device, &gate_up, &mut out).expect("valid");
        assert_eq!(out.as_slice(), [0.0, 0.0, 200.0, 1e30]);
    }

    #[test]
    fn rope_and_head_norm_touch_query_and_key_heads_only() {
        let mut rng = Rng::new(12);
        for (head_dim, half_dim) in [(8, 4), (16, 8), (64, 32), (80, 40), (64, 16), (96, 17)] {
            for num_rows in ROWS {
                let layout = HeadLayout { num_heads: 4, num_kv_heads: 2, head_dim };
                let values = rng.numbers(num_rows * layout.width());
                let (cos, sin) = (rng.numbers(50 * half_dim), rng.numbers(50 * half_dim));
                let positions: Vec<u32> = (0..num_rows).map(|_| rng.below(50) as u32).collect();
                let (q_weight, k_weight) = (rng.numbers(head_dim), rng.numbers(head_dim));
                let mut rotated: Vec<f64> = values.iter().map(|x| f64::from(*x)).collect();
                let mut normed = rotated.clone();
                for (row, position) in positions.iter().enumerate() {
                    for head in 0..6 {
                        let at = row * layout.width() + head * head_dim;
                        let weight = if head < 4 { &q_weight } else { &k_weight };
                        normed[at..at + head_dim].copy_from_slice(&norm_reference(
                            &values[at..at + head_dim],
                            weight,
                            1e-6,
                        ));
                        for d in 0..half_dim {
                            let angle = *position as usize * half_dim + d;
                            let (cos, sin) = (f64::from(cos[angle]), f64::from(sin[angle]));
                            let (a, b) = (f64::from(values[at + d]), f64::from(values[at + d + half_dim]));
                            rotated[at + d] = a * cos - b * sin;
                            rotated[at + d + half_dim] = b * cos + a * sin;
                        }
                    }
                }
                let what = format!("{num_rows} rows, head_dim {head_dim}, half_dim {half_dim}");
                check(&what, &rotated, 4e-7, |device| {
                    let table = RopeTable::new(device, cos.clone(), sin.clone(), half_dim).expect("a table");
                    let mut qkv = tensor(device, num_rows, layout.width(), &values);
                    rope(device, &mut qkv, layout, &positions, &table).expect("valid");
                    qkv.as_slice().to_vec()
                });
                check(&what, &normed, 4e-6, |device| {
                    let (q_weight, k_weight) = (vector(device, &q_weight), vector(device, &k_weight));
                    let mut qkv = tensor(device, num_rows, layout.width(), &values);
                    head_rms_norm(device, &mut qkv, layout, &q_weight, &k_weight, 1e-6).expect("valid");
                    qkv.as_slice().to_vec()
                });
            }
        }
    }

    #[test]
    fn gather_takes_rows_in_any_order_and_twice() {
        let device = device(Isa::detect(), 1);
        let x = tensor(&device, 3, 2, &[0.0, 1.0, 10.0, 11.0, 20.0, 21.0]);
        let mut out = poisoned(&device);
        gather_rows(&device, &x, &[2, 0, 2], &mut out).expect("valid");
        assert_eq!(out.as_slice(), [20.0, 21.0, 0.0, 1.0, 20.0, 21.0]);
        assert!(matches!(gather_rows(&device, &x, &[3], &mut out), Err(KernelError::OutOfRange { index: 3, .. })));
    }

    #[test]
    fn arguments_that_do_not_agree_are_named() {
        let device = device(Isa::detect(), 1);
        let mut out = Tensor::zeros(&device, 0, 0);
        let mut x = Tensor::zeros(&device, 2, 32);
        let weight = vector(&device, &[1.0; 31]);
        let error = rms_norm(&device, &x, &weight, 1e-5, &mut out).expect_err("31 weights");
        assert_eq!(error.to_string(), "rms_norm: length of weight is 31, expected 32");
        let other = Tensor::zeros(&device, 2, 33);
        assert!(add(&device, &mut x, &other).is_err());
        assert!(silu_mul(&device, &other, &mut out).is_err());
        let layout = HeadLayout { num_heads: 2, num_kv_heads: 1, head_dim: 8 };
        let table = RopeTable::new(&device, vec![1.0; 40], vec![0.0; 40], 4).expect("10 positions");
        let error = rope(&device, &mut x, layout, &[9, 10], &table).expect_err("10 positions only");
        assert_eq!(error.to_string(), "rope: position 10 at 1 is out of range, there are 10");
        let wide = RopeTable::new(&device, vec![1.0; 10], vec![0.0; 10], 5).expect("a table");
        assert!(rope(&device, &mut x, layout, &[0, 0], &wide).is_err());
        assert!(rope(&device, &mut x, layout, &[0], &table).is_err());
        let uneven = HeadLayout { num_heads: 3, num_kv_heads: 2, head_dim: 8 };
        let error = rope(&device, &mut x, uneven, &[0, 0], &table).expect_err("3 heads on 2");
        assert_eq!(error.to_string(), "rope: num_heads is 3, allowed: a multiple of num_kv_heads");
        assert!(RopeTable::new(&device, vec![1.0; 10], vec![0.0; 9], 5).is_err());
        assert!(RopeTable::new(&device, vec![1.0; 10], vec![0.0; 10], 3).is_err());
    }
}
