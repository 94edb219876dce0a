"""Names and values of the corpus: word lists, and makers of words and codes nobody has seen.

Every made-up string belongs to one of two splits by its checksum. Training draws from one and
evaluation from the other, so that a right answer on held-out chats can only have been copied.
"""

import zlib
from enum import Enum
from random import Random


class Split(Enum):
    TRAIN = "train"
    HELD_OUT = "held-out"


# One made-up string in this many is kept for evaluation.
HELD_OUT_EVERY = 8


def split_of(text: str) -> Split:
    held_out = zlib.crc32(text.lower().encode()) % HELD_OUT_EVERY == 0
    return Split.HELD_OUT if held_out else Split.TRAIN


ONSETS = "b c d f g h j k l m n p r s t v w y z".split()
ONSET_CLUSTERS = "bl br ch cl cr dr fl fr gl gr kl kr pl pr qu sh sk sl sn st th tr".split()
VOWELS = "a e i o u".split()
VOWEL_CLUSTERS = "ai au ea ee ia ie io oa oo ou".split()
CODAS = "b d f g k l m n p r s t x z ck ld lm lt nd ng nk nt rd rk rn rt sh st th".split()

FIRST_NAMES = (
    "Aaron Ada Adam Agnes Ahmed Alan Alice Amara Amir Amy Ana Andre Anna Arthur Astrid Ben Bianca Bob "
    "Bruno Carla Carlos Carol Cem Chen Clara Daniel David Diana Dmitri Dora Edith Elena Eli Ella Emil "
    "Emma Erik Eva Farah Felix Fiona Frank Freya Gina Grace Greta Hana Hans Harry Helen Henry Hugo Ian "
    "Ibrahim Ida Igor Ines Ingrid Irene Isaac Ivan Jack James Jan Jane Joao Joe John Jonas Julia Karim "
    "Karl Kate Keiko Kenji Laila Lara Lars Laura Leo Li Lily Linda Liam Lucas Lucy Luis Maja Marco Maria "
    "Mark Marta Mary Mateo Max Mei Mia Mika Mila Mira Mohamed Nadia Naomi Nina Noah Nora Olga Oliver "
    "Omar Oscar Otto Paul Pedro Peter Petra Priya Quentin Rachel Rahul Raj Rosa Ruth Sam Sara Sofia Sven "
    "Tara Theo Thomas Tom Uma Ursula Vera Victor Walter Wei Wendy Xenia Yara Yuki Yusuf Zara Zoe"
).split()

COLOURS = (
    "amber aqua beige black blue bronze brown coral crimson cyan gold green grey indigo ivory jade khaki "
    "lilac lime magenta maroon mint navy ochre olive orange peach pink plum purple red ruby salmon scarlet "
    "silver tan teal turquoise violet white yellow"
).split()
CITIES = (
    "Accra Amsterdam Athens Austin Bangkok Berlin Bergen Bogota Boston Bristol Cairo Chicago Cork Dakar "
    "Delhi Denver Dublin Geneva Ghent Hamburg Hanoi Helsinki Istanbul Jakarta Kyoto Lagos Leeds Lima "
    "Lisbon London Lyon Madrid Milan Montreal Munich Nairobi Naples Osaka Oslo Oxford Paris Porto Prague "
    "Quito Riga Rome Santiago Seoul Seville Sofia Stockholm Sydney Tallinn Tokyo Toronto Turin Utrecht "
    "Vienna Vilnius Warsaw York Zagreb Zurich"
).split()
FOODS = (
    "apple-pie bacon bread burritos cake carrots cheese cherries chicken chocolate couscous crepes curry "
    "dumplings eggs falafel figs fondue goulash grapes gumbo honey hummus kebab kimchi lamb lasagne lentils "
    "mango melon mushrooms mussels noodles olives omelette onions paella pancakes pasta pears pesto pickles "
    "pizza plums porridge potatoes ramen ravioli rice risotto salad salmon sausages scones soup spinach "
    "steak stew sushi tacos tofu tomatoes trout waffles walnuts"
).split()
DRINKS = (
    "ale black-tea chai cider cocoa coffee cola espresso ginger-beer green-tea juice kombucha latte lemonade "
    "mate milk mocha rum sake sherry soda tea tonic water whisky wine"
).split()
JOBS = (
    "accountant actor architect astronomer baker barber beekeeper biologist bookseller brewer bricklayer "
    "butcher carpenter chemist chef clerk cook dancer dentist designer detective diver driver editor "
    "electrician engineer farmer firefighter fisher florist gardener geologist glazier guard guide jeweller "
    "journalist judge lawyer librarian locksmith mason mechanic miner musician nurse painter pharmacist "
    "photographer pilot plumber poet potter printer programmer roofer sailor sculptor surgeon tailor teacher "
    "translator vet waiter weaver welder writer"
).split()
SPORTS = (
    "archery badminton baseball basketball bowling boxing canoeing chess climbing cricket curling cycling "
    "darts diving fencing football golf gymnastics handball hiking hockey judo karate lacrosse polo rowing "
    "rugby running sailing skating skiing snooker squash surfing swimming tennis volleyball wrestling yoga"
).split()
LANGUAGES = (
    "Arabic Basque Bengali Catalan Croatian Czech Danish Dutch English Estonian Finnish French Gaelic German "
    "Greek Hebrew Hindi Icelandic Irish Italian Japanese Korean Latin Latvian Malay Maltese Norwegian Persian "
    "Polish Portuguese Romanian Russian Spanish Swahili Swedish Tamil Thai Turkish Urdu Vietnamese Welsh Zulu"
).split()
ALLERGENS = (
    "almonds aspirin bees cats celery clams dogs dust eggs fish garlic gluten grass kiwi latex lupin milk "
    "mustard nickel nuts oats peanuts pepper pollen prawns rye sesame shellfish soy strawberries wasps wheat"
).split()
HOBBIES = (
    "astronomy baking birdwatching calligraphy camping carving chess cooking drawing embroidery fishing "
    "gardening juggling karaoke knitting magic origami painting photography pottery puzzles quilting reading "
    "sewing singing sketching stargazing weaving woodwork"
).split()
INSTRUMENTS = (
    "accordion banjo bassoon cello clarinet cornet drums fiddle flute guitar harp horn lute mandolin oboe "
    "organ piano recorder saxophone sitar trombone trumpet tuba ukulele viola violin xylophone"
).split()
PETS = (
    "Bella Biscuit Bubbles Cleo Coco Daisy Fluffy Ginger Luna Milo Nemo Oreo Pepper Rex Rocky Rusty Shadow "
    "Simba Smokey Toby"
).split()
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
CARS = (
    "Audi BMW Citroen Fiat Ford Honda Jaguar Kia Mazda Mini Nissan Opel Peugeot Renault Saab Seat Skoda "
    "Tesla Toyota Volvo"
).split()
THINGS = (
    "alarm archive attic barn boat boiler bus cabin camera cellar clinic cottage fridge garage gate "
    "greenhouse kiosk lab ladder laptop library lift locker office oven parcel printer pump restaurant "
    "robot router safe school sensor server shed ship shop stove studio tablet tent theatre tower tractor "
    "trailer train van vault warehouse workshop"
).split()
SMALL_CAPS = "ABCDEFGHJKLMNPQRSTUVWXYZ"


def _syllable(rng: Random, coda_share: float) -> str:
    onset = rng.choice(ONSETS if rng.random() < 0.75 else ONSET_CLUSTERS)
    vowel = rng.choice(VOWELS if rng.random() < 0.88 else VOWEL_CLUSTERS)
    return onset + vowel + (rng.choice(CODAS) if rng.random() < coda_share else "")


def made_up_word(rng: Random, split: Split) -> str:
    """A pronounceable lower-case word of one to three syllables, of the asked split."""
    while True:
        num_syllables = rng.choices((1, 2, 3), (1, 8, 1))[0]
        word = "".join(_syllable(rng, 0.35) for _ in range(num_syllables - 1)) + _syllable(rng, 0.6)
        if 3 <= len(word) <= 11 and split_of(word) is split:
            return word


def made_up_name(rng: Random, split: Split) -> str:
    return made_up_word(rng, split).capitalize()


def person_name(rng: Random, split: Split) -> str:
    name = rng.choice(FIRST_NAMES) if rng.random() < 0.4 else made_up_name(rng, split)
    if rng.random() < 0.05:
        name += " " + made_up_name(rng, split)
    return name


def near_name(rng: Random, split: Split, name: str) -> str:
    """A name that begins like the given one, so that the beginning alone does not tell them apart."""
    while True:
        other = name[: max(2, len(name) // 2)] + made_up_word(rng, split)[-rng.randint(2, 4) :]
        if other != name and split_of(other) is split:
            return other


def listed_or_made_up(words: list[str], made_up_share: float = 0.45):
    """A maker that draws from words or, in the given share of cases, makes a word of their case."""

    def make(rng: Random, split: Split) -> str:
        if rng.random() < made_up_share:
            word = made_up_word(rng, split)
            return word.capitalize() if words[0][0].isupper() else word
        return rng.choice(words).replace("-", " ")

    return make


def _of_split(pattern_maker):
    """Repeats a maker of codes until the code is of the asked split."""

    def make(rng: Random, split: Split) -> str:
        while True:
            text = pattern_maker(rng)
            if split_of(text) is split:
                return text

    return make


def _digits(rng: Random, count: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(count))


def _letters(rng: Random, count: int) -> str:
    return "".join(rng.choice(SMALL_CAPS) for _ in range(count))


def _code(rng: Random) -> str:
    return rng.choice(
        (
            lambda: _digits(rng, rng.randint(3, 6)),
            lambda: f"{_letters(rng, 2)}-{_digits(rng, 4)}",
            lambda: f"{_letters(rng, 1)}{_digits(rng, rng.randint(2, 4))}",
            lambda: f"{_letters(rng, 1)}{_digits(rng, 1)}{_letters(rng, 1)}-{_digits(rng, 1)}{_letters(rng, 1)}",
            lambda: f"{_digits(rng, 2)}-{_digits(rng, 2)}-{_digits(rng, 2)}",
        )
    )()


def _room(rng: Random) -> str:
    return rng.choice(
        (
            lambda: f"{rng.randint(1, 12)}-{rng.randint(1, 40)}",
            lambda: f"{_letters(rng, 1)}{rng.randint(1, 30)}",
            lambda: str(rng.randint(10, 999)),
        )
    )()


code = _of_split(_code)
room = _of_split(_room)
phone = _of_split(lambda rng: f"{_digits(rng, 4)} {_digits(rng, rng.randint(3, 5))}")
number = _of_split(lambda rng: str(rng.randint(2, 9999 if rng.random() < 0.5 else 99)))
version = _of_split(lambda rng: f"{rng.randint(0, 9)}.{rng.randint(0, 30)}.{rng.randint(0, 30)}")
amount = _of_split(lambda rng: f"{rng.randint(2, 990)} {rng.choice(('euros', 'dollars', 'pounds'))}")


def password(rng: Random, split: Split) -> str:
    return made_up_word(rng, split) + _digits(rng, rng.randint(0, 4))


def date(rng: Random, split: Split) -> str:
    day = f"{rng.randint(1, 28)} {rng.choice(MONTHS)}"
    return f"{day} {rng.randint(1940, 2039)}" if rng.random() < 0.25 else day


def time_of_day(rng: Random, split: Split) -> str:
    return f"{rng.randint(0, 23):02d}:{rng.randint(0, 11) * 5:02d}"


def weekday(rng: Random, split: Split) -> str:
    return rng.choice(WEEKDAYS)
