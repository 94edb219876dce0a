//! Which rows of a prompt are moved from segments, and which are computed.

use std::collections::HashMap;

use super::{Segment, SpliceError};

/// First tokens of a segment to compute again when nobody says otherwise, for segments computed behind the preamble of the
/// prompts that use them. In `memos bench splice --chats 200` the bundled model answers 90.5% exactly this way and 95.0% with the
/// full computation; more first tokens gain nothing. What is known once loses nothing (98.5%); where two lines disagree, 83.6%
/// instead of 94.0%: no line has seen the other.
pub const FIRST_TOKENS_DEFAULT: usize = 0;

/// A segment in a prompt.
#[derive(Debug, Clone, Copy)]
pub struct Placement<'a> {
    /// The segment.
    pub segment: &'a Segment,
    /// Position of its first token in the prompt.
    pub at: usize,
}

/// Neighbouring rows of one segment.
#[derive(Debug, Clone, Copy)]
pub struct MovedRows<'a> {
    /// Where they come from.
    pub segment: &'a Segment,
    /// First token of the segment that is moved.
    pub row: usize,
    /// Its position in the prompt.
    pub at: usize,
    /// How many.
    pub len: usize,
}

impl MovedRows<'_> {
    /// By how many positions they move.
    pub fn delta(&self) -> i64 {
        self.at as i64 - (self.segment.start() + self.row) as i64
    }
}

/// What is moved and what is computed; everything before `prefix_len` is in the pool already, exactly.
#[derive(Debug, Clone)]
pub struct SplicePlan<'a> {
    /// Tokens of the prompt.
    pub prompt_len: usize,
    /// Tokens that are in the pool already.
    pub prefix_len: usize,
    /// Rows that come from segments.
    pub moved: Vec<MovedRows<'a>>,
    /// Positions that are computed in any case, ascending; the last one is the prompt's last.
    pub computed: Vec<u32>,
    /// With selective recomputation: how many of the moved rows are computed through all layers after all.
    pub num_selected: Option<usize>,
}

impl SplicePlan<'_> {
    /// Rows that come from segments.
    pub fn num_moved(&self) -> usize {
        self.moved.iter().map(|rows| rows.len).sum()
    }
}

/// Plans a prompt whose first `prefix_len` tokens are in the pool already.
///
/// Of each segment the first `first_tokens` are computed again (EPIC, arXiv 2410.15332, section 4: they took the attention
/// that the beginning of a context draws). With `selective`, all rows pass the first layers and that share of the moved ones,
/// rounded up, all of them (CacheBlend, arXiv 2405.16444).
///
/// # Errors
/// [`SpliceError::EmptyPrompt`]; [`SpliceError::NotThere`] and [`SpliceError::Overlap`] for placements that do not fit;
/// [`SpliceError::Ratio`]; [`SpliceError::Mismatch`] for a prefix longer than the prompt.
pub fn plan_splice<'a>(
    prompt: &[u32],
    prefix_len: usize,
    placements: &[Placement<'a>],
    first_tokens: usize,
    selective: Option<f32>,
) -> Result<SplicePlan<'a>, SpliceError> {
    let prompt_len = prompt.len();
    if prompt_len == 0 {
        return Err(SpliceError::EmptyPrompt);
    }
    if prefix_len > prompt_len {
        return Err(SpliceError::Mismatch { what: "the cached prefix", expected: prompt_len, got: prefix_len });
    }
    if let Some(got) = selective.filter(|ratio| !(0.0..=1.0).contains(ratio)) {
        return Err(SpliceError::Ratio { got });
    }
    let mut is_moved = vec![false; prompt_len];
    let mut moved = Vec::new();
    let mut free_from = prefix_len;
    for (placement, &Placement { segment, at }) in placements.iter().enumerate() {
        let len = segment.tokens().len();
        if at < free_from {
            return Err(SpliceError::Overlap { placement, at, free_from });
        }
        let end = at.saturating_add(len);
        if prompt.get(at..end) != Some(segment.tokens()) {
            return Err(SpliceError::NotThere { placement, at, len, prompt_len });
        }
        free_from = end;
        // The last row gives the logits, so it is computed whatever it belongs to.
        let (first, end) = (at.saturating_add(first_tokens), end.min(prompt_len - 1));
        if first < end {
            is_moved[first..end].fill(true);
            moved.push(MovedRows { segment, row: first_tokens, at: first, len: end - first });
        }
    }
    let computed =
        (prefix_len.min(prompt_len - 1)..prompt_len).filter(|at| !is_moved[*at]).map(|at| at as u32).collect();
    let num_moved: usize = moved.iter().map(|rows| rows.len).sum();
    let num_selected = selective.map(|ratio| (f64::from(ratio) * num_moved as f64).ceil() as usize);
    Ok(SplicePlan { prompt_len, prefix_len, moved, computed, num_selected })
}

/// Finds segments in a prompt from `from` on: at each position the longest one that fits, then on behind it.
pub fn find_segments<'a>(prompt: &[u32], from: usize, segments: &'a [Segment]) -> Vec<Placement<'a>> {
    let mut by_first: HashMap<u32, Vec<&Segment>> = HashMap::new();
    for segment in segments {
        by_first.entry(segment.tokens()[0]).or_default().push(segment);
    }
    for candidates in by_first.values_mut() {
        candidates.sort_by_key(|segment| std::cmp::Reverse(segment.tokens().len()));
    }
    let mut placements = Vec::new();
    let mut at = from;
    while at < prompt.len() {
        let candidates = by_first.get(&prompt[at]).map_or(&[][..], Vec::as_slice);
        match candidates.iter().find(|segment| prompt[at..].starts_with(segment.tokens())) {
            Some(&segment) => {
                placements.push(Placement { segment, at });
                at += segment.tokens().len();
            }
            None => at += 1,
        }
    }
    placements
}
