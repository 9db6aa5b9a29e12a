"""Every distinct block of a space, priced batch by batch, in this process or in others.

The blocks are enumerated in one fixed order and cut into tasks of a fixed number of blocks, so that what a task holds
depends neither on the process that prices it nor on what was priced before. Worker processes come from joblib: local
ones, or those of the backend that `joblib.parallel_config` selects, for instance a Dask cluster

    with dask.distributed.Client("tcp://scheduler:8786"), joblib.parallel_config("dask"):
        hwcost.LatencyTable.write(space, model, "t.parquet", jobs=None)

or a Ray cluster (`ray.util.joblib.register_ray()`, then `joblib.parallel_config("ray")`). The workers need hwcost
installed but no files: model and tasks are sent to them.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import math
import os
import pickle
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np

from hwcost.model.blocks import composes
from hwcost.table.file import Parts
from hwcost.table.price import Pricer, Task, reach_edges, traced
from hwcost.table.schema import Head, Place, TableError
from hwcost.table.templates import NoTemplate, Template
from hwcost.version import __version__

if TYPE_CHECKING:
    from hwcost.model.cost_model import CostModel
    from hwcost.spaces.base import Block, Decision, Form, Space

Progress = Callable[[int, int], None]  # (combinations of choices done, combinations in all)
BATCH = 2048  # blocks of a task
_WORTH_A_TEMPLATE = 4  # blocks; a template is three traces
_WORKER_DIED = ("TerminatedWorkerError", "BrokenProcessPool", "KilledWorker")  # as raised by loky, Python and Dask


def pricer(space: Space, model: CostModel) -> Pricer:
    """What prices the blocks of a space.

    Raises:
        TableError: the runtime fuses across blocks, so that their times would not add up to the network's.
    """
    if not composes(space, model.runtime):
        raise TableError(
            f"blocks of {space.name} are so small that {model.runtime} fuses across them, so no table adds up to its "
            f"networks; estimate them whole with model.estimate_many(params, space=space), or use torch-eager"
        )
    return Pricer(model, space)


class Walk:
    """Enumerates every combination of every site's choices, and yields each distinct block once.

    `places` is complete when `blocks` is exhausted. Blocks are distinguished by a 128-bit hash of their key, so that a
    million of them take a hundred megabytes.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.places: list[Place] = []
        self.done = 0  # combinations of choices
        self.rows = 0  # distinct blocks
        self._choices = {d.name: (position, d.choices) for position, d in enumerate(space.decisions)}
        own = [site for site in space.sites if not site.like]
        self.total = sum(math.prod(len(self._choices[n][1]) for n in site.decisions) for site in own)

    def blocks(self) -> Iterator[Block]:
        """Distinct blocks in the order of their rows."""
        seen: dict[bytes, int] = {}
        for site in self.space.sites:
            if site.like:
                self.places.append(replace(next(p for p in self.places if p.name == site.like), name=site.name))
                continue
            rows = array("i")
            for values in itertools.product(*(self._choices[name][1] for name in site.decisions)):
                self.done += 1
                block = site.block(dict(zip(site.decisions, values, strict=True)))
                if block is None:
                    rows.append(-1)
                    continue
                key = hashlib.blake2b(block.key.encode(), digest_size=16).digest()
                row = seen.get(key)
                if row is None:
                    row = seen[key] = self.rows
                    self.rows += 1
                    yield block
                rows.append(row)
            decisions = tuple(self._choices[name][0] for name in site.decisions)
            self.places.append(Place(site.name, decisions, np.array(rows, dtype=np.int32)))


def tasks(blocks: Iterable[Block], size: int = BATCH) -> Iterator[Task]:
    """Tasks of `size` blocks in the order given, the last one smaller."""
    blocks = iter(blocks)
    while batch := list(itertools.islice(blocks, size)):
        yield _task(batch)


def _task(blocks: list[Block]) -> Task:
    """The blocks as graphs: many of one form share a template, the others are traced."""
    by_form: dict[Form | None, list[int]] = {}
    for position, block in enumerate(blocks):
        form = None if block.since else block.form  # a template's graph reads what was written just before it
        by_form.setdefault(form, []).append(position)
    loose, groups = by_form.pop(None, []), []
    for form, positions in by_form.items():
        assert form is not None
        template = None
        if len(positions) >= _WORTH_A_TEMPLATE:
            template = _template(form, len(blocks[positions[0]].sizes))
        if template is None:
            loose += positions
        else:
            sizes = np.array([blocks[i].sizes for i in positions], dtype=np.int64)
            groups.append((template, sizes, np.array(positions, dtype=np.int64)))
    return Task(
        keys=tuple(block.key for block in blocks),
        names=tuple(block.name for block in blocks),
        input_shapes=tuple(tuple(block.input_shape) for block in blocks),
        groups=tuple(groups),
        loose=tuple((i, traced(blocks[i])) for i in sorted(loose)),
    )


@lru_cache(maxsize=256)
def _template(form: Form, sizes: int) -> Template | None:
    """The template of a form with so many sizes; None where it has none."""
    try:
        return Template.of(lambda values: form.make(values, *form.structure), sizes)
    except NoTemplate:
        return None


def priced(pricer: Pricer, work: Iterable[Task], jobs: int | None = 1) -> Iterator[dict[str, Any]]:
    """The columns of each task's rows, in the order of the tasks.

    Args:
        pricer: what prices them.
        work: tasks, taken from it a few at a time, so that they need not all be in memory.
        jobs: processes; 1: this one alone; None: as many as the backend of `joblib.parallel_config` has.

    Raises:
        TableError: a worker died.
    """
    if jobs == 1:
        yield from map(pricer.price, work)
        return
    content = pickle.dumps(pricer)
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator", batch_size=1, pre_dispatch="2*n_jobs")
    try:
        yield from parallel(joblib.delayed(_price)(content, os.getpid(), task) for task in work)
    except Exception as error:
        if type(error).__name__ not in _WORKER_DIED:
            raise
        raise TableError(
            "a worker died, perhaps for lack of memory; what was priced is kept: run the same command again, "
            "with fewer --jobs"
        ) from error


def write(
    space: Space, pricer: Pricer, parts: Parts, meta: Mapping[str, Any], jobs: int | None, progress: Progress | None
) -> int:
    """Price the tasks that `parts` does not have yet, and join all parts to a table.

    Returns:
        The number of the table's rows.
    """
    walk = Walk(space)
    todo = deque[int]()  # numbers of the tasks that are being priced, in order
    count = 0  # tasks

    def left() -> Iterator[Task]:
        nonlocal count
        for number, task in enumerate(tasks(walk.blocks())):
            count = number + 1
            if not parts.has(number, task.keys):
                todo.append(number)
                yield task

    for columns in priced(pricer, left(), jobs):
        parts.add(todo.popleft(), columns)
        if progress is not None:
            progress(walk.done, walk.total)
    if progress is not None:
        progress(walk.total, walk.total)
    parts.join(Head(tuple(walk.places), meta), count)
    return walk.rows


def _price(content: bytes, owner: int, task: Task) -> dict[str, Any]:
    return _pricer(content, owner).price(task)


@lru_cache(maxsize=1)
def _pricer(content: bytes, owner: int) -> Pricer:
    if os.getppid() == owner:  # a process on this machine, not one of a cluster
        threading.Thread(target=_end_with, args=(owner,), daemon=True).start()
    found: Pricer = pickle.loads(content)  # sent by the process that runs this job; no file is ever unpickled
    return found


def _end_with(owner: int) -> None:
    """End this process once the one that started it has ended: a killed run leaves no worker behind that waits."""
    while os.getppid() == owner:
        time.sleep(1.0)
    os._exit(1)


# -- what the head of a table says -------------------------------------------------------------------


def head_of(space: Space, model: CostModel) -> dict[str, Any]:
    """The metadata of a table of `space` that `model` prices."""
    fixed = model.overhead.fixed if model.is_fitted else 0.0
    reach = {"reach_edges": reach_edges(model.device)} if model.is_fitted else {}
    origin = {"model": model.digest, "source": model.provenance, "device": model.device.to_toml()}
    return described(space, target_of(model)) | {"fixed_s": fixed, **model.interval, **origin, **reach}


def described(space: Space, target: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata that every table of a space has, whoever made its rows."""
    return {
        "space": space.name,
        "decisions": [_decision(d) for d in space.decisions],
        "target": dict(target),
        "hwcost": __version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _decision(d: Decision) -> dict[str, Any]:
    condition = {"when": [d.when[0], list(d.when[1])]} if d.when else {}
    return {"name": d.name, "choices": list(d.choices)} | condition


def target_of(model: CostModel) -> dict[str, Any]:
    """The target that a model prices for, as a table's metadata hold it; the quantile only where it is not "low"."""
    quantile = {} if model.quantile == "low" else {"quantile": model.quantile}
    target = {
        "device": model.device.name,
        "runtime": model.runtime,
        "threads": model.threads,
        "dtype": model.target.dtype,
    }
    return target | quantile
