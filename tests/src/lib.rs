//! What the integration tests share: stored references, a bare paged model, and a small driver over scheduler and model.
//!
//! Nothing depends on this crate. The tests themselves are in `tests/`, the end-to-end tests in `e2e/`.
#![forbid(unsafe_code)]

pub mod driver;
pub mod paged_model;
pub mod reference_case;
pub mod skip;

/// Index of the largest logit; the first of equals.
///
/// # Panics
/// When there are no logits.
pub fn argmax(logits: &[f32]) -> u32 {
    assert!(!logits.is_empty(), "no logits to choose from");
    let best = (1..logits.len()).fold(0, |best, token| if logits[token] > logits[best] { token } else { best });
    best as u32
}

/// Whether two rows of logits are the same bits; `-0.0` and `0.0` are not, and a NaN is never accepted.
pub fn same_bits(left: &[f32], right: &[f32]) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(l, r)| l.to_bits() == r.to_bits() && !l.is_nan())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_with_other_bits_are_told_apart() {
        assert!(same_bits(&[1.0, 0.0], &[1.0, 0.0]));
        assert!(!same_bits(&[0.0], &[-0.0]));
        assert!(!same_bits(&[1.0], &[f32::from_bits(1.0f32.to_bits() + 1)]));
        assert!(!same_bits(&[f32::NAN], &[f32::NAN]));
        assert!(!same_bits(&[1.0], &[1.0, 1.0]));
    }

    #[test]
    fn the_first_of_equal_logits_wins() {
        assert_eq!(argmax(&[0.5, 2.0, 2.0, -1.0]), 1);
    }
}
