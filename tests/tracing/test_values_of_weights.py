"""Forwards that assign to `data`, write into weights or read their values: counted, and no mark on the module."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hwcost

X = torch.linspace(-1, 1, 48).view(6, 8)


class Norm(nn.Linear):
    """A layer with a bounded norm, as in networks for EEG."""

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data = torch.renorm(self.weight.data, p=2, dim=0, maxnorm=1.0)
        self.weight.data = self.weight.data * 2
        return super().forward(x)


class OfInput(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        self.weight.data = self.weight.data + x.mean()
        return super().forward(x)


class Halved(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        self.weight.data, self.bias.data = self.weight.data[:4], self.bias.data[:4]
        return super().forward(x)


class Clamped(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        self.weight.data.clamp_(-1, 1)
        self.weight.data[0] = 0
        return super().forward(x)


class NewParameter(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        self.weight = nn.Parameter(self.weight * x.mean())
        return super().forward(x)


class Scales(nn.Linear):
    """Reads a value of an activation, so that all is computed, and writes into its weight."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)
        with torch.no_grad():
            self.weight.mul_(0.5)
        return y @ self.weight if float(y.sum()) < 1e9 else y


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("layer", "outputs"), [(Norm, 8), (OfInput, 8), (Halved, 4), (Clamped, 8), (NewParameter, 8), (Scales, 16)]
)
def test_weights_that_change_in_forward(layer: Any, outputs: int, device: str) -> None:
    module = layer(8, 8)
    weight, values, place = module.weight, module.weight.clone(), module.weight.data_ptr()
    if device == "meta" and layer is Scales:
        with pytest.raises(hwcost.TraceError, match="reads a value"):
            hwcost.trace(module, X.to(device))
    else:
        assert hwcost.trace(module, X.to(device)).cost.macs == 6 * 8 * outputs
    assert module.weight is weight
    assert weight.data_ptr() == place
    assert torch.equal(weight, values)


def test_a_weight_in_place_of_another_is_held_once() -> None:
    module, x = Norm(512, 512, bias=False), torch.zeros(1, 512)
    weight = 512 * 512 * 4
    # The weight and its copy while each is made; the copy is the weight afterwards.
    assert hwcost.trace(module, x).peak_memory == 2 * weight + x.nbytes


class Branches(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)
        return y * 2 if y.sum() > 0 else y


def test_reading_values_copies_no_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[int] = []
    clone = Tensor.clone

    def noting(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        copied.append(tensor.numel())
        return clone(tensor, *args, **kwargs)

    monkeypatch.setattr(Tensor, "clone", noting)
    module = Branches(1024, 256)
    assert hwcost.trace(module, torch.zeros(1, 1024)).notes[0].startswith("computed with the values")
    assert 1024 * 256 not in copied


def test_statistics_of_a_batch_norm_in_training_stay_where_values_are_computed() -> None:
    class Net(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = super().forward(x)
            return y * 2 if y.sum() > 0 else y

    module = Net(nn.Linear(8, 8), nn.BatchNorm1d(8))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    hwcost.trace(module, X, training=True)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
