//! What a language model says of new memories and known ones, asked before the transaction that adds them: no lock is held
//! while a model thinks.

use std::collections::HashMap;

use super::MemoriesError;
use super::add::{Contradictions, claim};
use super::index::to_item_row;
use super::mounted::MountedCube;
use crate::ItemId;
use crate::governance::Allowed;
use crate::ingest::{Claim, Judge, ModelJudge, RuleJudge, Verdict};
use crate::item::{Item, NewItem};

/// Most pairs that a model is asked about for one addition; of those beyond it the rules alone decide.
const NUM_JUDGED_MAX: usize = 32;

/// Verdicts by the place of the new memory and the known one, with the version that it had.
#[derive(Debug, Default)]
pub(super) struct Judged(HashMap<(usize, ItemId), (u64, Verdict)>);

impl Judged {
    /// What was said of a new memory and this one, if it is still what it was.
    pub(super) fn verdict(&self, new: usize, old: &Item) -> Option<Verdict> {
        self.0
            .get(&(new, old.id))
            .filter(|(version, _verdict)| *version == old.version)
            .map(|(_version, verdict)| *verdict)
    }
}

/// Asks about the pairs that the rules do not understand, where that is wanted.
///
/// # Errors
/// There is no model, or it failed and the rules are not to stand in for it.
pub(super) fn ask(
    cube: &MountedCube,
    allowed: &Allowed,
    items: &[NewItem],
    wanted: Contradictions,
) -> Result<Judged, MemoriesError> {
    let mut judged = Judged::default();
    if !matches!(wanted, Contradictions::Judge | Contradictions::JudgeOrSupersede) {
        return Ok(judged);
    }
    let model = cube.shared().language_model.get().ok_or(MemoriesError::NoLanguageModel)?;
    let judge = ModelJudge::new(&**model);
    let mut num_asked = 0;
    for (index, new) in items.iter().enumerate() {
        let (valid_from, valid_to) = (new.valid_from, new.valid_to);
        let newer = Claim { text: new.text.clone(), valid_from, valid_to, recorded_at: cube.now() };
        for old in comparable(cube, allowed, new)? {
            let older = claim(&old);
            if num_asked >= NUM_JUDGED_MAX || RuleJudge.judge(&older, &newer)? != Verdict::Unknown {
                continue;
            }
            num_asked += 1;
            match judge.judge(&older, &newer) {
                Ok(verdict) => drop(judged.0.insert((index, old.id), (old.version, verdict))),
                // A model that fails once is not asked again and again.
                Err(_failure) if wanted == Contradictions::JudgeOrSupersede => return Ok(judged),
                Err(failure) => return Err(failure.into()),
            }
        }
    }
    Ok(judged)
}

fn comparable(cube: &MountedCube, allowed: &Allowed, new: &NewItem) -> Result<Vec<Item>, MemoriesError> {
    let rows = cube.similar_rows(new);
    cube.read(|reader| {
        let mut items = Vec::new();
        for row in rows {
            items.extend(reader.get_row(to_item_row(row))?.filter(|item| cube.is_comparable(item, new, allowed)));
        }
        Ok(items)
    })
}
