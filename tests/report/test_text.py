"""Tests of hwcost.report.text: tables for the terminal."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from hwcost.model.accuracy import Accuracy, Comparison
from hwcost.report.text import accuracy_lines, block_table, ceiling_table, comparison_table, describe_path, device_table


def printed(table, width=100):
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_devices(result):
    head, line = printed(device_table([result.device]))
    assert head.split() == ["device", "kind", "cores", "float32", "DRAM", "ridge", "ceilings"]
    # two cores at 140 GFLOP/s each, one bus of 14 GB/s
    assert line.split("  ")[0] == "this-machine"
    assert "280 GFLOP/s" in line
    assert "14 GB/s" in line
    assert line.endswith("measured")


def test_ceilings_show_both_values_and_every_source(result):
    text = "\n".join(printed(ceiling_table(result.device), 160))
    assert "140 GFLOP/s  262 GFLOP/s   53 %" in text  # 140 / 262
    assert "float32 matrix product 1536, best of 20; 4.1 GHz x 64 flop per cycle" in text
    assert "memory L2 (1.05 MB)" in text  # 1 MiB


def test_blocks_in_the_order_they_run(result):
    lines = printed(block_table(result.best.estimate, 2))
    assert lines[0].split()[:3] == ["block", "latency", "(ms)"]
    assert [line.split()[0] for line in lines[1:]] == ["stages.0", "stages.1", "stages.2", "head"]
    assert all(line.split()[3] == "%" for line in lines[1:])


def test_a_miss_of_the_interval_is_said(result):
    lines = printed(comparison_table([w.comparison for w in result.winners]))
    verdicts = {" ".join(line.split()[:2]): line.split()[-1] for line in lines[1:]}
    assert verdicts == {"trial 17": "yes", "trial 33": "yes", "trial 58": "yes", "trial 71": "no", "trial 96": "yes"}


def test_accuracy_has_the_clock_beside_it(result):
    text = accuracy_lines(result.held_out, "networks held out of the fit")
    assert text.startswith("60 networks held out of the fit: mean error 4.")
    assert "The clock itself repeats to ±2." in text


@pytest.mark.parametrize(
    ("factor", "said"),
    [(1.08, "They took 8.0 % more than predicted"), (0.9, "They took 10.0 % less than predicted"), (1.01, "")],
)
def test_a_busy_hour_is_told_from_errors_of_single_networks(factor: float, said: str) -> None:
    rows = [
        Comparison(target="t", predicted=t, low=0.95 * t, high=1.05 * t, measured=factor * t, spread=0.02)
        for t in np.linspace(1e-3, 3e-3, 10).tolist()
    ]
    text = accuracy_lines(Accuracy(tuple(rows)), "networks")
    assert (said in text) if said else ("They took" not in text)


def test_two_networks_have_no_rank_correlation(result):
    few = type(result.held_out)(result.held_out.networks[:2])
    assert "Spearman" not in accuracy_lines(few, "networks")


def test_a_file_is_named_with_its_size(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(1500))
    assert describe_path(path) == f"{path} (1.5 kB)"
