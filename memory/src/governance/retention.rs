//! Retention: which memories are to be archived or erased because of their age. Pure: rules and facts in, an action out.

use serde::{Deserialize, Serialize};

use super::error::GovernanceError;
use crate::Timestamp;
use crate::item::{Item, ItemKind, LABEL_BYTES_MAX, NUM_LABELS_MAX, Scope};
use crate::lifecycle::ItemState;

/// Most rules of one cube: every memory is compared with each of them.
pub const NUM_RULES_MAX: usize = 256;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// What happens at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetentionAction {
    /// It is kept, but not searched.
    Archive,
    /// It is erased for good.
    Erase,
}

/// From when the age is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetentionStart {
    /// From its first version.
    #[default]
    Created,
    /// From its latest version.
    Changed,
}

/// One rule. What is empty or unset fits everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionRule {
    /// What it is called in the audit log.
    pub name: String,
    /// Kinds it is about.
    #[serde(default)]
    pub kinds: Vec<ItemKind>,
    /// Tags of which a memory must have one.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Scope that a memory must lie in.
    #[serde(default)]
    pub scope: Scope,
    /// From when the age is counted.
    #[serde(default)]
    pub start: RetentionStart,
    /// Age in days at which it is due.
    pub after_days: u32,
    /// What is done then.
    pub action: RetentionAction,
}

/// The rules of a cube, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedRules")]
pub struct RetentionRules {
    rules: Vec<RetentionRule>,
    at_expiry: RetentionAction,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedRules {
    #[serde(default)]
    rules: Vec<RetentionRule>,
    at_expiry: RetentionAction,
}

/// What retention has to know of a memory.
#[derive(Debug, Clone, Copy)]
pub struct ItemFacts<'item> {
    /// Its kind.
    pub kind: ItemKind,
    /// Its state.
    pub state: ItemState,
    /// Its tags.
    pub tags: &'item [String],
    /// Its scope.
    pub scope: &'item Scope,
    /// When its first version was recorded.
    pub created_at: Timestamp,
    /// When its latest version was recorded.
    pub recorded_at: Timestamp,
    /// Its own end, if it has one.
    pub expires_at: Option<Timestamp>,
    /// Whether a legal hold forbids every change.
    pub legal_hold: bool,
}

impl<'item> From<&'item Item> for ItemFacts<'item> {
    fn from(item: &'item Item) -> Self {
        Self {
            kind: item.kind,
            state: item.state,
            tags: &item.tags,
            scope: &item.scope,
            created_at: item.created_at,
            recorded_at: item.recorded_at,
            expires_at: item.expires_at,
            legal_hold: item.legal_hold,
        }
    }
}

/// What is due, and because of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due<'rules> {
    /// What is to be done.
    pub action: RetentionAction,
    /// The rule's name; `None` for the memory's own end.
    pub rule: Option<&'rules str>,
}

impl RetentionRules {
    /// Checks the rules. `at_expiry` is what happens to a memory at the end that it carries itself.
    ///
    /// # Errors
    /// There are too many rules, two have one name, or a name or tag is empty or too long.
    pub fn new(rules: Vec<RetentionRule>, at_expiry: RetentionAction) -> Result<Self, GovernanceError> {
        let limited = |field, actual: usize, limit: usize| match actual > limit {
            true => Err(GovernanceError::TooLarge { field, actual, limit }),
            false => Ok(()),
        };
        limited("the list of retention rules", rules.len(), NUM_RULES_MAX)?;
        for (index, rule) in rules.iter().enumerate() {
            limited("the name of a retention rule", rule.name.len(), LABEL_BYTES_MAX)?;
            limited("the list of tags of a retention rule", rule.tags.len(), NUM_LABELS_MAX)?;
            if rule.name.is_empty() || rules[..index].iter().any(|earlier| earlier.name == rule.name) {
                let (field, reason) = ("the name of a retention rule", "must not be empty or used twice");
                return Err(GovernanceError::InvalidField { field, reason });
            }
            for tag in &rule.tags {
                limited("a tag of a retention rule", tag.len(), LABEL_BYTES_MAX)?;
            }
        }
        Ok(Self { rules, at_expiry })
    }

    /// No rules; a memory is erased at the end that it carries itself.
    pub fn none() -> Self {
        Self { rules: Vec::new(), at_expiry: RetentionAction::Erase }
    }

    /// The rules.
    pub fn rules(&self) -> &[RetentionRule] {
        &self.rules
    }

    /// What happens to a memory at the end that it carries itself.
    pub fn at_expiry(&self) -> RetentionAction {
        self.at_expiry
    }

    /// What is due for the memory now: erasure before archiving, the first rule first. A legal hold wins over all.
    pub fn due(&self, now: Timestamp, facts: ItemFacts<'_>) -> Option<Due<'_>> {
        self.ends(facts).filter(|(end, _)| *end <= now).map(|(_, due)| due).reduce(more_urgent)
    }

    /// When something will first be due for the memory as it is now.
    pub fn next_due(&self, facts: ItemFacts<'_>) -> Option<Timestamp> {
        self.ends(facts).map(|(end, _)| end).min()
    }

    fn ends(&self, facts: ItemFacts<'_>) -> impl Iterator<Item = (Timestamp, Due<'_>)> {
        let own = facts.expires_at.map(|end| (end, Due { action: self.at_expiry, rule: None }));
        let by_rules = self.rules.iter().filter(move |rule| rule.concerns(&facts)).filter_map(move |rule| {
            let due = Due { action: rule.action, rule: Some(&rule.name) };
            rule.end(&facts).map(|end| (end, due))
        });
        let may = move |action| match action {
            RetentionAction::Erase => !facts.legal_hold,
            RetentionAction::Archive => !facts.legal_hold && facts.state.may_become(ItemState::Archived),
        };
        own.into_iter().chain(by_rules).filter(move |(_, due)| may(due.action))
    }
}

impl TryFrom<UncheckedRules> for RetentionRules {
    type Error = GovernanceError;

    fn try_from(unchecked: UncheckedRules) -> Result<Self, GovernanceError> {
        Self::new(unchecked.rules, unchecked.at_expiry)
    }
}

impl RetentionRule {
    fn concerns(&self, facts: &ItemFacts<'_>) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&facts.kind))
            && (self.tags.is_empty() || self.tags.iter().any(|tag| facts.tags.contains(tag)))
            && self.scope.contains(facts.scope)
    }

    /// `None` where the end lies beyond the years that there are: it never comes.
    fn end(&self, facts: &ItemFacts<'_>) -> Option<Timestamp> {
        let start = match self.start {
            RetentionStart::Created => facts.created_at,
            RetentionStart::Changed => facts.recorded_at,
        };
        Timestamp::from_unix_ms(start.unix_ms().saturating_add(i64::from(self.after_days) * DAY_MS))
    }
}

fn more_urgent<'rules>(first: Due<'rules>, second: Due<'rules>) -> Due<'rules> {
    if second.action > first.action { second } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(day: i64) -> Timestamp {
        Timestamp::from_unix_ms(day * DAY_MS).expect("a moment")
    }

    fn rule(name: &str, after_days: u32, action: RetentionAction) -> RetentionRule {
        let (kinds, tags, scope, start) = (Vec::new(), Vec::new(), Scope::default(), RetentionStart::Created);
        RetentionRule { name: name.to_owned(), kinds, tags, scope, start, after_days, action }
    }

    fn facts<'item>(tags: &'item [String], scope: &'item Scope) -> ItemFacts<'item> {
        ItemFacts {
            kind: ItemKind::Event,
            state: ItemState::Activated,
            tags,
            scope,
            created_at: moment(0),
            recorded_at: moment(5),
            expires_at: None,
            legal_hold: false,
        }
    }

    #[test]
    fn a_rule_is_due_at_its_age_and_erasure_comes_before_archiving() {
        let rules = vec![rule("old", 10, RetentionAction::Archive), rule("very old", 20, RetentionAction::Erase)];
        let rules = RetentionRules::new(rules, RetentionAction::Erase).expect("valid");
        let scope = Scope::default();
        let facts = facts(&[], &scope);
        assert_eq!(rules.due(moment(9), facts), None);
        assert_eq!(rules.due(moment(-9), facts), None, "a clock that went backwards makes nothing due");
        let archive = Due { action: RetentionAction::Archive, rule: Some("old") };
        assert_eq!(rules.due(moment(10), facts), Some(archive));
        let erase = Due { action: RetentionAction::Erase, rule: Some("very old") };
        assert_eq!(rules.due(moment(20), facts), Some(erase));
        assert_eq!(rules.next_due(facts), Some(moment(10)));
        let archived = ItemFacts { state: ItemState::Archived, ..facts };
        assert_eq!(rules.due(moment(10), archived), None, "what is archived is not archived again");
        assert_eq!(rules.next_due(archived), Some(moment(20)));
        let frozen = ItemFacts { state: ItemState::Frozen, ..facts };
        assert_eq!(rules.due(moment(30), frozen), Some(erase), "erasure reaches what is frozen");
    }

    #[test]
    fn a_legal_hold_wins_over_everything() {
        let rules = RetentionRules::new(vec![rule("all", 0, RetentionAction::Erase)], RetentionAction::Erase);
        let rules = rules.expect("valid");
        let scope = Scope::default();
        let free = ItemFacts { expires_at: Some(moment(1)), ..facts(&[], &scope) };
        assert!(rules.due(moment(100), free).is_some());
        let held = ItemFacts { legal_hold: true, ..free };
        assert_eq!(rules.due(moment(100), held), None);
        assert_eq!(rules.next_due(held), None);
    }

    #[test]
    fn filters_narrow_and_the_start_can_be_the_last_change() {
        let mut narrow = rule("narrow", 10, RetentionAction::Archive);
        narrow.kinds = vec![ItemKind::Event, ItemKind::Fact];
        narrow.tags = vec!["chat".to_owned(), "log".to_owned()];
        narrow.scope.user = Some("ann".to_owned());
        narrow.start = RetentionStart::Changed;
        let rules = RetentionRules::new(vec![narrow], RetentionAction::Archive).expect("valid");
        let (tags, ann) = (["log".to_owned()], Scope { user: Some("ann".to_owned()), ..Scope::default() });
        let fitting = facts(&tags, &ann);
        assert_eq!(rules.due(moment(14), fitting), None, "changed on day 5");
        assert!(rules.due(moment(15), fitting).is_some());
        assert!(rules.due(moment(15), ItemFacts { tags: &[], ..fitting }).is_none());
        assert!(rules.due(moment(15), ItemFacts { scope: &Scope::default(), ..fitting }).is_none());
        assert!(rules.due(moment(15), ItemFacts { kind: ItemKind::Skill, ..fitting }).is_none());
        let own_end = ItemFacts { expires_at: Some(moment(3)), tags: &[], ..fitting };
        assert_eq!(rules.due(moment(3), own_end), Some(Due { action: RetentionAction::Archive, rule: None }));
    }

    #[test]
    fn rules_have_limits_and_are_read_from_json() {
        let many = (0..=NUM_RULES_MAX).map(|index| rule(&index.to_string(), 1, RetentionAction::Erase)).collect();
        assert!(RetentionRules::new(many, RetentionAction::Erase).is_err());
        let twice = vec![rule("a", 1, RetentionAction::Erase), rule("a", 2, RetentionAction::Erase)];
        assert!(RetentionRules::new(twice, RetentionAction::Erase).is_err());
        let never = RetentionRules::new(vec![rule("never", u32::MAX, RetentionAction::Erase)], RetentionAction::Erase);
        assert_eq!(never.expect("valid").next_due(facts(&[], &Scope::default())), None);
        let json = r#"{"rules": [{"name": "chat", "tags": ["chat"], "after_days": 30, "action": "erase"}], "at_expiry": "archive"}"#;
        let read: RetentionRules = serde_json::from_str(json).expect("valid");
        assert_eq!(read.rules()[0].after_days, 30);
        assert!(serde_json::from_str::<RetentionRules>(&json.replace("chat\",", "\",")).is_err(), "an empty name");
        assert!(serde_json::from_str::<RetentionRules>(&json.replace("30", "-1")).is_err());
    }
}
