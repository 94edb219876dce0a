"""Generates chats: a system turn that lists memories, and questions that those memories answer.

A chat is simulated turn by turn over a small world of facts, so that what an answer must be is
known by construction: the last statement about a subject's relation, or a refusal.
"""

from dataclasses import dataclass, field
from enum import Enum
from random import Random

import relations as rel
import vocabulary as words
from relations import Person, Relation
from vocabulary import Split


class Wordings(Enum):
    """Which wordings a chat is made of; the last of each list is kept out of training."""

    SEEN = slice(None, -1)
    HELD_OUT = slice(-1, None)


class Kind(Enum):
    KNOWN = "known"  # answered by one memory
    UPDATED = "updated"  # an earlier statement says otherwise; the later one wins
    TOLD = "told"  # answered by what the user said in this chat
    UNKNOWN = "unknown"  # never stated: refused
    ACKNOWLEDGED = "acknowledged"  # the user states something
    SMALL_TALK = "small talk"


@dataclass
class Turn:
    user: str
    assistant: str
    kind: Kind
    source: str | None = None  # the statement that the answer comes from, as rendered


@dataclass
class Chat:
    """A system turn (or none) and what follows; num_memories counts the lines of the block."""

    system: str | None
    turns: list[Turn]
    num_memories: int

    def messages(self, num_turns: int | None = None) -> list[dict[str, str]]:
        """The first num_turns turns as chat messages, without the last answer; all when None."""
        messages = [{"role": "system", "content": self.system}] if self.system is not None else []
        for turn in self.turns[:num_turns]:
            messages.append({"role": "user", "content": turn.user})
            messages.append({"role": "assistant", "content": turn.assistant})
        return messages if num_turns is None else messages[:-1]


@dataclass(frozen=True)
class Recipe:
    """How large a chat is: inclusive ranges of lines, turns and unrelated lines among the memories."""

    memories: tuple[int, int] = (1, 14)
    turns: tuple[int, int] = (2, 10)
    notes: tuple[int, int] = (0, 2)
    no_memories_share: float = 0.1


@dataclass
class _Fact:
    value: str
    source: str
    told: bool = False
    updated: bool = False
    asked: bool = False


class _Sort(Enum):
    PERSON = "person"
    THING = "thing"
    USER = "user"
    NOBODY = "nobody"


@dataclass(frozen=True)
class _Subject:
    """Whom or what a fact is about; the user and nobody have no name."""

    sort: _Sort
    name: str = ""

    def asking(self) -> Person:
        return {_Sort.USER: rel.FIRST, _Sort.NOBODY: rel.NOBODY}.get(self.sort) or rel.third(self.name)

    def answering(self) -> Person:
        return {_Sort.USER: rel.SECOND, _Sort.NOBODY: rel.NOBODY}.get(self.sort) or rel.third(self.name)

    def remembered(self, rng: Random) -> Person:
        """The person of a memory line; lines about the user are also kept as the user said them."""
        if self.sort is _Sort.USER:
            return rng.choices((rel.THE_USER, rel.USER, rel.FIRST), (6, 2, 2))[0]
        return self.asking()


USER = _Subject(_Sort.USER)
NOBODY = _Subject(_Sort.NOBODY)

HEADINGS = {
    "# Memories": 60, "## Memories": 5, "Memories:": 5, "# Memory": 3, "# What you know": 4,
    "Known facts:": 3, "### Facts": 3, "# Notes": 3, "What you remember:": 4, "# Things to remember": 4,
}  # fmt: skip
BULLETS = {"- ": 76, "* ": 7, "• ": 4, "{i}. ": 8, "": 5}
PREAMBLES = (
    "You are a helpful assistant with memory.", "You are a helpful assistant.", "You are MemOS.",
    "You are MemOS, a small assistant that answers from memory.", "Answer from the memories below.",
    "You are an assistant. Use the memories.", "Be brief and exact.", "Answer in one short sentence.",
    "You answer questions about people and places.", "You are a friendly helper.",
    "If you do not know something, say so.", "Use only what is written here.", "Help the user.",
    "You know the following.", "Today is a good day to be helpful.", "You are the assistant of a team.",
)  # fmt: skip
QUESTION_OPENINGS = (
    "Hi! ", "Hey, ", "Quick question: ", "Please tell me: ", "One more thing: ", "Hello. ", "Okay, ", "And ",
)  # fmt: skip
STATEMENT_OPENINGS = ("Please remember: ", "By the way, ", "Remember this: ", "FYI: ", "Note: ", "Just so you know: ")
ACKNOWLEDGEMENT = "Noted."
SMALL_TALK = (
    (("Hello", "Hi", "Hey", "Hello!", "Hi there!", "Good morning", "Good evening!", "Hello there."),
     "Hello! How can I help you?"),
    (("Thanks", "Thank you", "Thanks!", "Thank you very much.", "Great, thanks.", "Cheers!"), "You are welcome."),
    (("Who are you?", "What are you?", "What is your name?", "Are you a robot?", "Introduce yourself."),
     "I am MemOS, a small assistant that answers from memory."),
    (("What can you do?", "How can you help me?", "Help", "What are you for?"),
     "I remember what I am told and answer questions about it."),
    (("How are you?", "How are you today?", "How is it going?"), "I am fine, thank you."),
    (("Bye", "Goodbye!", "See you later.", "Good night.", "That is all."), "Goodbye!"),
    (("Okay", "Good", "Great!", "I see.", "All right."), "All right."),
)  # fmt: skip
OUT_OF_SCOPE = (
    "What is the capital of {N}?", "Tell me a joke.", "Who won the match?", "How is the weather in {N}?",
    "What time is it?", "Why is the sky blue?", "Write a poem about {w}.", "What does {N} think of {w}?",
    "How many {w} are there?", "What is a {w}?", "Who invented the {w}?", "How do I get to {N}?",
    "What happened in {N}?", "Is {N} nice?", "Who is {N}?", "Where is {N}?", "When did {N} leave?",
)  # fmt: skip
NOTES = (
    "{N} went to {M} last week", "{N} and {M} talked about the {w}", "the {w} was repaired on {d}",
    "{N} found a {w} near {M}", "the trip to {N} was long", "{N} wrote a letter to {M} on {d}",
    "it rained in {N} on {d}", "{N} lost the {w} again", "the {w} in {N} is closed", "{N} met {M} at the {w}",
)  # fmt: skip


def _weighted(rng: Random, table: dict[str, int]) -> str:
    return rng.choices(list(table), list(table.values()))[0]


@dataclass
class _World:
    """The facts of one chat as they stand, and the pools that its subjects and relations come from."""

    rng: Random
    split: Split
    wordings: Wordings
    subjects: list[_Subject] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)
    thing_relations: list[Relation] = field(default_factory=list)
    facts: dict[tuple[_Subject, Relation], _Fact] = field(default_factory=dict)

    def populate(self, num_facts: int) -> None:
        """Draws subjects and relations; few of each, so that lines share them and compete."""
        rng = self.rng
        num_subjects = rng.randint((num_facts + 5) // 6, max(1, num_facts)) + 1
        if rng.random() < 0.5:
            self.subjects.append(USER)
        if rng.random() < 0.15:
            self.subjects.append(NOBODY)
        while len(self.subjects) < num_subjects:
            subject = (self.near_subject(self.subjects) if rng.random() < 0.08 else None) or self.new_subject()
            if subject not in self.subjects:
                self.subjects.append(subject)
        least = num_facts // num_subjects + 1
        self.relations = self._draw_relations(rel.PERSON_RELATIONS, least)
        self.thing_relations = self._draw_relations(rel.THING_RELATIONS, least)

    def _draw_relations(self, listed: tuple[Relation, ...], least: int) -> list[Relation]:
        rng = self.rng
        drawn = rng.sample(listed, min(len(listed), rng.randint(least, least + 5)))
        for _ in range(rng.choice((0, 0, 1, 2)) + max(0, least - len(drawn))):
            free = rel.free_relation(rng, self.split)
            if all(free.noun not in relation.nouns for relation in drawn):
                drawn.append(free)
        return drawn

    def new_subject(self) -> _Subject:
        rng = self.rng
        if rng.random() < 0.8:
            return _Subject(_Sort.PERSON, words.person_name(rng, self.split))
        thing = rng.choice(words.THINGS)
        if rng.random() < 0.6:
            thing = f"{words.made_up_name(rng, self.split)} {thing}"
        return _Subject(_Sort.THING, f"the {thing}")

    def near_subject(self, subjects: list[_Subject]) -> _Subject | None:
        """Somebody whose name begins like that of a person among the subjects, if there is one."""
        named = [subject.name for subject in subjects if subject.sort is _Sort.PERSON]
        if not named:
            return None
        return _Subject(_Sort.PERSON, words.near_name(self.rng, self.split, self.rng.choice(named)))

    def relation_for(self, subject: _Subject) -> Relation:
        if subject.sort in (_Sort.THING, _Sort.NOBODY):
            return self.rng.choice(self.thing_relations)
        if subject.sort is _Sort.USER and self.rng.random() < 0.15:
            return rel.NAME
        return self.rng.choice(self.relations)

    def noun(self, relation: Relation) -> str:
        return relation.noun if self.rng.random() < 0.7 else self.rng.choice(relation.nouns)

    def _wording(self, specific: tuple[str, ...], general: tuple[str, ...], person: Person) -> str:
        fitting = [wording for wording in specific[self.wordings.value] if person.fits(wording)]
        if not fitting or self.rng.random() >= 0.55:
            fitting = [wording for wording in general[self.wordings.value] if person.fits(wording)]
        return self.rng.choice(fitting)

    def state(self, subject: _Subject, relation: Relation, person: Person, told: bool) -> str:
        """Makes (or replaces) a fact and returns its statement, without a full stop."""
        rng, key = self.rng, (subject, relation)
        old = self.facts.get(key)
        value = relation.value(rng, self.split)
        while old is not None and value == old.value:
            value = relation.value(rng, self.split)
        if old is not None and rng.random() < 0.5:
            wording = rng.choice(rel.UPDATES[self.wordings.value])
        else:
            wording = self._wording(relation.statements, rel.STATEMENTS, person)
        source = person.render(wording, self.noun(relation), value)
        self.facts[key] = _Fact(value, source, told=told, updated=old is not None)
        return source

    def question(self, subject: _Subject, relation: Relation) -> str:
        rng, person = self.rng, subject.asking()
        wording = self._wording(relation.questions, rel.QUESTIONS, person)
        text = person.render(wording, self.noun(relation))
        if rng.random() < 0.08:
            text = text.rstrip("?.")
        if rng.random() < 0.2:
            return rng.choice(QUESTION_OPENINGS) + text
        return text

    def note(self) -> str:
        rng = self.rng
        text = rng.choice(NOTES).format(
            N=words.person_name(rng, self.split), M=words.made_up_name(rng, self.split),
            w=words.made_up_word(rng, self.split), d=words.date(rng, self.split),
        )  # fmt: skip
        return text[0].upper() + text[1:]

    def unknown_key(self) -> tuple[_Subject, Relation] | None:
        """A subject and relation that nothing was said about, as near to what was said as possible."""
        rng = self.rng
        for _ in range(8):
            kind = rng.random()
            if kind < 0.5 and self.subjects:
                subject = rng.choice(self.subjects)
            elif kind < 0.6:
                near = self.near_subject([subject for subject, _ in self.facts])
                if near is None:
                    continue
                subject = near
            elif kind < 0.7:
                subject = USER
            else:
                subject = self.new_subject()
            key = (subject, self.relation_for(subject))
            if key not in self.facts:
                return key
        return None


def _memory_block(rng: Random, lines: list[str]) -> str:
    heading, bullet = _weighted(rng, HEADINGS), _weighted(rng, BULLETS)
    stop = "." if rng.random() < 0.85 else ""
    dated = rng.random() < 0.05
    rendered = []
    for index, line in enumerate(lines, start=1):
        stamp = f"[20{rng.randint(10, 39)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}] " if dated else ""
        rendered.append(bullet.format(i=index) + stamp + line + stop)
    gap = "\n\n" if rng.random() < 0.15 else "\n"
    return heading + gap + "\n".join(rendered)


def _memory_lines(world: _World, num_memories: int, num_notes: int) -> list[str]:
    """States num_memories facts, in three fifths of the chats with updates, and mixes in unrelated notes."""
    rng = world.rng
    update_share = rng.choice((0.0, 0.0, 0.1, 0.2, 0.4))
    lines: list[str] = []
    for _ in range(num_memories * 3):
        if len(lines) == num_memories:
            break
        if world.facts and rng.random() < update_share:
            subject, relation = rng.choice(list(world.facts))
        else:
            subject = rng.choice(world.subjects)
            relation = world.relation_for(subject)
            if (subject, relation) in world.facts:
                continue
        lines.append(world.state(subject, relation, subject.remembered(rng), told=False))
    for _ in range(num_notes):
        lines.insert(rng.randint(0, len(lines)), world.note())
    return lines


def _answer(world: _World, key: tuple[_Subject, Relation]) -> Turn:
    subject, relation = key
    fact = world.facts[key]
    fact.asked = True
    kind = Kind.UPDATED if fact.updated else Kind.TOLD if fact.told else Kind.KNOWN
    answer = subject.answering().render(rel.ANSWER, relation.noun, fact.value)
    return Turn(world.question(subject, relation), answer, kind, fact.source)


def _refuse(world: _World, key: tuple[_Subject, Relation]) -> Turn:
    return Turn(world.question(*key), rel.REFUSAL, Kind.UNKNOWN)


def _tell(world: _World, key: tuple[_Subject, Relation]) -> Turn:
    rng = world.rng
    text = world.state(*key, key[0].asking(), told=True)
    if rng.random() < 0.25:
        text = rng.choice(STATEMENT_OPENINGS) + text
    if rng.random() < 0.9:
        text += "."
    return Turn(text, ACKNOWLEDGEMENT, Kind.ACKNOWLEDGED)


def _turn(world: _World) -> Turn:
    rng = world.rng
    kind = rng.choices(("known", "unknown", "tell", "update", "talk", "scope", "note"), (44, 30, 10, 4, 5, 4, 3))[0]
    if kind == "talk":
        said, answered = rng.choice(SMALL_TALK)
        return Turn(rng.choice(said), answered, Kind.SMALL_TALK)
    if kind == "scope":
        text = rng.choice(OUT_OF_SCOPE)
        name, word = words.made_up_name(rng, world.split), words.made_up_word(rng, world.split)
        return Turn(text.format(N=name, w=word), rel.REFUSAL, Kind.UNKNOWN)
    if kind == "note":
        notes = ". ".join(world.note() for _ in range(rng.randint(1, 4)))
        return Turn(f"{notes}.", ACKNOWLEDGEMENT, Kind.ACKNOWLEDGED)
    if kind == "known" and world.facts:
        fresh = [key for key, fact in world.facts.items() if not fact.asked]
        return _answer(world, rng.choice(fresh if fresh and rng.random() < 0.9 else list(world.facts)))
    if kind == "update" and world.facts:
        return _tell(world, rng.choice(list(world.facts)))
    key = world.unknown_key()
    if key is None:
        return _answer(world, rng.choice(list(world.facts)))
    return _tell(world, key) if kind in ("tell", "update") else _refuse(world, key)


def make_chat(rng: Random, recipe: Recipe, split: Split, wordings: Wordings = Wordings.SEEN) -> Chat:
    """One chat of the recipe's size; the same rng state gives the same chat."""
    world = _World(rng, split, wordings)
    num_memories = 0 if rng.random() < recipe.no_memories_share else rng.randint(*recipe.memories)
    world.populate(max(1, num_memories))
    lines = _memory_lines(world, num_memories, rng.randint(*recipe.notes) if num_memories else 0)
    parts = [rng.choice(PREAMBLES)] if rng.random() < 0.6 else []
    if lines or rng.random() < 0.2:
        parts.append(_memory_block(rng, lines))
    turns = [_turn(world) for _ in range(rng.randint(*recipe.turns))]
    return Chat("\n\n".join(parts) if parts else None, turns, num_memories)
