//! Which sentences of a turn are worth keeping, and what of them: openings go, statements stay, questions and small talk do not.

use super::patterns::pattern;
use super::person::capitalised;
use super::verbs::is_finite;

// Openings that carry nothing: they are taken off again and again, for people pile them up.
pattern!(
    OPENING,
    r"(?ix)^(?:
      (?:please[\ ,]+|pls[\ ,]+|can\ you\ +|could\ you\ +)?(?:remember|note|save|store|memori[sz]e|keep\ in\ mind|don'?t\ forget)
        (?:\ (?:this|that|these|the\ following|for\ me|for\ later))*\s*(?:[:,–—-]\s*|\ (?:that\ )?)
     | (?:(?:and|but|so|oh)\ )?(?:by\ the\ way|btw\b)\s*[:,–—-]?\s* | fyi\b\s*[:,–—-]?\s* | for\ your\ information\s*[:,–—-]?\s*
     | for\ the\ record\s*[:,–—-]?\s* | just\ so\ you\ know\s*[:,–—-]?\s* | so\ you\ know\s*[:,–—-]\s* | nb\s*[:]\s*
     | (?:one|another)\ (?:more\ )?thing\s*[:,–—-]\s* | (?:ps|p\.s\.)\s*[:,–—-]?\s+ | (?:small\ |quick\ )?(?:note|update|correction|reminder|info)\s*[:–—-]\s*
     | (?:i\ (?:want|need|would\ like|'d\ like)|i'd\ like)\ you\ to\ (?:know|remember|note)\ (?:that\ )?
     | you\ should\ (?:know|remember)\ (?:that\ )? | we\ know\ that\ | it\ is\ true\ that\ | as\ (?:i|you)\ (?:said|know|mentioned)(?:\ before)?\s*,\s*
     | (?:hi|hello|hey|good\ (?:morning|evening|afternoon))(?:\ (?:there|again|everyone|all|memos))?\s*[!,.–—-]+\s+
     | (?:okay|ok|well|so|and|also|oh|ah|hm+|yes|yeah|yep|no|nope|sure|right|great|thanks|thank\ you|actually|anyway|sorry|look|listen|in\ fact|basically|honestly|wow|cool|nice|perfect)\s*[,!.–—-]+\s+
     | (?:and|but|so|because|also)\ (?:(?:my|i|i'm|our|we)\ )
    )"
);
pattern!(
    QUESTION,
    r"(?ix)^(?:and\ |but\ |so\ |then\ )?(?:
      (?:what|who|where|when|why|how|which|whose|whom)(?:'s|'re|’s)?\ (?:(?:else|exactly|about|on\ earth)\ )?
        (?:is|are|am|was|were|do|does|did|can|could|will|would|should|shall|may|has|have|had|many|much|often|long|far|old|big|come|to)\b
     | (?:what|who|where|how)(?:'s|’s)\b
     | (?:which|what|whose|at\ what|in\ which|on\ which|for\ whom)\ [\w'’-]+(?:\ [\w'’-]+)?\ (?:is|are|am|was|were|do|does|did|can|will|should|has|have)\b
     | what\ about\b | how\ about\b
     | (?:is|are|am|was|were|do|does|did|can|could|will|would|should|shall|has|have|isn't|aren't|don't|doesn't|didn't|can't|won't)\ (?:i|you|we|they|he|she|it|there|this|that|these|those|the|a|an|my|your|our|his|her|their|anyone|somebody|someone)\b
     | i\ (?:wonder|(?:would|'d)\ like\ to\ know|want\ to\ know|need\ to\ know|forgot|forget|can't\ remember|cannot\ remember|don't\ (?:know|remember))\b
     | (?:do|any)\ (?:you|idea)\b
    )"
);
pattern!(
    REQUEST,
    r"(?ix)^(?:please[\ ,]+|pls\ |kindly\ |now\ |then\ |just\ |quick\ question\s*[:,]?\s*)*(?:
      (?:tell|give|show|write|explain|describe|summari[sz]e|translate|find|help|make|create|list|draft|fix|generate|compare|calculate|compute|convert|rewrite|rephrase|improve|check|review|suggest|recommend|search|look\ up|print|repeat|continue|start|stop|answer|ask|try|add|remove|delete|change|set|open|close|send|read|compose|introduce|define|classify|extract|sort|plan|design|implement|debug|refactor|run|test|imagine|act\ as|pretend|guess|forget|ignore|wait|go\ on|go\ ahead|think|proofread|outline|prove|solve|elaborate)\ 
     | let\ me\ know\b | let\ us\b | let's\b | remind\ me\ (?:of|about|what|who|where|how|which)\b
     | i\ (?:want|need|would\ like|'d\ like)\ you\ to\b | i'd\ like\ you\ to\b | (?:do\ not|don't)\ (?:worry|bother|do|tell)\b
     | (?:can|could|would|will)\ you\b | help\b
    )"
);
pattern!(ALWAYS, r"(?i)^(?:please,? |from now on,? )*(always|never) ([a-z]+(?: .*))$");
pattern!(CALL_ME, r"(?i)^(?:please,? |you can |you may |just )*call me ([^\d@].*?)[.!]*$");
pattern!(CALL_ON, r"(?i)^(?:please,? |you can |just )*call me (?:on|at) (\+?\d[\d /.-]{3,}\d)[.!]*$");
pattern!(REMIND_TO, r"(?i)^(?:please,? )?remind me to (.*)$");
pattern!(TAG_QUESTION, r"(?i),\s*(?:right|ok|okay|you know|isn't it|remember|correct)\s*\?$");
pattern!(
    MOOD,
    r"(?i)^(?:i|we)(?:'m| am| are|'re) (?:here|back|ready|done|fine|good|ok|okay|sorry|sure|not sure|happy to hear.*|glad.*)[.!]*$"
);
pattern!(COLON_FACT, r"^[^:]{2,80}:\s*\S");

/// Words of which small talk consists: a sentence of nothing else is none to keep.
const SMALL_TALK: &[&str] = &[
    "hi",
    "hello",
    "hey",
    "there",
    "good",
    "morning",
    "evening",
    "afternoon",
    "night",
    "day",
    "thanks",
    "thank",
    "you",
    "very",
    "much",
    "so",
    "a",
    "lot",
    "great",
    "ok",
    "okay",
    "cool",
    "nice",
    "perfect",
    "awesome",
    "fine",
    "all",
    "right",
    "alright",
    "sure",
    "yes",
    "no",
    "yeah",
    "yep",
    "nope",
    "bye",
    "goodbye",
    "see",
    "later",
    "soon",
    "cheers",
    "please",
    "that",
    "is",
    "that's",
    "it",
    "it's",
    "i",
    "got",
    "understand",
    "understood",
    "noted",
    "welcome",
    "wow",
    "haha",
    "lol",
    "for",
    "your",
    "help",
    "the",
    "this",
    "works",
    "sounds",
    "well",
    "done",
    "amazing",
    "exactly",
    "indeed",
    "correct",
    "true",
    "agree",
    "agreed",
    "really",
    "oh",
    "ah",
    "hm",
    "hmm",
    "too",
    "again",
    "memos",
    "now",
    "as",
    "always",
    "take",
    "care",
    "my",
    "friend",
    "everyone",
    "me",
    "was",
    "helpful",
    "useful",
    "will",
    "do",
    "how",
    "are",
    "what",
    "don't",
];

/// What is worth keeping of a sentence that a person said, in that person's words; `None` for questions, requests,
/// greetings and acknowledgements.
pub(super) fn worth_keeping(sentence: &str) -> Option<String> {
    let mut rest = sentence.trim().replace('\u{2019}', "'");
    if let Some(tag) = TAG_QUESTION.find(&rest) {
        rest.replace_range(tag.start().., ".");
    }
    if is_question_mark(&rest) {
        return None;
    }
    if let Some(kept) = standing_wish(&rest) {
        return Some(kept);
    }
    // Bounded: each round takes off at least one character, and nobody opens a sentence eight times.
    for _ in 0..8 {
        let Some(opening) = OPENING.find(&rest) else { break };
        // Conjunctions are matched together with the pronoun after them, which stays.
        let matched = opening.as_str();
        let lower = matched.to_lowercase();
        let pronoun =
            ["my ", "i ", "i'm ", "our ", "we "].iter().find(|pronoun| lower.ends_with(&format!(" {pronoun}")));
        let end = opening.end() - pronoun.map_or(0, |pronoun| pronoun.len());
        // "Note" and "store" also begin sentences about notes and stores: a colon or "that" tells the two apart.
        if end == 0 || matches!(lower.as_str(), "note " | "save " | "store ") {
            break;
        }
        rest = rest[end..].trim_start().to_owned();
    }
    if let Some(kept) = standing_wish(&rest) {
        return Some(kept);
    }
    if rest.is_empty() || QUESTION.is_match(&rest) || REQUEST.is_match(&rest) || MOOD.is_match(&rest) {
        return None;
    }
    (!is_small_talk(&rest) && says_something(&rest)).then(|| capitalised(&rest))
}

/// Wishes about how to be treated are told as commands, and are kept as what the user wants.
fn standing_wish(sentence: &str) -> Option<String> {
    if let Some(found) = CALL_ON.captures(sentence) {
        return Some(format!("I can be called on {}.", &found[1]));
    }
    if let Some(found) = CALL_ME.captures(sentence) {
        let name = &found[1];
        let lower = name.to_lowercase();
        let is_other = ["at ", "on ", "when ", "if ", "back", "tomorrow", "later", "in ", "tonight", "now"];
        let is_name = name.split_whitespace().count() <= 3 && !is_other.iter().any(|start| lower.starts_with(start));
        return is_name.then(|| format!("I want to be called {name}."));
    }
    if let Some(found) = ALWAYS.captures(sentence) {
        let (how, rest) = (found[1].to_lowercase(), &found[2]);
        let negation = if how == "never" { "never to" } else { "to always" };
        let first = rest.split_whitespace().next().unwrap_or_default().to_lowercase();
        let is_command = first != "mind" && !first.ends_with("ed") && !first.ends_with("ing");
        return is_command.then(|| format!("I want the assistant {negation} {rest}"));
    }
    REMIND_TO.captures(sentence).map(|found| format!("I want to be reminded to {}", &found[1]))
}

fn is_question_mark(sentence: &str) -> bool {
    let end = sentence.trim_end_matches(['"', '”', '\'', ')', '!', ' ', '」', '.']);
    let asks = end.ends_with(['?', '？', '؟', '⁇', '‽']);
    // Japanese and Chinese questions may end in a particle and a full stop.
    let stem = sentence.trim_end_matches(['。', '.', ' ']);
    asks || stem.ends_with("ですか") || stem.ends_with("ますか") || stem.ends_with('吗') || stem.ends_with('嗎')
}

fn is_small_talk(sentence: &str) -> bool {
    let mut words = sentence
        .split(|character: char| !character.is_alphanumeric() && character != '\'')
        .filter(|word| !word.is_empty())
        .peekable();
    words.peek().is_none() || words.all(|word| SMALL_TALK.contains(&word.to_lowercase().as_str()))
}

/// Whether there is a statement in it: a verb and something beside it, `name: value`, or text in a script whose verbs
/// are not known here.
fn says_something(sentence: &str) -> bool {
    if sentence.chars().any(|character| character.is_alphabetic() && !is_latin(character)) {
        return sentence.chars().filter(|character| character.is_alphanumeric()).count() >= 3;
    }
    let words: Vec<&str> = sentence.split_whitespace().collect();
    let is_word = |word: &&&str| word.chars().any(char::is_alphanumeric);
    let num_words = words.iter().filter(is_word).count();
    let bare =
        |word: &str| word.trim_matches(|character: char| !character.is_alphanumeric() && character != '\'').to_owned();
    let has_verb = words.iter().any(|word| is_finite(&bare(word)));
    // A name before a verb that no list knows: "Omar juggles". Three words and no verb at all is still a note.
    (num_words >= 2 && has_verb) || num_words >= 4 || (num_words >= 2 && COLON_FACT.is_match(sentence))
}

fn is_latin(character: char) -> bool {
    matches!(character, 'a'..='z' | 'A'..='Z' | '\u{aa}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_requests_greetings_and_acknowledgements_are_not_kept() {
        for said in [
            "What is my code?",
            "what's my name",
            "Where do I live?",
            "Do you know my code",
            "Hello there!",
            "Thanks a lot!",
            "Good morning",
            "OK",
            "Okay, great.",
            "I see.",
            "Tell me a joke.",
            "Please give me my code.",
            "Remind me of my code.",
            "I forgot my code.",
            "I would like to know my code.",
            "Can you help me with this",
            "Write a poem about tea.",
            "That is all.",
            "See you later.",
            "My code?",
            "Bye",
            "你好吗？",
            "お元気ですか。",
            "👍",
            "...",
            "",
            "Which colour do I like best",
            "Let me know what you think.",
            "I want you to write a story.",
            "Could you tell me my code",
            "أين تسكن؟",
            "In which room do I sit?",
            "Great, thanks.",
            "I'm fine.",
            "Got it.",
            "Is my code 12",
        ] {
            assert_eq!(worth_keeping(said), None, "{said:?}");
        }
    }

    #[test]
    fn openings_go_and_the_statement_stays() {
        for (said, kept) in [
            ("Please remember: my code is 12.", "My code is 12."),
            ("By the way, I live in Oslo.", "I live in Oslo."),
            ("FYI: the safe opens with 4471.", "The safe opens with 4471."),
            ("Just so you know: my room is 4.", "My room is 4."),
            ("Remember this: Anna's code is 9.", "Anna's code is 9."),
            ("Remember that Anna's code is 9.", "Anna's code is 9."),
            ("Note: Anna's code is 9.", "Anna's code is 9."),
            ("Hi! I am Anna Berg.", "I am Anna Berg."),
            ("Oh, and by the way, my dog is called Rex!", "My dog is called Rex!"),
            ("Actually, it is now 5512.", "It is now 5512."),
            ("And my phone number is 555-1234.", "My phone number is 555-1234."),
            ("No, my code is 5512.", "My code is 5512."),
            ("Correction: my code is 5512.", "My code is 5512."),
            ("I live in Oslo, you know?", "I live in Oslo."),
            ("When I moved to Oslo, I was ten.", "When I moved to Oslo, I was ten."),
            ("My code: 4471", "My code: 4471"),
            ("Call me Sam.", "I want to be called Sam."),
            ("Always answer in French.", "I want the assistant to always answer in French."),
            ("Remind me to call Anna tomorrow.", "I want to be reminded to call Anna tomorrow."),
            ("我住在奥斯陆。", "我住在奥斯陆。"),
            ("Will Smith owns the boat.", "Will Smith owns the boat."),
            ("Soup is what I like.", "Soup is what I like."),
            ("We know that Anna's code is 9.", "Anna's code is 9."),
        ] {
            assert_eq!(worth_keeping(said).as_deref(), Some(kept), "{said:?}");
        }
    }
}
