"""How many training examples a second: the plain loop beside ours, on the same rows.

Variants, from the plain loop to the default model's:

* reference: gliner's model, collator and AdamW in fp32: rows at natural length in batches of 8,
  padded, labels beside every text, the span head unfolded, dropout 0.4;
* joint: ours, the same rows at natural length, packed without padding, the span head folded;
* joint, crops: texts cut to 40 words around an entity;
* isolated, crops: labels encoded once a batch;
* isolated, crops, bf16: the same with bf16 products, where the processor has them.

Timed: forward, backward, clipping and the optimiser's step; not timed: drawing examples and making
batches. Weights are random, of MiniLM-L6's shape, from the encoder's own package. Variants
alternate, one step of each a round.

Run: python benchmarks/training.py [--rounds 12] [--threads 1]
"""

import argparse
import gzip
import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness import print_result, print_table
from nerlet.examples import find_data
from nerlet_export.checkpoint import start_model
from nerlet_export.corpus import Corpus
from nerlet_export.data import make_batch
from nerlet_export.optimizer import make_optimizer
from nerlet_export.predict import prompt_layout
from nerlet_export.pretrained import find_encoder
from nerlet_export.settings import Settings, read_settings
from nerlet_export.train import load_corpus, step_examples, train_step

_RUN = Path(__file__).parents[1] / "export" / "runs" / "small.toml"
_BATCH = 8  # texts of the reference's batches, as in the paper

Step = Callable[[], tuple[int, int]]  # one step -> its examples and words


def main() -> None:
    """Time the variants in alternation; print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12, help="timed steps of each variant")
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = read_settings(_RUN)
    joint = {**settings.model, "label_attention": "joint", "label_pooling": "first"}
    whole = replace(settings.sampling, crop_words=0)
    corpus = load_corpus(settings, start_model(settings.encoder, dict(settings.model)))
    steps: dict[str, Step] = {
        "reference": _reference_step(settings),
        "joint": _our_step(
            replace(settings, model=joint, sampling=whole, precision="fp32"), corpus
        ),
        "joint, crops": _our_step(replace(settings, model=joint, precision="fp32"), corpus),
        "isolated, crops": _our_step(replace(settings, precision="fp32"), corpus),
        "isolated, crops, bf16": _our_step(replace(settings, precision="bf16"), corpus),
    }
    rates = _measure(steps, options.rounds)
    base = rates["reference"]["examples_per_s"]
    header = ("variant", "examples/s", "words/s", "examples a step", "ratio")
    rows = [
        (name, rate["examples_per_s"], rate["words_per_s"], rate["examples"], rate["ratio"])
        for name, rate in (
            (name, {**rate, "ratio": rate["examples_per_s"] / base}) for name, rate in rates.items()
        )
    ]
    print_table(header, rows)
    fields = ("variant", "examples_per_s", "words_per_s", "examples_a_step", "ratio")
    results = [dict(zip(fields, row, strict=True)) for row in rows]
    print_result("training", [{"threads": options.threads, **result} for result in results])


def _measure(steps: dict[str, Step], rounds: int) -> dict[str, dict[str, float]]:
    """Examples and words a second of each variant: totals over the total time of its steps."""
    totals = {name: np.zeros(3) for name in steps}
    for round_number in range(-1, rounds):  # the first is not timed
        for name, step in steps.items():
            begin = time.perf_counter()
            examples, words = step()
            elapsed = time.perf_counter() - begin
            if round_number >= 0:
                totals[name] += (examples, words, elapsed)
    return {
        name: {
            "examples_per_s": examples / seconds,
            "words_per_s": words / seconds,
            "examples": examples / rounds,
        }
        for name, (examples, words, seconds) in totals.items()
    }


def _our_step(settings: Settings, corpus: Corpus) -> Step:
    """Our loop's step, on batches made beforehand."""
    torch.manual_seed(0)
    checkpoint = start_model(settings.encoder, dict(settings.model))
    optimizer = make_optimizer(checkpoint.span_model, settings.optimization)
    layout = prompt_layout(checkpoint)
    batches = [
        make_batch(examples, corpus.label_pieces, layout)
        for pool in range(3)
        for examples in step_examples(corpus, settings.data.mixture, layout, settings, pool)
    ]
    turn = iter(batches * 100)

    def step() -> tuple[int, int]:
        batch = next(turn)
        train_step(checkpoint.span_model, optimizer, batch, settings, 100)
        return len(batch.lengths), int(batch.lengths.sum())

    return step


def _reference_step(settings: Settings) -> Step:
    """The step of a plain loop around the reference's model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from gliner import GLiNER
        from gliner.data_processing.collator import UniEncoderSpanDataCollator
    torch.manual_seed(0)
    config = {
        "model_name": str(find_encoder(settings.encoder)),
        "num_rnn_layers": 0,
        "dropout": 0.4,
        "max_width": 12,
        "max_len": 384,
        "class_token_index": -1,
        "vocab_size": -1,
    }
    model = GLiNER.from_config(config, backbone_from_pretrained=True).train()
    collate = UniEncoderSpanDataCollator(
        model.config, data_processor=model.data_processor, prepare_labels=True
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    batches = _reference_batches(settings, collate)

    def step() -> tuple[int, int]:
        batch, words = next(batches)
        loss = model(**batch).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return _BATCH, words

    return step


def _reference_batches(
    settings: Settings, collate: Callable[..., Any]
) -> Iterator[tuple[dict[str, Any], int]]:
    """Batches of rows drawn by the run's own mixture, made beforehand."""
    rng = np.random.default_rng(0)
    by_source: dict[str, list[dict[str, Any]]] = {}
    with gzip.open(find_data(settings.data.train), "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["license"] == "permissive" and row["ner"]:
                by_source.setdefault(row["source"], []).append(row)
    names = sorted(settings.data.mixture.keys() & by_source.keys())
    weights = np.array([settings.data.mixture[name] for name in names])
    batches = []
    for _ in range(24):
        drawn = rng.choice(names, size=_BATCH, p=weights / weights.sum())
        rows = [by_source[name][rng.integers(len(by_source[name]))] for name in drawn]
        inputs = [{"tokenized_text": row["tokenized_text"], "ner": row["ner"]} for row in rows]
        batches.append((dict(collate(inputs)), sum(len(row["tokenized_text"]) for row in rows)))
    return iter(batches * 100)


if __name__ == "__main__":
    main()
