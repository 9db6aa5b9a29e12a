"""Training on scikit-learn's bundled digits: 1,797 grey images of 8 x 8, ten classes, no download.

The images are enlarged (bilinearly) to the network's own input size. The split is fixed: 1,197 for
training, 300 for validation, 300 for a last test that no search sees. A training is short on purpose,
one pass over a part of the training set, so that a search of dozens of trainings takes minutes; what
separates architectures is how much they learn from the same few steps.

Results are deterministic for a seed, a thread count and a version of torch, also where several threads of a
process train at the same time.
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
_RANDOM_STATE = threading.Lock()


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
    """`evaluate` of a search: trains a network on the digits, gives its accuracy (0..1) on `split`.

    Called with the module and, as a LatencyObjective does, the trial, which it does not need.
    """

    resolution: int | None = None  # side of the enlarged images; None: as the module's `input_shape` says, or 64
    seed: int = 0
    threads: int = 1  # two trainings at a time (`run_study(n_jobs=2)`) use two cores better than one on two
    steps: int = 56
    batch: int = 8
    rate: float = 6e-3  # the highest learning rate of the one-cycle schedule
    split: str = "validation"

    def __call__(self, module: nn.Module, trial: Any = None) -> float:
        """Train `module` in place and score it."""
        shape = tuple(getattr(module, "input_shape", (1, 1, 64, 64)))
        shape = (*shape[:2], self.resolution, self.resolution) if self.resolution else shape
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
            norm.momentum = 0.3  # few steps: the running statistics must catch up
        optimiser = torch.optim.AdamW(module.parameters(), lr=self.rate, weight_decay=1e-2, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, self.rate, total_steps=max(self.steps, 2), pct_start=0.3
        )
        train = splits()["train"]
        generator = torch.Generator().manual_seed(self.seed)
        rounds = range(self.steps * self.batch // len(train) + 1)
        order = torch.cat([torch.randperm(len(train), generator=generator) for _ in rounds])
        for picked in torch.split(order[: self.steps * self.batch], self.batch):
            output = module(enlarge(train.images[picked], shape))
            loss = functional.cross_entropy(output, train.labels[picked], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()


def enlarge(images: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """[n, 1, 8, 8] -> [n, c, h, w] for a network's input [1, c, h, w]: bilinear, grey in every channel."""
    large = functional.interpolate(images, size=shape[-2:], mode="bilinear", align_corners=False)
    return large.expand(-1, shape[1], -1, -1)


def accuracy(module: nn.Module, data: Split, shape: tuple[int, ...], batch: int = 100) -> float:
    """Share (0..1) of `data` that `module`, which takes images of `shape`, classifies rightly."""
    module.eval()
    with torch.inference_mode():
        right = [
            (module(enlarge(x, shape)).argmax(1) == y).sum()
            for x, y in zip(torch.split(data.images, batch), torch.split(data.labels, batch), strict=True)
        ]
    return float(sum(int(r) for r in right)) / len(data)


def _initialise(module: nn.Module, seed: int) -> None:
    """Fresh weights, so that a module's history does not matter; the random state is left as it was."""
    with _RANDOM_STATE, torch.random.fork_rng(devices=[]):  # the state is the whole process's
        torch.manual_seed(seed)
        for m in module.modules():
            reset = getattr(m, "reset_parameters", None)
            if callable(reset):
                reset()
