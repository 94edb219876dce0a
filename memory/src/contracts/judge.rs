//! The contract of a judge: it never ends the truth of a memory that can stand beside the newer one.

use super::require;
use crate::Timestamp;
use crate::ingest::{Claim, Judge, Verdict};

/// Checks a judge. `contradiction` is an older and a newer statement of which it is to say that they contradict each other.
///
/// # Errors
/// The first rule that does not hold.
pub fn check_judge(judge: &dyn Judge, contradiction: (&str, &str)) -> Result<(), String> {
    let (older, newer) = (claim(contradiction.0), claim(contradiction.1));
    let verdict = ask(judge, &older, &newer)?;
    require(verdict == Verdict::Contradicts, || {
        format!("{contradiction:?} contradict each other, but the verdict is {}", verdict.as_str())
    })?;
    check_times(judge, &older, &newer)?;
    // Each of these can be true beside the other. To call them a contradiction would lose the first one.
    let compatible = [
        ("Anna lives in Oslo.", "Bob lives in Bergen."),
        ("Anna likes tea.", "Anna likes coffee."),
        ("Anna lives in Oslo.", "Anna works in Bergen."),
        ("The lab code is 4417.", "The meeting is at noon."),
        (contradiction.0, "Water boils at 100 degrees at sea level."),
    ];
    for (one, two) in compatible {
        for (one, two) in [(one, two), (two, one)] {
            let verdict = ask(judge, &claim(one), &claim(two))?;
            require(!matches!(verdict, Verdict::Contradicts | Verdict::Same), || {
                format!("{one:?} and {two:?} can both be true, but the verdict is {}", verdict.as_str())
            })?;
        }
    }
    for text in [contradiction.0, contradiction.1, "a", "東京は日本の首都です。", "'; DROP TABLE items; --"]
    {
        let verdict = ask(judge, &claim(text), &claim(text))?;
        require(matches!(verdict, Verdict::Same | Verdict::Unknown | Verdict::Compatible), || {
            format!("{text:?} does not contradict itself, but the verdict is {}", verdict.as_str())
        })?;
    }
    Ok(())
}

/// What was true until a moment does not contradict what is true from then on.
fn check_times(judge: &dyn Judge, older: &Claim, newer: &Claim) -> Result<(), String> {
    let moment = newer.recorded_at;
    let older = Claim { valid_to: Some(moment), ..older.clone() };
    let newer = Claim { valid_from: Some(moment), ..newer.clone() };
    let verdict = ask(judge, &older, &newer)?;
    require(verdict != Verdict::Contradicts, || {
        format!("{:?} ends when {:?} begins, so they do not contradict each other", older.text, newer.text)
    })
}

fn claim(text: &str) -> Claim {
    let recorded_at = Timestamp::from_unix_ms(1_780_000_000_000).expect("a moment of 2026: this is a bug");
    Claim { text: text.to_owned(), valid_from: None, valid_to: None, recorded_at }
}

/// The verdict, which is the same every time.
fn ask(judge: &dyn Judge, older: &Claim, newer: &Claim) -> Result<Verdict, String> {
    let asked = || judge.judge(older, newer).map_err(|error| format!("{:?} is sound, but fails: {error}", older.text));
    let (first, second) = (asked()?, asked()?);
    require(first == second, || {
        let (first, second) = (first.as_str(), second.as_str());
        format!("a judge is of one mind, but of {:?} and {:?} it says {first}, then {second}", older.text, newer.text)
    })?;
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{IngestError, RuleJudge};

    struct Always(Verdict);

    impl Judge for Always {
        fn judge(&self, _older: &Claim, _newer: &Claim) -> Result<Verdict, IngestError> {
            Ok(self.0)
        }
    }

    /// Sound but for the times.
    struct Timeless;

    impl Judge for Timeless {
        fn judge(&self, older: &Claim, newer: &Claim) -> Result<Verdict, IngestError> {
            let timeless = |claim: &Claim| Claim { valid_from: None, valid_to: None, ..claim.clone() };
            RuleJudge.judge(&timeless(older), &timeless(newer))
        }
    }

    #[test]
    fn each_broken_rule_is_found_and_the_rules_own_judge_passes() {
        let pair = ("Anna lives in Oslo.", "Anna lives in Bergen.");
        assert_eq!(check_judge(&RuleJudge, pair), Ok(()));
        for verdict in Verdict::ALL {
            assert!(check_judge(&Always(verdict), pair).is_err(), "{verdict:?} is not always right");
        }
        assert!(check_judge(&Timeless, pair).is_err_and(|rule| rule.contains("ends when")));
    }
}
