"""Seeded texts of a wanted number of words, as plain as those that models read."""

import numpy as np

_WORDS = (  # noqa: SIM905  (a list would take a page)
    "the patient was given 40 mg of furosemide for acute heart failure at St Mary Hospital while "
    "Bill Gates founded Microsoft in Albuquerque , New Mexico , on April 4 1975 and sold BASIC to "
    "hobbyists all over the country ; iPhone sales fell 3 % in Europe after the Digital Markets "
    "Act took effect , Reuters said , and the University of Geneva signed an agreement with CERN"
).split()


def make_text(words: int, seed: int = 0) -> str:
    """Make a text of so many words, drawn with a seed."""
    rng = np.random.default_rng(seed)
    begin = int(rng.integers(len(_WORDS)))
    return " ".join(_WORDS[(begin + place) % len(_WORDS)] for place in range(words))


def make_labels(count: int) -> list[str]:
    """Make so many different labels, of one to three words."""
    kinds = ("person", "organization", "location", "date", "product", "event", "drug", "law")
    more = ("name", "type", "of interest", "mentioned", "in history", "abroad", "sold", "today")
    names = [*kinds, *(f"{kind} {word}" for word in more for kind in kinds)]
    names += [f"{name} {number}" for number in range(2, 20) for name in names]
    return names[:count]
