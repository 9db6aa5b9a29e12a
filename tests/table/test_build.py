"""Tests of making tables: form by form against block by block, to disk and on, in other processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from hwcost import CostModel, Device, LatencyTable, trace
from hwcost.measure.types import Measurements
from hwcost.search.spaces import get_space
from hwcost.spaces.base import Space
from hwcost.table import build as generation_module
from hwcost.table.build import Walk, priced, tasks
from hwcost.table.price import Pricer
from hwcost.table.schema import TableError

SPACE = """
from torch import nn
from hwcost.search.spaces import Block, Decision, Form, Site, Space


def make(sizes, kernel):
    c_in, c_out, side = sizes
    body = nn.Sequential(nn.Conv2d(c_in, c_out, kernel, 2, kernel // 2, bias=False), nn.BatchNorm2d(c_out), nn.ReLU())
    return body, (1, c_in, side, side)


class Sized(Space):
    name = "sized"
    decisions = (
        Decision("side", (8, 16, 24, 32)),
        Decision("kernel", (1, 3)),
        *(Decision(f"width.{s}", (8, 12, 16)) for s in "abc"),
    )

    def __init__(self):
        self.sites = (
            Site("a", ("side", "width.a"), lambda p: self.block("a", 3, p["width.a"], p["side"], 3)),
            Site("b", ("side", "kernel", "width.a", "width.b"), lambda p: self.later("b", "width.a", p)),
            Site("c", ("side", "kernel", "width.b", "width.c"), lambda p: self.later("c", "width.b", p)),
        )

    def later(self, name, before, p):
        side = p["side"] // (2 if name == "b" else 4)
        return self.block(name, p[before], p[f"width.{name}"], side, p["kernel"])

    def block(self, name, c_in, c_out, side, kernel):
        shape = (1, c_in, side, side)
        return Block.of(name, f"conv {shape} {c_out} k{kernel}", shape, Form(make, (kernel,)), (c_in, c_out, side))

    def input_shape(self, params):
        return (1, 3, params["side"], params["side"])
"""


@pytest.fixture(scope="module", autouse=True)
def _small_tasks() -> Iterator[None]:
    """Several tasks for a small space, and the same ones wherever bits are compared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "__defaults__", (20,))
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where a space of blocks of a few forms is defined, in a file as a user's."""
    path = tmp_path_factory.mktemp("space") / "sized.py"
    path.write_text(SPACE)
    return f"{path}:Sized"


@pytest.fixture(scope="module")
def space(place: str) -> Space:
    return get_space(place)


@pytest.fixture(scope="module")
def model(measurements: Measurements, device: Device) -> CostModel:
    return CostModel.fit(measurements, device=device)


@pytest.fixture(scope="module")
def table(space: Space, model: CostModel) -> LatencyTable:
    return LatencyTable.build(space, model)


def same(a: LatencyTable, b: LatencyTable) -> None:
    """Equal to the last bit: rows, structure, metadata but the date."""
    pd.testing.assert_frame_equal(a.frame, b.frame, check_exact=True, check_dtype=False)
    assert all((p.rows == q.rows).all() and p.decisions == q.decisions for p, q in zip(a.places, b.places, strict=True))
    assert {k: v for k, v in a.meta.items() if k != "date"} == {k: v for k, v in b.meta.items() if k != "date"}


def test_a_walk_gives_every_distinct_block_once(space: Space) -> None:
    """The distinct blocks are those that random architectures are made of, no more and no fewer."""
    walk = Walk(space)
    keys = [block.key for block in walk.blocks()]
    assert len(set(keys)) == len(keys) == walk.rows
    assert walk.done == walk.total
    rng = np.random.default_rng(0)
    stand = {b.key for _ in range(2000) for b in space.blocks(space.sample(rng))}
    assert stand == set(keys)


def test_rows_are_what_the_model_says_of_each_block(table: LatencyTable, space: Space, model: CostModel) -> None:
    """The estimate of the block itself, traced, is the independent way: no template and no arrays."""
    blocks = list(Walk(space).blocks())
    for i in np.random.default_rng(1).choice(len(blocks), 40, replace=False):
        block, row = blocks[i], table.frame.iloc[i]
        with torch.device("meta"):
            graph = trace(block.build(), (torch.empty(block.input_shape),))
        estimate = model.estimate(graph)
        fixed = model.overhead.fixed
        assert row["block"] == block.key
        assert row["latency_s"] == pytest.approx(estimate.latency - fixed, rel=1e-9)
        assert row["high_s"] / row["latency_s"] == pytest.approx(estimate.high / estimate.latency, rel=1e-9)
        assert row["memory_share"] == pytest.approx(estimate.memory_share, abs=1e-9)
        assert row["support"] == pytest.approx(estimate.support, abs=1e-9)
        for name in ("macs", "flops", "bytes"):
            assert row[name] == getattr(graph.cost, name)
        assert (row["params"], row["weight_bytes"], row["peak_memory"]) == (
            graph.params, graph.weight_bytes, graph.peak_memory,
        )  # fmt: skip
        with torch.no_grad():
            out = block.build().eval()(torch.zeros(block.input_shape))
        assert row["output_shape"] == "x".join(map(str, out.shape))
        assert row["kernels"] == len(estimate.kernels)


def test_a_space_of_one_wired_network_priced_by_another_runtime(device: Device) -> None:
    """A runtime that fuses takes the other way through the same code."""
    small = get_space("mbconv?resolutions=32")
    model = CostModel.analytic(device, runtime="onnxruntime")
    blocks = list(Walk(small).blocks())[:8]
    found = next(priced(Pricer(model), tasks(blocks)))
    for block, latency in zip(blocks, found["latency_s"], strict=True):
        with torch.device("meta"):
            module = block.build()
        part = model.lower(module, (torch.empty(block.input_shape, device="meta"),), part=True)
        estimate = model.estimate(part)
        assert latency == pytest.approx(estimate.latency, rel=1e-9)


def test_the_sum_of_the_blocks_is_the_estimate_of_the_built_network(
    table: LatencyTable, space: Space, model: CostModel
) -> None:
    """Within 1 % for 200 random networks."""
    rng = np.random.default_rng(2)
    for _ in range(200):
        params = space.sample(rng)
        with torch.device("meta"):
            built = model.estimate(space.build(params), space.inputs(params))
        assert table.estimate(params).latency == pytest.approx(built.latency, rel=0.01)


# -- to disk -------------------------------------------------------------------------------------------


def test_written_is_built(table: LatencyTable, space: Space, model: CostModel, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    seen: list[tuple[int, int]] = []
    rows = LatencyTable.write(space, model, path, progress=lambda done, total: seen.append((done, total)))
    assert rows == len(table)
    assert seen[-1][0] == seen[-1][1]
    same(LatencyTable.load(path), table)
    assert pq.ParquetFile(path).num_row_groups == -(-rows // 20)  # streamed, a row group for each task
    assert list(tmp_path.iterdir()) == [path]


class Stopped(Exception):
    """The run ends here."""


def stop_after(count: int) -> Any:
    def progress(done: int, total: int) -> None:
        nonlocal count
        count -= 1
        if count < 0:
            raise Stopped

    return progress


def test_a_run_goes_on_where_another_ended(
    table: LatencyTable, space: Space, model: CostModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, parts = tmp_path / "t.parquet", tmp_path / "t.parquet.parts"
    with pytest.raises(Stopped):
        LatencyTable.write(space, model, path, progress=stop_after(2))
    whole = sorted(parts.glob("*.parquet"))
    assert len(whole) == 3
    assert pq.read_table(whole[0])["latency_s"].to_pylist() == table.frame["latency_s"][:20].tolist()
    with pytest.raises(TableError, match="is unfinished"):
        LatencyTable.load(path)
    whole[1].write_bytes(whole[1].read_bytes()[:1000])  # a truncated part is made again
    made = []
    price = Pricer.price
    monkeypatch.setattr(Pricer, "price", lambda self, task: made.append(task) or price(self, task))
    LatencyTable.write(space, model, path)
    assert len(made) == -(-len(table) // 20) - 2
    same(LatencyTable.load(path), table)


def test_parts_of_another_table_are_refused(space: Space, model: CostModel, device: Device, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        LatencyTable.write(space, model, tmp_path / "t.parquet", progress=stop_after(0))
    with pytest.raises(TableError, match=r"parts of another table \(model differ\); finish that one first"):
        LatencyTable.write(space, CostModel.analytic(device), tmp_path / "t.parquet")


KILLED = """
import sys
import time
from hwcost import CostModel, LatencyTable
from hwcost.table.build import tasks
from hwcost.search.spaces import get_space
tasks.__defaults__ = (20,)
device, space, path, last, jobs = sys.argv[1:]
made = []


def progress(done, total):
    made.append(done)
    print("part", flush=True)
    if len(made) == int(last):
        time.sleep(600)  # in the middle of the work, until it is killed


LatencyTable.write(get_space(space), CostModel.analytic(device), path, jobs=int(jobs), progress=progress)
"""


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_killed_run_goes_on(place: str, space: Space, device: Device, tmp_path: Path, jobs: str) -> None:
    """SIGKILL in the middle; what is there afterwards is the table of a run that nobody killed, and no process."""
    psutil = pytest.importorskip("psutil")
    path, profile = tmp_path / "t.parquet", tmp_path / "device.toml"
    device.save(profile)
    argv = [sys.executable, "-c", KILLED, str(profile), place, str(path)]
    with subprocess.Popen([*argv, "3", jobs], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        for _ in range(3):
            run.stdout.readline()
        workers = [child for child in psutil.Process(run.pid).children() if "LokyProcess" in " ".join(child.cmdline())]
        assert len(workers) == (2 if jobs == "2" else 0)
        run.send_signal(signal.SIGKILL)
    assert psutil.wait_procs(workers, timeout=30)[1] == []
    assert not path.exists()
    assert len(list((tmp_path / "t.parquet.parts").glob("*.parquet"))) == 3
    subprocess.run([*argv, "0", "1"], check=True, stdout=subprocess.DEVNULL)
    whole = LatencyTable.build(space, CostModel.analytic(Device.load(profile)))
    same(LatencyTable.load(path), whole)


@contextmanager
def small_disk(kilobytes: int) -> Iterator[Path]:
    """A mounted file system of a few kilobytes."""
    folder = tempfile.mkdtemp()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "hwcost-test", folder]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        os.rmdir(folder)
        pytest.skip("mounting a small file system is not permitted here")
    try:
        yield Path(folder)
    finally:
        subprocess.run(["umount", folder], check=True)
        os.rmdir(folder)


def test_a_full_disk(table: LatencyTable, space: Space, model: CostModel) -> None:
    """One line that says what to do; the parts stay readable; with room made, the run goes on."""
    with small_disk(160) as disk:
        path = disk / "t.parquet"
        (disk / "other").write_bytes(bytes(80 * 1024))
        with pytest.raises(TableError, match=r"no space left on the device; make room; .* goes on from there"):
            LatencyTable.write(space, model, path)
        parts = sorted((disk / "t.parquet.parts").glob("*.parquet"))
        assert parts
        latencies = [s for part in parts for s in pq.read_table(part)["latency_s"].to_pylist()]
        assert latencies == table.frame["latency_s"][: len(latencies)].tolist()
        (disk / "other").unlink()
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        LatencyTable.write(space, model, path)
        same(LatencyTable.load(path), table)


def test_other_endings(table: LatencyTable, space: Space, model: CostModel, tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    for ending in ("csv", "yaml"):
        LatencyTable.write(space, model, tmp_path / f"t.{ending}")
        table.save(tmp_path / f"saved.{ending}")
        assert (tmp_path / f"saved.{ending}").read_text() == (tmp_path / f"t.{ending}").read_text()
    rows = pd.read_csv(tmp_path / "t.csv")
    assert list(rows.columns) == list(table.frame.columns)
    np.testing.assert_allclose(rows["latency_s"], table.frame["latency_s"], rtol=1e-15)
    layout = yaml.safe_load((tmp_path / "t.yaml").read_text())
    assert list(layout) == list(table.frame["block"])
    first = layout[table.frame["block"][0]]
    assert set(first) == {"count", "mean"}
    assert first["mean"] == pytest.approx(1000 * table.frame["latency_s"][0], rel=1e-8)  # milliseconds
    with pytest.raises(TableError, match=r"must end in one of .parquet, .csv, .yaml, .yml, but got .*t.json"):
        LatencyTable.write(space, model, tmp_path / "t.json")
    with pytest.raises(TableError, match=r"read from Parquet, but .*t.csv"):
        LatencyTable.load(tmp_path / "t.csv")


# -- elsewhere -----------------------------------------------------------------------------------------


def test_local_processes_give_the_same_table(table: LatencyTable, space: Space, model: CostModel) -> None:
    same(LatencyTable.build(space, model, jobs=2), table)


def test_a_worker_that_dies_ends_the_run_with_one_line(space: Space, model: CostModel, tmp_path: Path) -> None:
    class Deadly(Pricer):
        def __reduce__(self) -> Any:
            return os._exit, (1,)  # when a worker reads it

    with pytest.raises(TableError, match=r"a worker died.*run the same command again, with fewer --jobs"):
        list(priced(Deadly(model), tasks(Walk(space).blocks()), jobs=2))


@contextmanager
def dask_cluster(folder: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A real scheduler and two worker processes of one thread each."""
    dask = [[sys.executable, "-m", f"distributed.cli.dask_{role}"] for role in ("scheduler", "worker")]
    note = folder / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    host = ["--host", "127.0.0.1"]
    running = [
        subprocess.Popen([*dask[0], *host, "--port", "0", "--no-dashboard", "--scheduler-file", str(note)], **quiet)
    ]
    try:
        for _ in range(600):
            if note.exists() and note.read_text().strip():
                break
            time.sleep(0.1)
        address = json.loads(note.read_text())["address"]
        one = ["--nworkers", "1", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(folder)]
        running += [subprocess.Popen([*dask[1], address, *host, *one], **quiet) for _ in range(2)]
        yield address, running[1:]
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_a_dask_worker_is_killed_half_way(
    table: LatencyTable, space: Space, model: CostModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler gives its tasks to the other one: the table is complete and the same."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("PYTHONPATH", str(Path(generation_module.__file__).parents[2]))
    killed: list[int] = []
    with dask_cluster(tmp_path) as (address, workers), distributed.Client(address, timeout="60s") as client:
        client.wait_for_workers(2, timeout=120)

        def progress(done: int, total: int) -> None:
            if not killed:
                workers[0].send_signal(signal.SIGKILL)
                killed.append(workers[0].wait())

        with joblib.parallel_config("dask"):
            LatencyTable.write(space, model, tmp_path / "t.parquet", jobs=None, progress=progress)
        assert killed == [-signal.SIGKILL]
        assert len(client.scheduler_info()["workers"]) == 1
    same(LatencyTable.load(tmp_path / "t.parquet"), table)
