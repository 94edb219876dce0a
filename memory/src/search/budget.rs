//! The token budget: what of a ranking fits into the prompt.

use super::Row;

/// A row that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Which memory.
    pub row: Row,
    /// Tokens it takes.
    pub num_tokens: usize,
}

/// What of a ranking fits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cut {
    /// In the order of the ranking.
    pub kept: Vec<Kept>,
    /// What did not fit, with the tokens it would have taken.
    pub left_out: Vec<Kept>,
    /// Tokens of all that is kept.
    pub num_tokens: usize,
}

/// Keeps each result, in order, that fits into what the ones before it left of the budget. A result that does not fit
/// does not end it: a shorter one after it may still be kept.
///
/// `count_tokens` counts a result as it is rendered, with its bullet and line break, so that the sum is what the prompt
/// grows by.
pub fn cut_to_budget<'a>(
    ranking: impl IntoIterator<Item = (Row, &'a str)>,
    budget_tokens: usize,
    count_tokens: impl Fn(&str) -> usize,
) -> Cut {
    let mut cut = Cut::default();
    for (row, text) in ranking {
        let kept = Kept { row, num_tokens: count_tokens(text) };
        if kept.num_tokens <= budget_tokens - cut.num_tokens {
            cut.num_tokens += kept.num_tokens;
            cut.kept.push(kept);
        } else {
            cut.left_out.push(kept);
        }
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shorter_results_take_the_room_that_longer_ones_could_not() {
        let ranking = [(Row(1), "aaaa"), (Row(2), "aaaaaaa"), (Row(3), "aaa"), (Row(4), "a"), (Row(5), "")];
        let cut = cut_to_budget(ranking, 7, str::len);
        assert_eq!(cut.kept.iter().map(|kept| kept.row.0).collect::<Vec<_>>(), [1, 3, 5]);
        assert_eq!(cut.left_out, [Kept { row: Row(2), num_tokens: 7 }, Kept { row: Row(4), num_tokens: 1 }]);
        assert_eq!(cut.num_tokens, 7);
    }

    #[test]
    fn no_budget_and_endless_texts_keep_nothing() {
        let cut = cut_to_budget([(Row(1), "a"), (Row(2), "b")], 0, |_| usize::MAX);
        assert_eq!((cut.kept.len(), cut.left_out.len(), cut.num_tokens), (0, 2, 0));
        assert_eq!(cut_to_budget([(Row(1), "a")], usize::MAX, |_| usize::MAX).kept.len(), 1);
    }
}
