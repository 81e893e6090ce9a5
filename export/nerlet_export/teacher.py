"""Soft targets from a larger model: distillation.

The teacher scores the same spans against the same labels; a student is trained on a mean of what
the rows say and what the teacher finds. Where the rows say nothing, the teacher alone is asked.

Source: Hinton, Vinyals, Dean, 2015, with temperature 1.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from nerlet.errors import InputError
from nerlet_export.checkpoint import Checkpoint
from nerlet_export.data import Batch, Example, make_batch
from nerlet_export.precision import autocast
from nerlet_export.predict import prompt_layout


class Teacher:
    """A trained model that scores a student's batches.

    Attributes:
        share: Of the teacher in each target that the rows give, too.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        student: Checkpoint,
        labels: Sequence[str],
        *,
        share: float,
        precision: str,
    ) -> None:
        """Check that the teacher reads what the student reads.

        Args:
            checkpoint: The teacher, on the device of the run.
            student: Whose pieces batches are made of.
            labels: All that batches may ask for.
            share: Of the teacher in a target, 0 to 1.
            precision: Of the run.

        Raises:
            InputError: It splits words into other pieces, or takes spans of another width.
        """
        self.share = share
        self._model = checkpoint.span_model.eval()
        self._layout = prompt_layout(checkpoint)
        self._precision = precision
        own, read = checkpoint.tokenizer.get_vocab(), student.tokenizer.get_vocab()
        special = {str(token) for token in student.tokenizer.get_added_tokens_decoder().values()}
        self._ids = {place: own.get(name, -1) for name, place in read.items()}
        other = [name for name in read if name not in own and name not in special]
        self._label_pieces = dict(zip(labels, checkpoint.pieces.encode_units(labels), strict=True))
        for label, pieces in zip(labels, student.pieces.encode_units(labels), strict=True):
            if self._translate(pieces) != self._label_pieces[label]:
                other.append(label)
        if other:
            raise InputError(
                "teacher: expected a model with the student's word pieces, but of these it has "
                f"others or none: {', '.join(map(repr, other[:3]))}; take one of the same tokenizer"
            )
        width, expected = checkpoint.model.config.max_width, student.model.config.max_width
        if width != expected:
            raise InputError(f"teacher: max_width is {width}, expected the student's, {expected}")

    def soften(self, batch: Batch, examples: Sequence[Example]) -> Batch:
        """Draw a batch's targets towards the teacher's scores.

        Args:
            batch: Of the examples, on the CPU.
            examples: In pieces of the student.

        Returns:
            The batch; cells that carried no loss and lie in a text have the teacher's score as
            their target, and its share as their weight.
        """
        translated = [
            replace(example, words=[self._translate(word) for word in example.words])
            for example in examples
        ]
        device = next(self._model.parameters()).device
        own = make_batch(translated, self._label_pieces, self._layout).to(device)
        with torch.no_grad(), autocast(self._precision, device):
            scores = self._model.score_batch(own).float().sigmoid().to(batch.targets.device)
        is_known = batch.weights > 0
        is_real = (batch.is_span[:, :, None] & batch.is_label[:, None, :]).float()
        mixed = batch.targets + self.share * (scores - batch.targets)
        return replace(
            batch,
            targets=torch.where(is_known, mixed, scores),
            weights=torch.where(is_known, batch.weights, self.share * is_real),
        )

    def _translate(self, pieces: Sequence[int]) -> tuple[int, ...]:
        return tuple(self._ids.get(piece, -1) for piece in pieces)
