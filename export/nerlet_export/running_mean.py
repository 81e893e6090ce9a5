"""The running mean of a model's weights: steadier than the weights of any one step."""

from copy import deepcopy
from typing import Any

import torch

from nerlet_export.model import SpanModel


class RunningMean:
    """Follows a model in training; with a decay of 0 it is that model.

    After n steps a step's share is 1 - min(decay, (1 + n) / (10 + n)), so that the mean soon
    forgets where the weights began.

    Attributes:
        model: The mean.
    """

    def __init__(self, model: SpanModel, decay: float) -> None:
        self.model = model if decay == 0 else deepcopy(model)
        self._followed = model
        self._decay = decay
        self._updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the followed model's weights, after a step."""
        if self.model is self._followed:
            return
        self._updates += 1
        share = 1.0 - min(self._decay, (1 + self._updates) / (10 + self._updates))
        new = self._followed.state_dict()
        for name, mean in self.model.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(new[name], share)

    def state_dict(self) -> dict[str, Any]:
        """What an exact resume needs."""
        return {"updates": self._updates, "model": self.model.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state."""
        self._updates = state_dict["updates"]
        if self.model is not self._followed:  # which has a state of its own
            self.model.load_state_dict(state_dict["model"])
