"""Relations of the corpus: how a fact is stated, asked for and answered.

A wording is written once for every grammatical person. Its fields are {s} subject, {p} possessive,
{o} object, {x} value, {n} the relation's noun, and the verb forms {v} (-s), {be}, {have}, {do}.
Every relation is answered in one form, "{p} {n} is {x}.", so that an exact answer is well defined.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import vocabulary as words
from vocabulary import Split


@dataclass(frozen=True)
class Person:
    """A subject in one grammatical person."""

    subject: str
    possessive: str
    object: str
    verb: str = "s"
    be: str = "is"
    have: str = "has"
    do: str = "does"

    def fits(self, wording: str) -> bool:
        """Whether the wording can be said of this person: no "the job of me", and of nobody only "the code is"."""
        if not self.subject:
            return "{s}" not in wording and "{o}" not in wording
        return not (self.subject == "I" and "of {o}" in wording)

    def render(self, wording: str, noun: str, value: str = "") -> str:
        text = wording.format(
            s=self.subject, p=self.possessive, o=self.object, v=self.verb, be=self.be,
            have=self.have, do=self.do, n=noun, x=value,
        )  # fmt: skip
        return text[0].upper() + text[1:]


FIRST = Person("I", "my", "me", "", "am", "have", "do")
SECOND = Person("you", "your", "you", "", "are", "have", "do")
THE_USER = Person("the user", "the user's", "the user")
USER = Person("User", "User's", "User")
# A fact of nobody in particular: "the door code is 4471".
NOBODY = Person("", "the", "")


def third(name: str) -> Person:
    return Person(name, f"{name}'s", name)


@dataclass(frozen=True)
class Relation:
    """One relation; its first noun is the canonical one, the last of each wording is held out."""

    nouns: tuple[str, ...]
    value: Callable[[Random, Split], str]
    statements: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()

    @property
    def noun(self) -> str:
        return self.nouns[0]


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split("|"))


def _relation(nouns: str, value, statements: str, questions: str) -> Relation:
    return Relation(_listed(nouns), value, _listed(statements), _listed(questions))


ANSWER = "{p} {n} is {x}."
REFUSAL = "I do not know that yet."

# Wordings that fit every relation.
STATEMENTS = (
    "{p} {n} is {x}", "the {n} of {o} is {x}", "{p} {n}: {x}", "{s} {have} the {n} {x}",
    "we know that {p} {n} is {x}",
)  # fmt: skip
UPDATES = (
    "{p} {n} is now {x}", "{p} {n} changed to {x}", "now {p} {n} is {x}", "correction: {p} {n} is {x}",
    "{p} new {n} is {x}", "from now on {p} {n} is {x}",
)  # fmt: skip
QUESTIONS = (
    "what is {p} {n}?", "what is the {n} of {o}?", "tell me {p} {n}.", "do you know {p} {n}?", "{p} {n}?",
    "remind me of {p} {n}.", "can you tell me {p} {n}?", "I forgot {p} {n}.", "what's {p} {n}?",
    "please give me {p} {n}.", "do you remember {p} {n}?", "I would like to know {p} {n}.",
)  # fmt: skip

PERSON_RELATIONS = (
    _relation(
        "favourite colour | favorite color | preferred colour",
        words.listed_or_made_up(words.COLOURS),
        "{s} like{v} the colour {x} best | {s} love{v} the colour {x} | {s} prefer{v} {x} over any other colour",
        "which colour {do} {s} like best? | what colour {do} {s} like? | which colour {do} {s} prefer?",
    ),
    _relation(
        "home city | city | home town",
        words.listed_or_made_up(words.CITIES),
        "{s} live{v} in {x} | {p} home is in {x} | {s} moved to {x} | {s} {have} a flat in {x}",
        "where {do} {s} live? | which city {do} {s} live in? | in what city is {p} home? | what town {do} {s} live in?",
    ),
    _relation(
        "favourite food | favorite food | favourite dish",
        words.listed_or_made_up(words.FOODS),
        "{s} love{v} eating {x} | {s} like{v} to eat {x} | the food {s} like{v} best is {x} | {s} enjoy{v} eating {x}",
        "what {do} {s} like to eat? | which food {do} {s} like best? | what food {do} {s} love? | "
        "what {do} {s} enjoy eating?",
    ),
    _relation(
        "favourite drink | favorite drink",
        words.listed_or_made_up(words.DRINKS),
        "{s} like{v} to drink {x} | {s} always drink{v} {x} | {s} love{v} drinking {x}",
        "what {do} {s} like to drink? | which drink {do} {s} like best? | what {do} {s} drink?",
    ),
    _relation(
        "pet | pet's name",
        words.listed_or_made_up(words.PETS),
        "{p} pet is called {x} | {s} {have} a pet called {x} | {s} own{v} a pet named {x}",
        "what is {p} pet called? | which pet {do} {s} have? | what is the name of {p} pet?",
    ),
    _relation(
        "job | profession | occupation",
        words.listed_or_made_up(words.JOBS),
        "{s} work{v} as {x} | {s} {be} employed as {x} | {s} earn{v} a living as {x}",
        "what {do} {s} do for a living? | what {do} {s} work as? | which job {do} {s} have?",
    ),
    _relation(
        "employer | company",
        words.made_up_name,
        "{s} work{v} for {x} | {s} work{v} at {x} | {s} {have} a contract with {x} | {s} {be} paid by {x}",
        "who {do} {s} work for? | which company {do} {s} work at? | where {do} {s} work?",
    ),
    _relation(
        "sport | favourite sport",
        words.listed_or_made_up(words.SPORTS),
        "{s} play{v} {x} | {s} train{v} {x} every week | {s} do{v} {x} as a sport",
        "which sport {do} {s} play? | what sport {do} {s} do? | what {do} {s} train?",
    ),
    _relation(
        "language | native language",
        words.listed_or_made_up(words.LANGUAGES),
        "{s} speak{v} {x} | {s} {be} fluent in {x} | {s} talk{v} in {x}",
        "which language {do} {s} speak? | what language {be} {s} fluent in? | what {do} {s} speak?",
    ),
    _relation(
        "manager | boss",
        words.person_name,
        "{s} report{v} to {x} | {p} manager is called {x} | {s} {have} {x} as a manager | {s} work{v} under {x}",
        "who {do} {s} report to? | who is {p} manager? | who manages {o}? | who is the boss of {o}?",
    ),
    _relation(
        "partner | spouse",
        words.person_name,
        "{s} {be} married to {x} | {s} live{v} together with {x} | {s} {be} engaged to {x}",
        "who {be} {s} married to? | who is {p} partner? | who {do} {s} live together with?",
    ),
    _relation(
        "birthday | date of birth",
        words.date,
        "{s} {have} a birthday on {x} | {p} birthday is on {x} | {s} celebrate{v} a birthday on {x}",
        "when is {p} birthday? | on which day is {p} birthday? | when {do} {s} celebrate a birthday?",
    ),
    _relation(
        "birthplace | place of birth",
        words.listed_or_made_up(words.CITIES),
        "{s} come{v} from {x} | {p} birthplace was {x} | {s} grew up in {x}",
        "where {do} {s} come from? | where is {p} birthplace? | where did {s} grow up?",
    ),
    _relation(
        "meeting day | day of the meeting",
        words.weekday,
        "{s} {have} a meeting every {x} | {p} meeting is on {x} | {s} meet{v} the team on {x}",
        "on which day is {p} meeting? | when is {p} meeting? | when {do} {s} meet the team?",
    ),
    _relation(
        "wake-up time | alarm time",
        words.time_of_day,
        "{s} wake{v} up at {x} | {s} get{v} up at {x} | {p} alarm rings at {x}",
        "when {do} {s} wake up? | at what time {do} {s} get up? | when does {p} alarm ring?",
    ),
    _relation(
        "access code | entry code",
        words.code,
        "{s} use{v} the access code {x} | {s} open{v} the door with {x} | {s} enter{v} with the code {x}",
        "which access code {do} {s} use? | which code opens the door for {o}? | which code {do} {s} enter with?",
    ),
    _relation(
        "room | room number",
        words.room,
        "{s} sit{v} in room {x} | {p} room number is {x} | {s} stay{v} in room {x} | {s} {be} found in room {x}",
        "which room {be} {s} in? | in which room {do} {s} sit? | where is {p} room?",
    ),
    _relation(
        "project | project name",
        words.listed_or_made_up(["Apollo", "Atlas", "Falcon", "Gemini", "Mercury", "Orion", "Phoenix"], 0.8),
        "{s} work{v} on project {x} | {p} project is called {x} | {s} lead{v} project {x}",
        "which project {do} {s} work on? | what is {p} project called? | which project {do} {s} lead?",
    ),
    _relation(
        "allergy",
        words.listed_or_made_up(words.ALLERGENS),
        "{s} {be} allergic to {x} | {s} must avoid {x} because of an allergy | {s} {have} an allergy to {x}",
        "what {be} {s} allergic to? | which allergy {do} {s} have? | what must {s} avoid?",
    ),
    _relation(
        "hobby | pastime",
        words.listed_or_made_up(words.HOBBIES),
        "{s} enjoy{v} {x} as a hobby | {s} spend{v} free time on {x} | {s} relax{v} with {x}",
        "what {do} {s} do in free time? | which hobby {do} {s} have? | how {do} {s} relax?",
    ),
    _relation(
        "instrument",
        words.listed_or_made_up(words.INSTRUMENTS),
        "{s} play{v} the {x} | {s} practise{v} on the {x} | {s} own{v} a {x} to make music",
        "which instrument {do} {s} play? | what {do} {s} practise on? | on what {do} {s} make music?",
    ),
    _relation(
        "car | vehicle",
        words.listed_or_made_up(words.CARS),
        "{s} drive{v} a {x} | {s} own{v} a {x} car | {s} bought a {x} car",
        "what car {do} {s} drive? | which car {do} {s} own? | what {do} {s} drive?",
    ),
    _relation(
        "phone number | telephone number",
        words.phone,
        "{s} can be called on {x} | call {o} on {x} | {s} answer{v} the phone on {x}",
        "how can {s} be called? | on which number can I call {o}? | which phone number {do} {s} have?",
    ),
    _relation(
        "dentist | dentist's name",
        words.person_name,
        "{p} dentist is called {x} | {s} go{v} to the dentist {x} | {s} see{v} {x} for dental care",
        "who is {p} dentist? | what is {p} dentist called? | which dentist {do} {s} go to?",
    ),
    _relation(
        "sister | sister's name",
        words.person_name,
        "{p} sister is called {x} | {s} {have} a sister called {x} | {s} {have} a sister named {x}",
        "who is {p} sister? | what is {p} sister called? | what is the name of {p} sister?",
    ),
    _relation(
        "brother | brother's name",
        words.person_name,
        "{p} brother is called {x} | {s} {have} a brother called {x} | {s} {have} a brother named {x}",
        "who is {p} brother? | what is {p} brother called? | what is the name of {p} brother?",
    ),
    _relation(
        "favourite number | favorite number | lucky number",
        words.number,
        "{s} like{v} the number {x} best | {s} choose{v} the number {x} | {s} bet{v} on the number {x}",
        "which number {do} {s} like best? | which number {do} {s} choose? | which number {do} {s} bet on?",
    ),
)

THING_RELATIONS = (
    _relation(
        "door code | code",
        words.code,
        "{s} open{v} with the code {x} | {s} {be} locked with the code {x} | the code for {s} is {x}",
        "which code opens {s}? | what is the code for {s}? | how can I open {s}?",
    ),
    _relation(
        "password",
        words.password,
        "the password for {s} is {x} | {s} {have} the password {x} | {s} need{v} the password {x}",
        "what is the password for {s}? | which password {do} {s} have? | which password {do} {s} need?",
    ),
    _relation(
        "location | place",
        words.listed_or_made_up(words.CITIES),
        "{s} {be} in {x} | {s} {be} located in {x} | {s} {be} near {x} | {s} stand{v} in {x}",
        "where is {s}? | where can I find {s}? | in which place is {s}? | where {do} {s} stand?",
    ),
    _relation(
        "owner",
        words.person_name,
        "{s} belong{v} to {x} | {x} owns {s} | {s} {be} owned by {x}",
        "who owns {s}? | who is the owner of {s}? | who {do} {s} belong to?",
    ),
    _relation(
        "colour | color",
        words.listed_or_made_up(words.COLOURS),
        "{s} {be} painted {x} | {s} {have} the colour {x} | {s} look{v} {x}",
        "what colour is {s}? | which colour {do} {s} have? | in what colour is {s} painted?",
    ),
    _relation(
        "deadline | due date",
        words.date,
        "{s} must be finished by {x} | {s} {be} due on {x} | {s} {have} to be ready on {x}",
        "when is {s} due? | by when must {s} be finished? | when must {s} be ready?",
    ),
    _relation(
        "price | cost",
        words.amount,
        "{s} cost{v} {x} | {s} {be} sold for {x} | the price for {s} is {x}",
        "how much {do} {s} cost? | what {do} {s} cost? | for how much is {s} sold?",
    ),
    _relation(
        "version",
        words.version,
        "{s} run{v} version {x} | {s} {be} at version {x} | {s} {have} version {x}",
        "which version {do} {s} run? | which version is {s} at? | which version {do} {s} have?",
    ),
    _relation(
        "opening time",
        words.time_of_day,
        "{s} open{v} at {x} | {s} {be} open from {x} | {s} start{v} at {x}",
        "when {do} {s} open? | at what time {do} {s} open? | from when is {s} open?",
    ),
)

NAME = _relation(
    "name",
    words.person_name,
    "{s} {be} called {x} | {s} go{v} by the name {x} | {s} {be} known as {x}",
    "what {be} {s} called? | who {be} {s}? | under which name {be} {s} known?",
)

# Nouns without wordings of their own: they teach that any noun can be a relation.
FREE_NOUNS = _listed(
    "address | age | badge | bank | best friend | blood type | book | brand | bus line | cabin | "
    "captain | class | coach | codename | cousin | desk | doctor | editor | favourite animal | "
    "favourite band | favourite book | favourite city | favourite film | favourite flower | "
    "favourite game | favourite season | favourite song | favourite tree | flight | gate | goal | "
    "guide | gym | height | hotel | landlord | laptop | locker | lawyer | licence | mentor | mother | "
    "motto | neighbour | nickname | nurse | parking spot | plan | platform | rank | school | seat | "
    "shift | shoe size | size | street | supplier | surname | team | tutor | uncle | username | weight | "
    "wish"
)
_FREE_VALUES = (
    words.made_up_name, words.made_up_word, words.person_name, words.code, words.number,
    words.listed_or_made_up(words.CITIES), words.listed_or_made_up(words.HOBBIES),
)  # fmt: skip


def free_relation(rng: Random, split: Split) -> Relation:
    """A relation without wordings of its own; one noun in eight is made up."""
    noun = words.made_up_word(rng, split) if rng.random() < 0.125 else rng.choice(FREE_NOUNS)
    return Relation((noun,), rng.choice(_FREE_VALUES))
