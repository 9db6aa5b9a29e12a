"""Tests of hwcost.search.digits: the split, determinism, and that a training learns."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from hwcost.search.digits import Trainer, accuracy, enlarge, splits


def small() -> nn.Module:
    """A network that learns something in 30 steps."""
    body = [nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32)]
    network = nn.Sequential(*body, nn.ReLU(), nn.Flatten(), nn.Linear(32 * 4 * 4, 10))
    network.input_shape = (1, 1, 16, 16)  # type: ignore[assignment]
    return network


trainer = Trainer(steps=30)


def test_every_image_is_in_one_part() -> None:
    """1,797 images, as scikit-learn's documentation counts them."""
    parts = splits()
    assert {name: len(part) for name, part in parts.items()} == {"train": 1197, "validation": 300, "test": 300}
    images = torch.cat([part.images for part in parts.values()]).flatten(1)
    from sklearn.datasets import load_digits

    everything = torch.tensor(load_digits().data, dtype=torch.float32) / 16 - 0.5
    assert sorted(map(tuple, images.tolist())) == sorted(map(tuple, everything.tolist()))


def test_a_training_learns() -> None:
    assert trainer(small()) > 0.5  # chance is 0.1


def test_a_seed_repeats_a_training_whatever_the_module_was() -> None:
    first, used = trainer(small()), small()
    Trainer(steps=5, seed=9)(used)
    assert trainer(used) == first


def test_another_seed_is_another_training() -> None:
    def weights(seed: int) -> torch.Tensor:
        network = small()
        Trainer(steps=3, seed=seed)(network)
        return next(network.parameters())

    assert not torch.equal(weights(0), weights(1))


def test_trainings_at_the_same_time_do_not_disturb_each_other() -> None:
    alone = trainer(small())
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(trainer, [small(), small()])) == [alone, alone]


def test_the_random_state_and_thread_count_are_left_as_they_were() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    network, threads = small(), torch.get_num_threads()
    torch.manual_seed(3)
    Trainer(steps=2, threads=threads + 1)(network)
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == threads


def test_images_fit_the_network() -> None:
    assert enlarge(splits()["test"].images[:2], (1, 3, 24, 24)).shape == (2, 3, 24, 24)


def test_accuracy_is_the_share_of_right_answers() -> None:
    class Always(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.one_hot(torch.full((len(x),), 7), 10).float()

    data = splits()["validation"]
    share = sum(int(y) == 7 for y in data.labels) / 300
    assert accuracy(Always(), data, (1, 1, 8, 8)) == pytest.approx(share)
