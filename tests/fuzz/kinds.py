"""The kinds of files that are damaged: how a whole one is made, and what is asked of one that was read.

A kind has seeds, files or folders that are whole. `ask` reads one and returns an answer, which must be the seed's own
or an error that a user can cause.
"""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from mutations import NASTY, TOKENS, Rng, changed_value, damaged

from hwcost import CostModel, Device, LatencyTable
from hwcost.cli.app import main
from hwcost.extensions import from_file
from hwcost.foreign import SEAL, sealed, unzipped
from hwcost.graph import OpSpec, TensorSpec
from hwcost.importers.registry import read as read_import
from hwcost.kernel import Kernel
from hwcost.measure import exchange
from hwcost.measure.clock import Round
from hwcost.measure.disturbance import Disturbance
from hwcost.measure.store.store import Store
from hwcost.measure.types import Item
from hwcost.model.trees import Settings
from hwcost.runtimes.base import Network, Placed
from hwcost.spaces.registry import get_space

ROOT = Path(__file__).parents[2]
Mutate = Callable[[bytes, Rng, float], bytes]


@dataclass(frozen=True)
class Kind:
    """Files of one kind."""

    name: str
    seeds: tuple[Path, ...]
    ask: Callable[[Path], Any]
    told: bool = True  # a changed answer is a fault: the file has a digest or checksums
    mutate: Mutate = damaged
    inside: str = ""  # of a seed that is a folder, the files that are damaged


def text_damaged(content: bytes, rng: Rng, place: float) -> bytes:
    """Bytes, or words that mean something in a text."""
    return damaged(content, rng, place, TOKENS)


# -- models ---------------------------------------------------------------------------------------

KERNEL = Kernel(
    (OpSpec("linear", (TensorSpec("input", (64, 100)), TensorSpec("weight", (144, 100), weight=True)),
            (TensorSpec("out", (64, 144)),)),)
)  # fmt: skip


def ask_model(path: Path) -> Any:
    model = CostModel.load(path)
    found = model.estimate(Network((Placed(KERNEL, "layer", 0),), 1, model.runtime))
    measured = model.measurements
    return found.latency, found.low, found.high, model.digest, model.date, measured and len(measured), model.counts


def model_seeds(folder: Path) -> tuple[Path, Path]:
    """A model file with a prior as it is written today, and the same without a digest, as files were before."""
    simulate = from_file(ROOT / "tests" / "conftest.py").simulate
    device = Device.from_toml(from_file(ROOT / "tests" / "conftest.py").DEVICE)
    few = Settings(iterations=12)
    prior = CostModel.fit(simulate(12, seed=1), device=device, settings=few)
    CostModel.fit(simulate(11, seed=2), device=device, settings=few, prior=prior).save(folder / "m.hwcost")
    held = unzipped((folder / "m.hwcost").read_bytes())
    (folder / "before.hwcost").write_bytes(zipped(without_digest(held)))
    return folder / "m.hwcost", folder / "before.hwcost"


def without_digest(held: dict[str, bytes]) -> dict[str, bytes]:
    head = {key: value for key, value in json.loads(held["model.json"]).items() if key != "digest"}
    return held | {"model.json": json.dumps(head).encode()}


def zipped(held: dict[str, bytes], comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in held.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        archive.comment = comment
    return buffer.getvalue()


def remade_model(content: bytes, rng: Rng, place: float) -> bytes:
    """A model file with a right digest, of which one member was changed by somebody who knows the format."""
    held = unzipped(content)
    name = sorted(held)[int(place * (len(held) - 1))]
    if name.endswith(".json"):
        held[name] = json.dumps(changed_value(json.loads(held[name]), rng)).encode()
    elif name.endswith(".hwcost"):
        held[name] = remade_model(held[name], rng, rng.random())
    elif rng.random() < 0.2:
        held[name] = held[sorted(held)[int(rng.integers(len(held)))]]
    else:
        held[name] = damaged(held[name], rng, rng.random(), TOKENS if name.endswith(".toml") else ())
    return sealed(zipped(held, SEAL))


# -- tables ---------------------------------------------------------------------------------------


def ask_table(path: Path) -> Any:
    table = LatencyTable.load(path)
    chosen = np.random.default_rng(0).integers(0, table.choices, size=(64, len(table.choices)))
    latency = table.latency(chosen)
    found = table.estimate(chosen[0].tolist())
    return latency.tobytes(), found.latency, found.low, found.high, found.params, found.peak_memory, len(table.missing)


def table_seeds(folder: Path, model: Path) -> tuple[Path, Path]:
    """A latency table as it is written today, and one without a digest, as tables were before."""
    LatencyTable.build(get_space("tiny-cnn"), CostModel.load(model)).save(folder / "t.parquet")
    rows = pq.read_table(folder / "t.parquet")
    head = {key: value for key, value in json.loads(rows.schema.metadata[b"hwcost"]).items() if key != "digest"}
    pq.write_table(rows.replace_schema_metadata({"hwcost": json.dumps(head)}), folder / "before.parquet")
    return folder / "t.parquet", folder / "before.parquet"


def remade_table(content: bytes, rng: Rng, place: float) -> bytes:
    """A table with a changed head, or with a column of another type or of wrong values."""
    import pyarrow as pa

    rows = pq.read_table(io.BytesIO(content))
    head = json.loads(rows.schema.metadata[b"hwcost"])
    if rng.random() < 0.6:
        head = changed_value(head, rng)
    else:
        at = int(place * (rows.num_columns - 1))
        wrong = [None, float("nan"), -1.0, float("inf"), 0.0, "text", 2**40][int(rng.integers(7))]
        column = pa.array([wrong] * len(rows))
        rows = rows.set_column(at, rows.column_names[at], column) if rng.random() < 0.8 else rows.remove_column(at)
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, rows.schema.with_metadata({"hwcost": json.dumps(head)})) as writer:
        writer.write_table(rows.replace_schema_metadata({"hwcost": json.dumps(head)}))
        writer.add_key_value_metadata({"hwcost.digest": SEAL.decode()})
    return sealed(sink.getvalue())


# -- stores and exports ---------------------------------------------------------------------------


def ask_store(path: Path) -> Any:
    store = Store.open(path)
    try:
        return store.environments(), repr(store.measurements()), store.period()
    finally:
        store.close()


def store_seed(folder: Path) -> Path:
    """A store of imported networks, and of one that was measured in three rounds."""
    simulate = from_file(ROOT / "tests" / "conftest.py").simulate
    store, taken = Store.open(folder / "s.db", create=True), simulate(10, seed=3)
    store.add_measurements(taken, taken=1e9)
    item = Item(name="own", family="own", spec={"target": "x"}, build=lambda: (None, ()))
    own = store.add_network(store.environment_id(taken.environment), item, Network((Placed(KERNEL, "a", 8),), 1, "x"))
    for number in range(3):
        times = [np.array(t, np.float32) for t in ([1e-3, 2e-3], [0, 0])]
        store.add_round(own, number, Round(*times, np.array([[1e-3]], np.float32), Disturbance(0.0, 0, 0.0), 0.1))
    store.close()
    return folder / "s.db"


def changed_row(content: bytes, rng: Rng, _: float) -> bytes:
    """A store in which a value was changed by SQL, and whose checksums were taken out, as in an older store."""
    with sqlite3.connect(":memory:") as base:
        base.deserialize(content[:18] + b"\x01\x01" + content[20:])  # not to be opened with a write-ahead log
        table = ["environment", "kernel", "network", "round", "summary", "store"][int(rng.integers(6))]
        names = [row[1] for row in base.execute(f"PRAGMA table_info(hwcost_{table})")]
        name = names[int(rng.integers(len(names)))]
        wrong = NASTY[int(rng.integers(len(NASTY)))]
        wrong = wrong if isinstance(wrong, (type(None), int, float, str, bool)) else b"\xff" * 12
        for other in ("environment", "kernel", "network", "round", "summary"):
            base.execute(f"UPDATE hwcost_{other} SET checksum = ''")
        try:
            base.execute(f"UPDATE hwcost_{table} SET {name} = ?", [wrong])
        except (sqlite3.Error, OverflowError, UnicodeEncodeError):
            base.execute("UPDATE hwcost_network SET name = name || 'x'")
        base.commit()
        return bytes(base.serialize())


def ask_export(path: Path) -> Any:
    return repr(exchange.load(path)), exchange.load_period(path)


# -- texts ----------------------------------------------------------------------------------------


def ask_import(form: str) -> Callable[[Path], Any]:
    def ask(path: Path) -> Any:
        found = read_import(form, path)
        return [(n.timing, n.kernels, n.calls) for m in found.measurements for n in m.networks], found.taken

    return ask


def kernel_lines(folder: Path) -> Path:
    place = {"environment": {"cpu": "A72", "cores": 4, "runtime": "torch-eager", "threads": 1}}
    row = {"kernel": json.loads(KERNEL.to_json()), "latency_s": 1e-6, "spread": 0.1, "rounds": 3, "distance": 64}
    (folder / "k.jsonl").write_text("\n".join(json.dumps(x) for x in (place, row, row)))
    return folder / "k.jsonl"


NEUSIGHT = """OPName,Latency,Device,B,H,M,N,K,Input_Channel,Output_Channel,Input_Size,Kernel_Szie,Stride,Padding
relu,0.01,Tesla V100,8,1024,,,,,,,,,
linear,0.5,Tesla V100,4,,236,64,194,,,,,,
conv,1.5,Tesla V100,2,,,,,3,64,224,7,2,3
"""


def ask_onnx(path: Path) -> Any:
    from hwcost.tracing.onnx_file import onnx_graph

    graph = onnx_graph(path)
    model = CostModel.analytic("intel-i9-10980xe").estimate(graph)
    return graph.cost, graph.params, graph.peak_memory, model.latency


def onnx_seed(folder: Path) -> Path:
    """A convolution whose output is reshaped by arithmetic on its shape, and a linear layer."""
    import onnx
    from onnx import TensorProto, helper

    weight = onnx.numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    dense = onnx.numpy_helper.from_array(np.ones((256, 10), np.float32), "d")
    rest = onnx.numpy_helper.from_array(np.array([-1], np.int64), "rest")
    first = onnx.numpy_helper.from_array(np.array([0], np.int64), "first")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], name="/stem/Conv"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Shape", ["r"], ["s"]),
        helper.make_node("Gather", ["s", "first"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["to"], axis=0),
        helper.make_node("Reshape", ["r", "to"], ["flat"]),
        helper.make_node("MatMul", ["flat", "d"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 3, 8, 8]), ("y", [1, 10]))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight, dense, rest, first])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), str(folder / "n.onnx"))
    return folder / "n.onnx"


NETS = "from torch import nn\ndef build(**kwargs):\n    return nn.Linear(8, 8)\n"


def ask_kwargs(nets: Path, path: Path) -> Any:
    """The answer of the command line; an error of its own is raised again as one for the user."""
    argv = ["estimate", f"{nets}:build", "-i", "1x8", "-d", "intel-i9-10980xe", "--json"]
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([*argv, f"--kwargs={text}"])
    lines = [line for line in err.getvalue().splitlines() if line.startswith("hwcost: ")]
    if code:
        assert (code, len(lines), out.getvalue()) == (2, 1, ""), err.getvalue()
        raise SaidToTheUser(lines[0])
    return json.loads(out.getvalue())["latency_s"]


class SaidToTheUser(ValueError):
    """What the command line said before it ended with 2."""

    __module__ = "hwcost"  # as an error of the package


# -- all ------------------------------------------------------------------------------------------


def kinds(folder: Path) -> Iterator[Kind]:
    """Every kind, with its seeds in `folder`."""
    whole, before = model_seeds(folder)
    table, old_table = table_seeds(folder, whole)
    store, shared = store_seed(folder), folder / "shared"
    simulate = from_file(ROOT / "tests" / "conftest.py").simulate
    exchange.export(simulate(10, seed=4), shared, period=(1e9, 1e9 + 60))
    (folder / "neusight.csv").write_text(NEUSIGHT)
    (folder / "kwargs.json").write_text('{"width": 64, "name": "a", "sizes": [1, 2.5], "deep": {"flag": true}}')
    (folder / "nets.py").write_text(NETS)
    shutil.copy(ROOT / "datasets" / "devices" / "intel-i9-10980xe.toml", folder / "d.toml")
    yield Kind("model", (whole,), ask_model)
    yield Kind("model of before", (before,), ask_model)
    yield Kind("model, remade", (whole,), ask_model, told=False, mutate=remade_model)
    yield Kind("table", (table,), ask_table)
    yield Kind("table of before", (old_table,), ask_table, told=False)
    yield Kind("table, remade", (table,), ask_table, told=False, mutate=remade_table)
    yield Kind("store", (store,), ask_store)
    yield Kind("store, changed rows", (store,), ask_store, told=False, mutate=changed_row)
    yield Kind("export", (shared,), ask_export, inside="*.parquet")
    yield Kind("import hwcost", (whole,), ask_import("hwcost"))
    yield Kind("import kernels", (kernel_lines(folder),), ask_import("kernels"), told=False, mutate=text_damaged)
    yield Kind("import neusight", (folder / "neusight.csv",), ask_import("neusight"), told=False, mutate=text_damaged)
    yield Kind("device", (folder / "d.toml",), lambda p: repr(Device.load(p)), told=False, mutate=text_damaged)
    yield Kind("onnx", (onnx_seed(folder),), ask_onnx, told=False)
    yield Kind(
        "kwargs", (folder / "kwargs.json",), partial(ask_kwargs, folder / "nets.py"), told=False, mutate=text_damaged
    )
