"""Training on the digits that come with scikit-learn: 1,797 grey images of 8 x 8 pixels in ten classes, no download.

Images are enlarged (bilinearly) to the input size of the network. The split is fixed: 1,197 images for training, 300
for validation, and 300 for a final test that no search sees. A training is short, one pass over a part of the
training set, so that a search of dozens of trainings takes minutes. Accuracies differ by how much an architecture
learns in the same few steps.

A result depends only on the network, the settings of the `Trainer` and the version of torch, also where several threads
of a process train at the same time.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional

VALIDATION = TEST = 300
_RANDOM_STATE = threading.Lock()  # held while a thread uses torch's global random state


@dataclass(frozen=True, slots=True)
class Split:
    """Images [n, 1, 8, 8] in [-0.5, 0.5] and labels [n]."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


@cache
def splits() -> dict[str, Split]:
    """The digits as "train", "validation" and "test", always the same."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    images = (torch.tensor(x, dtype=torch.float32).view(-1, 1, 8, 8) / 16 - 0.5)[order]
    labels = torch.tensor(y)[order]
    parts = {"validation": slice(0, VALIDATION), "test": slice(VALIDATION, VALIDATION + TEST)}
    parts["train"] = slice(VALIDATION + TEST, None)
    return {name: Split(images[part], labels[part]) for name, part in parts.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer:
    """`evaluate` of a search over modules: trains a network on the digits and returns its accuracy (0..1) on `split`.

    The trial, which a LatencyObjective passes as the second argument, is not used.
    """

    resolution: int | None = None  # side of the enlarged images in pixels; None: that of `module.input_shape`, or 64
    seed: int = 0
    threads: int = 1  # on two cores, two trainings at a time (`run_study(n_jobs=2)`) are faster than two threads each
    steps: int = 56  # optimiser steps
    batch: int = 8  # images a step
    rate: float = 6e-3  # the highest learning rate of the one-cycle schedule
    split: str = "validation"

    def __call__(self, module: nn.Module, trial: Any = None) -> float:
        """Train `module` in place, from fresh weights, and return its accuracy."""
        shape = tuple(getattr(module, "input_shape", (1, 1, 64, 64)))
        if self.resolution:
            shape = (*shape[:2], self.resolution, self.resolution)
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            _initialise(module, self.seed)
            self._train(module, shape)
            return accuracy(module, splits()[self.split], shape)
        finally:
            torch.set_num_threads(before)

    def _train(self, module: nn.Module, shape: tuple[int, ...]) -> None:
        module.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.momentum = 0.3  # above the usual 0.1, so that the running statistics converge in few steps
        optimiser = torch.optim.AdamW(module.parameters(), lr=self.rate, weight_decay=1e-2, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, self.rate, total_steps=max(self.steps, 2), pct_start=0.3
        )
        train = splits()["train"]
        generator = torch.Generator().manual_seed(self.seed)
        images = self.steps * self.batch
        epochs = range(images // len(train) + 1)
        order = torch.cat([torch.randperm(len(train), generator=generator) for _ in epochs])
        for picked in torch.split(order[:images], self.batch):
            output = module(enlarge(train.images[picked], shape))
            loss = functional.cross_entropy(output, train.labels[picked], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()


def enlarge(images: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Images [n, 1, 8, 8] for a network with input `shape` [1, c, h, w]: [n, c, h, w], all channels the same."""
    large = functional.interpolate(images, size=shape[-2:], mode="bilinear", align_corners=False)
    return large.expand(-1, shape[1], -1, -1)


def accuracy(module: nn.Module, data: Split, shape: tuple[int, ...], batch: int = 100) -> float:
    """Share (0..1) of `data` that `module`, a network with input `shape`, classifies correctly."""
    module.eval()
    with torch.inference_mode():
        right = [
            (module(enlarge(x, shape)).argmax(1) == y).sum()
            for x, y in zip(torch.split(data.images, batch), torch.split(data.labels, batch), strict=True)
        ]
    return float(sum(int(r) for r in right)) / len(data)


def _initialise(module: nn.Module, seed: int) -> None:
    """Give fresh weights to every layer that has `reset_parameters`; parameters that belong to no such layer stay.

    Torch's random state is restored.
    """
    with _RANDOM_STATE, torch.random.fork_rng(devices=[]):  # all threads share the state
        torch.manual_seed(seed)
        for m in module.modules():
            reset = getattr(m, "reset_parameters", None)
            if callable(reset):
                reset()
