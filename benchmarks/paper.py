"""The benchmarks of the GLiNER paper and its figures, as far as they could be verified.

Zaratiana, Tomeh, Holat, Charnois: GLiNER: Generalist Model for Named Entity Recognition using
Bidirectional Transformer, 2023, arXiv 2311.08526. A figure stands here only where a second public
source gives it, too; the other cells of the paper's tables stay empty, and are not guessed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

SOURCE = "GLiNER (Zaratiana et al., 2023), arXiv 2311.08526"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A table of the paper: F1 by exact match, in percent, zero-shot.

    Attributes:
        title: What it measures.
        folder: Where its files lie, looked up by `nerlet.examples.find_data`.
        sets: Name of a file without suffix, in lower case -> the paper's name, in its order.
        rows: The paper's systems: name -> F1 by file name.
        note: What a reader has to know of the comparison.
    """

    title: str
    folder: str
    sets: Mapping[str, str]
    rows: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    note: str = ""


_OOD = {
    "mit_movie": "Movie",
    "mit_restaurant": "Restaurant",
    "crossner_ai": "AI",
    "crossner_literature": "Literature",
    "crossner_music": "Music",
    "crossner_politics": "Politics",
    "crossner_science": "Science",
}


def _ood(*f1: float | None) -> dict[str, float]:
    """F1 in the order of the paper's columns, without empty cells."""
    cells = zip(_OOD, f1, strict=True)
    return {name: value for name, value in cells if value is not None}


TABLE1 = Benchmark(
    title="Table 1: zero-shot F1 on out-of-domain sets",
    folder="eval/ood",
    sets=_OOD,
    rows={
        # UniversalNER (Zhou et al., 2023, arXiv 2308.03279), its Table 3
        "ChatGPT": _ood(5.3, 32.8, 52.4, 39.8, 66.6, 68.5, 67.0),
        "UniNER-7B": _ood(42.4, 31.7, 53.5, 59.4, 65.0, 60.8, 61.1),
        "UniNER-13B": _ood(48.7, 36.2, 54.2, 60.9, 64.5, 61.4, 63.5),
        # PaDeLLM-NER (Lu et al., 2024), its Table 3
        "GoLLIE": _ood(63.0, 43.4, 59.1, 62.7, 67.8, 57.2, None),
        "GLiNER-L": _ood(57.2, 42.9, 57.2, 64.4, 69.6, 72.6, 62.6),
        # Papers with Code, InstructUIE (Wang et al., 2023)
        "InstructUIE": _ood(None, None, 49.0, 47.2, 53.2, None, None),
    },
    note="Cells and rows of the paper (USM, GLiNER-S and M) that no second public source confirmed "
    "are left out.",
)

TABLE2 = Benchmark(
    title="Table 2: zero-shot F1 on the 20 NER sets",
    folder="eval/b20",
    sets={
        "ace05": "ACE05",
        "anatem": "AnatEM",
        "bio_bc2gm": "bc2gm",
        "bio_bc4chemd": "bc4chemd",
        "bio_bc5cdr": "bc5cdr",
        "broad_twitter": "Broad Twitter",
        "conll_en": "CoNLL03",
        "fabner": "FabNER",
        "findvehicle": "FindVehicle",
        "genia": "GENIA",
        "harveyner": "HarveyNER",
        "mit_movie": "MIT Movie",
        "mit_restaurant": "MIT Restaurant",
        "multinerd": "MultiNERD",
        "bio_ncbi_disease": "ncbi",
        "ontonotes": "OntoNotes",
        "polyglotner": "PolyglotNER",
        "tweetner7": "TweetNER7",
        "wikiann_en": "WikiANN",
        "wikineural_en": "wikiNeural",
    },
    note="The paper's figures are left out: no second public source confirmed them. It reads whole "
    "test sets; a file may hold a part of one.",
)

TABLE3 = Benchmark(
    title="Table 3: zero-shot F1 in other languages",
    folder="eval/lang",
    sets={
        "multiconer2_fa": "MultiCoNER v2 fa",
        "multiconer2_hi": "MultiCoNER v2 hi",
        "wikineural_de": "WikiNEuRal de",
        "wikineural_es": "WikiNEuRal es",
        "wikineural_ru": "WikiNEuRal ru",
    },
    note="Not the paper's sets: it reads MultiCoNER v1, with 6 coarse types, in 11 languages. "
    "MultiCoNER v2 has 33 fine types and other texts, and WikiNEuRal is not in that table; so no "
    "cell of the paper stands beside these.",
)


@dataclass(frozen=True, slots=True)
class Ablation:
    """A table or figure of the paper that compares ways to train.

    Attributes:
        title: What it measures.
        sweep: The file in `sweeps` that trains its variants, without suffix.
        note: What the paper does and finds, as far as verified.
    """

    title: str
    sweep: str
    note: str


ABLATIONS = {
    "table5": Ablation(
        "Table 5: share of negative types in training",
        "negatives",
        "The paper compares 0%, 50% and 75% and finds 50% best: without negatives there are more "
        "false positives, with 75% more misses. Its figures are left out: not verified.",
    ),
    "figure4": Ablation(
        "Figure 4: pretrained encoders",
        "backbones",
        "The paper compares other encoders than these. Its figures are left out: not verified.",
    ),
    "figure5": Ablation(
        "Figure 5 and Table 4: supervised training by number of rows",
        "supervised",
        "The paper fine-tunes on the 20 NER sets; here it is one source, with dev rows held out of "
        "it. Steps are the same for every number of rows. Its figures are left out: not verified.",
    ),
    "figure6": Ablation(
        "Figure 6: leaving out types in training",
        "type_dropping",
        "The paper varies the number of types asked for, and gains about 1.4 points of F1. Its "
        "figures are left out: not verified.",
    ),
    "recipe": Ablation(
        "The default model's recipe, one choice at a time",
        "recipe",
        "Not in the paper: 600 steps from the encoder, one seed, all of dev/zero; the folder "
        "is dev/seen, of which gliner_medical_llm and pilener_slimer_all were never trained on.",
    ),
}
