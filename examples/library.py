"""The texts that the example agents read: which there are, their sections, searching and counting.

Plain functions over files in texts/, which are read once. What an agent may call of it is in agent/tools.py.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TEXTS = Path(__file__).with_name("texts")

#: Too frequent to say anything about a passage. Only what the three texts and plain questions are full of.
_COMMON = """
    a about all an and any are as at be been but by can did do does for from has have he his how i in is it its me my no
    nor not of on or our say says shall so such than that the their them there these they this those to upon us was we
    what when where which who whose will with would you your
"""
COMMON_WORDS = frozenset(_COMMON.split())

WORD = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*")


class NoSuchText(LookupError):
    """Names the texts that there are, so that whoever asked can ask again."""


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    heading: str
    text: str

    @property
    def source(self) -> str:
        return f"{self.title}, {self.heading}"


@dataclass(frozen=True, slots=True)
class Text:
    title: str
    sections: tuple[Section, ...]

    @property
    def text(self) -> str:
        return "\n\n".join(section.text for section in self.sections)


def words(text: str) -> list[str]:
    """Lower-case words in order; "battle-field" and "Nature's" are one word each."""
    return [match.group().lower() for match in WORD.finditer(text)]


def telling_words(text: str) -> list[str]:
    return [word for word in words(text) if word not in COMMON_WORDS]


def sentences(text: str) -> list[str]:
    flat = " ".join(text.split())
    return [part.strip() for part in re.split(r"(?<=[.:;?!])\s+(?=[A-Z-])", flat) if part.strip()]


@cache
def texts() -> tuple[Text, ...]:
    """All texts, by file name."""
    return tuple(_parse(path.read_text("utf-8")) for path in sorted(TEXTS.glob("*.md")) if path.stem != "README")


def get_text(title: str) -> Text:
    """The text whose title shares the most words with `title` ("the gettysburg address", "bill of rights").

    raises NoSuchText when it shares none
    """
    asked = set(telling_words(title))
    found = max(texts(), key=lambda text: len(asked & set(words(text.title))))
    if not asked & set(words(found.title)):
        raise NoSuchText(f"The library has no {title!r}. It has: {', '.join(text.title for text in texts())}.")
    return found


def search(query: str, limit: int = 3) -> list[Section]:
    """The sections that hold the query's words, best first; a rare word weighs more than a frequent one."""
    sections = [section for text in texts() for section in text.sections]
    bags = [Counter(words(section.text + " " + section.heading)) for section in sections]
    weights = {
        word: math.log(1 + len(sections) / holding)
        for word in sorted(set(telling_words(query)))
        if (holding := sum(word in bag for bag in bags))
    }
    scores = [sum(weight for word, weight in weights.items() if bag[word]) for bag in bags]
    order = sorted(range(len(sections)), key=lambda i: (-scores[i], i))
    return [sections[i] for i in order[:limit] if scores[i] > 0]


def _parse(source: str) -> Text:
    """`# Title`, then sections of `## Heading` and paragraphs."""
    head, *parts = source.split("\n## ")
    title = head.removeprefix("# ").strip()
    pairs = [part.split("\n", 1) for part in parts]
    return Text(title, tuple(Section(title, heading.strip(), text.strip()) for heading, text in pairs))
