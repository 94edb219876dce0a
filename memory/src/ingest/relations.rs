//! Relations that statements name: their nouns, the verbs that say the same, and how many values each may have at once.

/// How many values a subject can have of a relation at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cardinality {
    /// One: another value replaces it.
    One,
    /// Any number: values stand beside each other.
    Many,
}

/// What a verb says about the time of its statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VerbSense {
    /// It is so.
    Is,
    /// It was so.
    Was,
    /// It is so of nothing like that: "hates" against "likes".
    IsNot,
}

/// Nouns of one relation, the first one its name; and whether it never changes in a life.
struct Noun {
    names: &'static [&'static str],
    cardinality: Cardinality,
    lasting: bool,
}

const fn one(names: &'static [&'static str]) -> Noun {
    Noun { names, cardinality: Cardinality::One, lasting: false }
}

const fn lasting(names: &'static [&'static str]) -> Noun {
    Noun { names, cardinality: Cardinality::One, lasting: true }
}

const fn many(names: &'static [&'static str]) -> Noun {
    Noun { names, cardinality: Cardinality::Many, lasting: false }
}

const NOUNS: &[Noun] = &[
    one(&["home city", "city", "home town", "hometown", "home", "residence", "town", "city of residence"]),
    one(&["job", "profession", "occupation", "job title", "position"]),
    one(&["employer", "company", "workplace"]),
    one(&["manager", "boss", "supervisor", "line manager"]),
    one(&["partner", "spouse", "wife", "husband", "fiancé", "fiancée", "girlfriend", "boyfriend"]),
    lasting(&["birthday", "date of birth", "birth date"]),
    lasting(&["birthplace", "place of birth"]),
    lasting(&["native language", "mother tongue", "first language"]),
    lasting(&["mother", "mum", "mom"]),
    lasting(&["father", "dad"]),
    lasting(&["blood type", "blood group"]),
    lasting(&["birth year", "year of birth"]),
    one(&["meeting day", "day of the meeting", "meeting"]),
    one(&["wake-up time", "alarm time"]),
    one(&["access code", "entry code"]),
    one(&["door code", "code"]),
    one(&["room", "room number"]),
    one(&["car", "vehicle"]),
    one(&["phone number", "telephone number", "phone", "telephone"]),
    one(&["email address", "email", "e-mail", "e-mail address"]),
    one(&["dentist", "dentist's name"]),
    one(&["location", "place"]),
    one(&["colour"]),
    one(&["deadline", "due date"]),
    one(&["price", "cost"]),
    one(&["opening time"]),
    one(&["favourite colour", "preferred colour"]),
    one(&["favourite food", "favourite dish"]),
    one(&["favourite number", "lucky number"]),
    many(&["sport"]),
    many(&["pet"]),
    many(&["dog"]),
    many(&["cat"]),
    many(&["language"]),
    many(&["allergy"]),
    many(&["hobby", "pastime"]),
    many(&["instrument"]),
    many(&["sister"]),
    many(&["brother"]),
    many(&["sibling"]),
    many(&["child", "kid"]),
    many(&["son"]),
    many(&["daughter"]),
    many(&["friend"]),
    many(&["cousin"]),
    many(&["uncle"]),
    many(&["aunt"]),
    many(&["neighbour"]),
    many(&["colleague", "coworker", "co-worker"]),
    many(&["skill"]),
    many(&["nickname"]),
    many(&["goal"]),
    many(&["wish"]),
    many(&["member"]),
    many(&["author"]),
    many(&["ingredient"]),
];

/// Verb phrases and the relation that they state, longer ones before those that they contain.
pub(super) const VERBS: &[(&str, &str, VerbSense)] = &[
    ("lives together with", "partner", VerbSense::Is),
    ("live together with", "partner", VerbSense::Is),
    ("is married to", "partner", VerbSense::Is),
    ("is engaged to", "partner", VerbSense::Is),
    ("was married to", "partner", VerbSense::Was),
    ("lives in", "home city", VerbSense::Is),
    ("live in", "home city", VerbSense::Is),
    ("is living in", "home city", VerbSense::Is),
    ("resides in", "home city", VerbSense::Is),
    ("is based in", "home city", VerbSense::Is),
    ("has moved to", "home city", VerbSense::Is),
    ("moved to", "home city", VerbSense::Is),
    ("relocated to", "home city", VerbSense::Is),
    ("has a flat in", "home city", VerbSense::Is),
    ("lived in", "home city", VerbSense::Was),
    ("works as", "job", VerbSense::Is),
    ("work as", "job", VerbSense::Is),
    ("is employed as", "job", VerbSense::Is),
    ("earns a living as", "job", VerbSense::Is),
    ("earn a living as", "job", VerbSense::Is),
    ("worked as", "job", VerbSense::Was),
    ("works on project", "project", VerbSense::Is),
    ("leads project", "project", VerbSense::Is),
    ("works under", "manager", VerbSense::Is),
    ("reports to", "manager", VerbSense::Is),
    ("report to", "manager", VerbSense::Is),
    ("reported to", "manager", VerbSense::Was),
    ("is managed by", "manager", VerbSense::Is),
    ("works for", "employer", VerbSense::Is),
    ("work for", "employer", VerbSense::Is),
    ("works at", "employer", VerbSense::Is),
    ("work at", "employer", VerbSense::Is),
    ("has a contract with", "employer", VerbSense::Is),
    ("is paid by", "employer", VerbSense::Is),
    ("is employed by", "employer", VerbSense::Is),
    ("worked for", "employer", VerbSense::Was),
    ("worked at", "employer", VerbSense::Was),
    ("was born on", "birthday", VerbSense::Is),
    ("has a birthday on", "birthday", VerbSense::Is),
    ("celebrates a birthday on", "birthday", VerbSense::Is),
    ("was born in", "birthplace", VerbSense::Is),
    ("comes from", "birthplace", VerbSense::Is),
    ("come from", "birthplace", VerbSense::Is),
    ("grew up in", "birthplace", VerbSense::Is),
    ("has a meeting every", "meeting day", VerbSense::Is),
    ("meets the team on", "meeting day", VerbSense::Is),
    ("wakes up at", "wake-up time", VerbSense::Is),
    ("wake up at", "wake-up time", VerbSense::Is),
    ("gets up at", "wake-up time", VerbSense::Is),
    ("get up at", "wake-up time", VerbSense::Is),
    ("uses the access code", "access code", VerbSense::Is),
    ("enters with the code", "access code", VerbSense::Is),
    ("opens with the code", "door code", VerbSense::Is),
    ("opens with code", "door code", VerbSense::Is),
    ("is locked with the code", "door code", VerbSense::Is),
    ("sits in room", "room", VerbSense::Is),
    ("stays in room", "room", VerbSense::Is),
    ("is found in room", "room", VerbSense::Is),
    ("can be called on", "phone number", VerbSense::Is),
    ("answers the phone on", "phone number", VerbSense::Is),
    ("goes to the dentist", "dentist", VerbSense::Is),
    ("needs the password", "password", VerbSense::Is),
    ("belongs to", "owner", VerbSense::Is),
    ("belong to", "owner", VerbSense::Is),
    ("is owned by", "owner", VerbSense::Is),
    ("is painted", "colour", VerbSense::Is),
    ("has the colour", "colour", VerbSense::Is),
    ("must be finished by", "deadline", VerbSense::Is),
    ("has to be ready on", "deadline", VerbSense::Is),
    ("is due on", "deadline", VerbSense::Is),
    ("is sold for", "price", VerbSense::Is),
    ("costs", "price", VerbSense::Is),
    ("cost", "price", VerbSense::Is),
    ("runs version", "version", VerbSense::Is),
    ("is at version", "version", VerbSense::Is),
    ("has version", "version", VerbSense::Is),
    ("is open from", "opening time", VerbSense::Is),
    ("opens at", "opening time", VerbSense::Is),
    ("open at", "opening time", VerbSense::Is),
    ("is located in", "location", VerbSense::Is),
    ("is located at", "location", VerbSense::Is),
    ("stands in", "location", VerbSense::Is),
    ("goes by the name", "name", VerbSense::Is),
    ("wants to be called", "name", VerbSense::Is),
    ("is allergic to", "allergy", VerbSense::Is),
    ("has an allergy to", "allergy", VerbSense::Is),
    ("must avoid", "allergy", VerbSense::Is),
    ("is fluent in", "language", VerbSense::Is),
    ("speaks", "language", VerbSense::Is),
    ("speak", "language", VerbSense::Is),
    ("spoke", "language", VerbSense::Was),
    ("drives a", "car", VerbSense::Is),
    ("drives an", "car", VerbSense::Is),
    ("drive a", "car", VerbSense::Is),
    ("drove a", "car", VerbSense::Was),
    ("plays the", "instrument", VerbSense::Is),
    ("play the", "instrument", VerbSense::Is),
    ("practises on the", "instrument", VerbSense::Is),
    ("plays", "plays", VerbSense::Is),
    ("play", "plays", VerbSense::Is),
    ("played", "plays", VerbSense::Was),
    ("relaxes with", "hobby", VerbSense::Is),
    ("spends free time on", "hobby", VerbSense::Is),
    ("is fond of", "likes", VerbSense::Is),
    ("is a fan of", "likes", VerbSense::Is),
    ("likes to eat", "likes", VerbSense::Is),
    ("like to eat", "likes", VerbSense::Is),
    ("loves eating", "likes", VerbSense::Is),
    ("likes eating", "likes", VerbSense::Is),
    ("enjoys eating", "likes", VerbSense::Is),
    ("likes to drink", "likes", VerbSense::Is),
    ("loves drinking", "likes", VerbSense::Is),
    ("likes", "likes", VerbSense::Is),
    ("like", "likes", VerbSense::Is),
    ("loves", "likes", VerbSense::Is),
    ("love", "likes", VerbSense::Is),
    ("enjoys", "likes", VerbSense::Is),
    ("enjoy", "likes", VerbSense::Is),
    ("adores", "likes", VerbSense::Is),
    ("liked", "likes", VerbSense::Was),
    ("hates", "likes", VerbSense::IsNot),
    ("hate", "likes", VerbSense::IsNot),
    ("dislikes", "likes", VerbSense::IsNot),
    ("dislike", "likes", VerbSense::IsNot),
    ("detests", "likes", VerbSense::IsNot),
];

/// States of which the second is what the first is not.
pub(super) const OPPOSITES: &[(&str, &str)] = &[
    ("open", "closed"),
    ("alive", "dead"),
    ("married", "single"),
    ("married", "divorced"),
    ("enabled", "disabled"),
    ("on", "off"),
    ("employed", "unemployed"),
    ("left-handed", "right-handed"),
    ("true", "false"),
    ("full", "empty"),
    ("locked", "unlocked"),
    ("vegetarian", "meat eater"),
    ("vegan", "meat eater"),
    ("awake", "asleep"),
    ("available", "unavailable"),
    ("finished", "unfinished"),
    ("pregnant", "not pregnant"),
    ("tall", "short"),
    ("rich", "poor"),
    ("online", "offline"),
    ("free", "busy"),
    ("healthy", "ill"),
    ("public", "private"),
    ("approved", "rejected"),
    ("present", "absent"),
    ("active", "inactive"),
    ("retired", "employed"),
    ("smoker", "non-smoker"),
    ("an early riser", "a night owl"),
    ("introvert", "extrovert"),
    ("cheap", "expensive"),
];

/// Colours, so that "the door is red" is known to be about its colour.
pub(super) const COLOURS: &[&str] = &[
    "amber",
    "aqua",
    "beige",
    "black",
    "blue",
    "bronze",
    "brown",
    "coral",
    "crimson",
    "cyan",
    "gold",
    "green",
    "grey",
    "indigo",
    "ivory",
    "jade",
    "khaki",
    "lilac",
    "lime",
    "magenta",
    "maroon",
    "mint",
    "navy",
    "ochre",
    "olive",
    "orange",
    "peach",
    "pink",
    "plum",
    "purple",
    "red",
    "ruby",
    "salmon",
    "scarlet",
    "silver",
    "tan",
    "teal",
    "turquoise",
    "violet",
    "white",
    "yellow",
];

/// The name of the relation that a noun means, in lower case: "profession" gives "job".
pub(super) fn relation_of(noun: &str) -> String {
    let noun = noun.replace("favorite", "favourite").replace("color", "colour").replace("neighbor", "neighbour");
    let known = NOUNS.iter().find(|known| known.names.contains(&noun.as_str()));
    known.map_or(noun, |known| known.names[0].to_owned())
}

/// Whether the noun names a relation of the table.
pub(super) fn is_known(noun: &str) -> bool {
    noun.starts_with("favourite ") || NOUNS.iter().any(|known| known.names.contains(&noun)) || noun == "name"
}

/// Nouns of the table, for wordings such as "has the job nurse".
pub(super) fn known_nouns() -> impl Iterator<Item = &'static str> {
    NOUNS.iter().flat_map(|known| known.names.iter().copied()).chain(["password", "owner", "version", "name"])
}

/// How many values the relation has. A noun that is not in the table names one thing unless it is a plural: people say
/// "her locker is 12" of the one locker.
pub(super) fn cardinality_of(relation: &str) -> Cardinality {
    if let Some(known) = NOUNS.iter().find(|known| known.names[0] == relation) {
        return known.cardinality;
    }
    let last = relation.rsplit(' ').next().unwrap_or_default();
    let is_plural = last.ends_with('s') && !last.ends_with("ss") && !last.ends_with("us") && !last.ends_with("is");
    let is_compound_of_many =
        NOUNS.iter().any(|known| known.cardinality == Cardinality::Many && known.names.contains(&last));
    let is_favourite = relation.starts_with("favourite ");
    if !is_favourite && (is_plural || is_compound_of_many) { Cardinality::Many } else { Cardinality::One }
}

/// Whether a value of it in the past is a value of it now.
pub(super) fn is_lasting(relation: &str) -> bool {
    NOUNS.iter().any(|known| known.lasting && known.names[0] == relation)
}
