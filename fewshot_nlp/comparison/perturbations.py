"""Changes of texts that should leave their labels as they are, as they come in real texts, without templates.

Papers: Ribeiro et al. 2020, CheckList (invariance tests); Mishra et al. 2020, Assessing Demographic Bias in Named
Entity Recognition (first names by gender and origin); Rychalska et al. 2019, Models in the Wild (misspellings, reading
errors). Word by word, so that tags stay at their words. A change may leave a text as it is.
"""

import random
import re
from collections.abc import Callable, Mapping

from fewshot_nlp.episode import Example, Json

Change = Callable[[str, random.Random], str]
"""A word, and random numbers of the text's own, to a word."""

NAMES: Mapping[str, tuple[str, ...]] = {
    group: tuple(names.split())
    for group, names in {
        "women, English": "Emily Sarah Anne Jessica Claire Katie Laura Rachel",
        "men, English": "James John Robert Michael David Thomas Peter Greg",
        "women, African American": "Latoya Ebony Keisha Tamika Lakisha Aisha Latisha Shanice",
        "men, African American": "Darnell Jamal Tyrone DeShawn Leroy Rasheed Tremayne Hakim",
        "women, Arabic": "Fatima Layla Zainab Amina Noor Samira Yasmin Huda",
        "men, Arabic": "Mohammed Ahmed Omar Hassan Khalid Youssef Tariq Ibrahim",
        "women, Indian": "Priya Ananya Lakshmi Sunita Deepika Kavita Meera Pooja",
        "men, Indian": "Rajesh Arjun Sanjay Vikram Amit Suresh Anil Rahul",
        "women, Chinese": "Mei Xiuying Fang Jing Yan Lihua Ying Xia",
        "men, Chinese": "Wei Jun Qiang Ming Hao Zhiwei Guang Bo",
        "women, Spanish": "Maria Lucia Carmen Sofia Elena Isabel Rosa Pilar",
        "men, Spanish": "Jose Carlos Luis Miguel Javier Diego Pablo Alejandro",
    }.items()
}
MORE = """
Mary Patricia Jennifer Linda Elizabeth Barbara Susan Karen Nancy Lisa Betty Margaret Sandra Ashley William
Richard Joseph Charles Christopher Daniel Matthew Anthony Donald Steven Paul Andrew Joshua Kenneth Kevin Brian
George Edward Ronald Jason Timothy Jeffrey Ryan Jacob Gary Nicholas Eric Jonathan Stephen Larry Justin Scott
Brandon Benjamin Samuel Hans Anna Julia Martin Stefan Claudia Henry Frank Alice Bob Tom Jane Simon Helen
"""
KNOWN = {*MORE.split(), *(x for g in NAMES.values() for x in g)} - {"Bo", "Mark", "Ming", "Rosa", "Fang"}
"""First names that are replaced; those that are also other words are left out."""


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split("/") for pair in text.split())


INFORMAL = _pairs("""
isn't/ain't aren't/ain't haven't/ain't them/em going/goin about/bout because/cuz something/somethin
nothing/nothin want/wanna with/w and/n you/u your/ur are/r please/pls though/tho through/thru people/ppl
thanks/thx
""")
SPELLING = _pairs("""
colour/color centre/center licence/license cheque/check organisation/organization labour/labor tumour/tumor
anaemia/anemia defence/defense programme/program
""")
READING = _pairs("l/1 o/0 e/c m/rn s/5 b/6 i/l h/b a/o u/v")
NOISE, MISREAD = 0.2, 0.05
"""Share of words with a misspelling, and of letters that are read as others."""


def _as(word: str, new: str) -> str:
    """A word with another's capitals."""
    return (
        new.upper() if word.isupper() and len(word) > 1 else new.capitalize() if word[:1].isupper() else new
    )


def misspelt(word: str, rng: random.Random) -> str:
    """Two neighbouring letters changed places, or one doubled or lost, in a fifth of the words from four letters."""
    if len(word) < 4 or not word.isalpha() or rng.random() >= NOISE:
        return word
    at = rng.randrange(1, len(word) - 1)
    return rng.choice(
        [
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[: at + 1] + word[at:],
            word[:at] + word[at + 1 :],
        ]
    )


def misread(word: str, rng: random.Random) -> str:
    """Letters as a scanner might read them."""
    return "".join(READING[c] if c in READING and rng.random() < MISREAD else c for c in word)


def informal(word: str, rng: random.Random) -> str:
    """Forms of speech and short messages: "goin'", "cuz", "u"."""
    if word.lower() in INFORMAL:
        return _as(word, INFORMAL[word.lower()])
    return word[:-1] + "'" if word.endswith("ing") and len(word) > 5 else word


def spelling(word: str, rng: random.Random) -> str:
    """British words in American spelling, and the other way round."""
    other = SPELLING | {new: old for old, new in SPELLING.items()}
    return _as(word, other[word.lower()]) if word.lower() in other else word


def renamed(group: str) -> Change:
    """A change of known first names to those of a group."""

    def change(word: str, rng: random.Random) -> str:
        return rng.choice(NAMES[group]) if word in KNOWN else word

    return change


NOISES: Mapping[str, Change] = {
    "lower case": lambda word, rng: word.lower(),
    "upper case": lambda word, rng: word.upper(),
    "misspelt": misspelt,
    "misread": misread,
    "informal": informal,
    "British or American spelling": spelling,
}
GROUPS: Mapping[str, Change] = {group: renamed(group) for group in NAMES}


def changed(example: Example, change: Change, seed: int) -> Example:
    """The example with every word of its text changed; of a question with its context the question.

    Args:
        example: its target stays.
        change: of a word.
        seed: of the text's random numbers.
    """
    rng = random.Random(seed)
    inputs: dict[str, Json] = dict(example.inputs)
    if "tokens" in inputs:
        return Example({"tokens": [change(word, rng) or word for word in inputs["tokens"]]}, example.target)
    column = next(c for c in ("question", "text") if c in inputs)
    inputs[column] = re.sub(r"\w+(?:'\w+)?", lambda found: change(found[0], rng), inputs[column])
    return Example(inputs, example.target)
