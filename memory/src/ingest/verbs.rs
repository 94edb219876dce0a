//! English verbs as far as rules need them: third person forms, and telling a present form from a past one.

/// Verbs that do not change with the person.
const INVARIANT: &[&str] = &[
    "can",
    "could",
    "will",
    "would",
    "shall",
    "should",
    "may",
    "might",
    "must",
    "ought",
    "cannot",
    "can't",
    "couldn't",
    "won't",
    "wouldn't",
    "shouldn't",
    "mustn't",
    "used",
    "did",
    "didn't",
    "had",
    "hadn't",
];
/// Irregular past forms that do not look like a present form.
const PAST: &[&str] = &[
    "was",
    "were",
    "had",
    "did",
    "went",
    "bought",
    "got",
    "made",
    "took",
    "saw",
    "met",
    "ate",
    "drank",
    "gave",
    "came",
    "became",
    "began",
    "broke",
    "brought",
    "built",
    "caught",
    "chose",
    "drew",
    "drove",
    "fell",
    "felt",
    "found",
    "flew",
    "forgot",
    "grew",
    "heard",
    "held",
    "kept",
    "knew",
    "left",
    "lent",
    "lost",
    "meant",
    "paid",
    "ran",
    "rode",
    "rose",
    "said",
    "sang",
    "sat",
    "sold",
    "sent",
    "slept",
    "spoke",
    "spent",
    "stood",
    "stole",
    "swam",
    "taught",
    "told",
    "thought",
    "threw",
    "understood",
    "woke",
    "wore",
    "won",
    "wrote",
    "led",
    "fed",
    "hid",
    "dealt",
    "shot",
    "wound",
    "wasn't",
    "weren't",
    "hadn't",
    "didn't",
];
/// Verbs that end in "ed" in the present.
const PRESENT_IN_ED: &[&str] = &[
    "need", "feed", "speed", "exceed", "proceed", "succeed", "bleed", "breed", "seed", "weed", "heed", "embed", "shed",
];
/// Words in "ly" that are no adverbs.
const NOT_ADVERBS: &[&str] =
    &["rely", "apply", "reply", "supply", "fly", "multiply", "comply", "imply", "rally", "tally", "bully"];
const ADVERBS: &[&str] = &[
    "always",
    "never",
    "often",
    "also",
    "still",
    "just",
    "only",
    "sometimes",
    "now",
    "already",
    "both",
    "quite",
    "even",
    "almost",
    "ever",
    "not",
    "very",
    "much",
    "soon",
    "once",
    "then",
    "rather",
    "kinda",
    "all",
    "either",
    "neither",
];
/// Base forms that are common in what people tell about themselves.
const BASE: &[&str] = &[
    "live",
    "work",
    "like",
    "love",
    "hate",
    "prefer",
    "enjoy",
    "dislike",
    "own",
    "drive",
    "speak",
    "play",
    "study",
    "teach",
    "use",
    "need",
    "want",
    "know",
    "think",
    "believe",
    "hope",
    "plan",
    "sit",
    "stay",
    "eat",
    "drink",
    "wake",
    "get",
    "go",
    "come",
    "run",
    "train",
    "report",
    "lead",
    "manage",
    "practise",
    "practice",
    "relax",
    "spend",
    "open",
    "enter",
    "meet",
    "celebrate",
    "choose",
    "bet",
    "answer",
    "earn",
    "see",
    "collect",
    "read",
    "write",
    "cook",
    "bake",
    "sleep",
    "travel",
    "commute",
    "keep",
    "take",
    "make",
    "wear",
    "watch",
    "listen",
    "learn",
    "grow",
    "attend",
    "visit",
    "swim",
    "ride",
    "paint",
    "sing",
    "dance",
    "code",
    "program",
    "sell",
    "buy",
    "pay",
    "call",
    "ask",
    "say",
    "tell",
    "give",
    "find",
    "feel",
    "look",
    "start",
    "stop",
    "begin",
    "finish",
    "leave",
    "move",
    "avoid",
    "suffer",
    "belong",
    "cost",
    "stand",
    "remember",
    "talk",
    "have",
    "be",
    "do",
    "help",
    "hold",
    "carry",
    "volunteer",
    "adore",
    "detest",
];

/// The form that "he" or "she" takes: "lives", "does", "carries".
pub(super) fn third_person(verb: &str) -> String {
    match verb {
        "am" | "are" | "be" => return "is".to_owned(),
        "have" => return "has".to_owned(),
        "haven't" => return "hasn't".to_owned(),
        "do" => return "does".to_owned(),
        "don't" => return "doesn't".to_owned(),
        "aren't" | "ain't" => return "isn't".to_owned(),
        "were" => return "was".to_owned(),
        "weren't" => return "wasn't".to_owned(),
        "is" | "has" | "does" => return verb.to_owned(),
        _ => {}
    }
    if is_invariant(verb) || is_past(verb) {
        return verb.to_owned();
    }
    let ends = |endings: &[&str]| endings.iter().any(|ending| verb.ends_with(ending));
    match verb.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'i', 'o', 'u']) && !stem.is_empty() => format!("{stem}ies"),
        _ if ends(&["s", "x", "z", "ch", "sh", "o"]) => format!("{verb}es"),
        _ => format!("{verb}s"),
    }
}

/// Whether it is a modal or another verb that is the same for every person.
pub(super) fn is_invariant(verb: &str) -> bool {
    INVARIANT.contains(&verb)
}

/// Whether the word is a past form.
pub(super) fn is_past(verb: &str) -> bool {
    PAST.contains(&verb)
        || (verb.len() > 3
            && verb.ends_with("ed")
            && !PRESENT_IN_ED.contains(&verb)
            && verb.chars().all(char::is_alphabetic))
}

/// Whether the word stands between a subject and its verb.
pub(super) fn is_adverb(word: &str) -> bool {
    ADVERBS.contains(&word)
        || (word.len() > 4 && word.ends_with("ly") && !NOT_ADVERBS.contains(&word) && word != "family")
}

/// Whether the word is a base form that is known.
pub(super) fn is_base(word: &str) -> bool {
    BASE.contains(&word)
}

/// The base form of a known verb in the third person: "likes" gives "like".
pub(super) fn base_of_third_person(word: &str) -> Option<&'static str> {
    BASE.iter().copied().find(|base| third_person(base) == word)
}

/// Whether the word makes a clause out of what stands before it: an auxiliary, a past form or a known verb.
pub(super) fn is_finite(word: &str) -> bool {
    let word = word.to_lowercase().replace('\u{2019}', "'");
    let auxiliary = matches!(
        word.as_str(),
        "is" | "am"
            | "are"
            | "has"
            | "have"
            | "does"
            | "do"
            | "isn't"
            | "aren't"
            | "hasn't"
            | "haven't"
            | "doesn't"
            | "don't"
            | "i'm"
            | "i've"
            | "i'll"
            | "i'd"
            | "it's"
            | "he's"
            | "she's"
            | "they're"
            | "we're"
            | "that's"
    );
    auxiliary || is_invariant(&word) || is_past(&word) || is_base(&word) || base_of_third_person(&word).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn third_persons_follow_spelling() {
        for (base, third) in [
            ("live", "lives"),
            ("study", "studies"),
            ("play", "plays"),
            ("go", "goes"),
            ("watch", "watches"),
            ("have", "has"),
            ("am", "is"),
            ("don't", "doesn't"),
            ("can", "can"),
            ("moved", "moved"),
            ("went", "went"),
            ("need", "needs"),
        ] {
            assert_eq!(third_person(base), third);
        }
        assert!(is_adverb("usually") && !is_adverb("apply") && !is_adverb("family"));
        assert_eq!(base_of_third_person("carries"), Some("carry"));
    }
}
