"""Every distinct block of a space, priced batch by batch, in this process or in others.

The blocks are walked in one fixed order and cut into tasks of a fixed number, so what a task holds
does not depend on who prices it or on what was priced before. Workers come from joblib: local
processes, or whatever `joblib.parallel_config` says, for instance a Dask cluster

    with dask.distributed.Client("tcp://scheduler:8786"), joblib.parallel_config("dask"):
        hwcost.LatencyTable.write(space, model, "t.parquet", jobs=None)

or a Ray cluster (`ray.util.joblib.register_ray()`, then `joblib.parallel_config("ray")`). The
workers need hwcost installed, and nothing else: model and tasks are sent to them.
"""

from __future__ import annotations

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

from hwcost.model.blocks import ONE_KERNEL_AN_OP, composes, like
from hwcost.table.file import Head, Parts, Place, TableError
from hwcost.table.price import Pricer, Task, traced
from hwcost.table.templates import NoTemplate, Template

if TYPE_CHECKING:
    from hwcost.model.cost_model import CostModel

Progress = Callable[[int, int], None]
BATCH = 2048  # blocks of a task
_WORTH_A_TEMPLATE = 4  # blocks; a template is three traces
_DEAD = ("TerminatedWorkerError", "BrokenProcessPool", "KilledWorker")  # of loky, of Python, of Dask


def pricer(space: Any, model: CostModel) -> Pricer:
    """What prices the blocks of a space.

    Raises:
        TableError: the runtime fuses across them, so that their times would not add up to the network's.
    """
    if not composes(space, model.runtime):
        raise TableError(
            f"blocks of {space.name} are so small that {model.runtime} fuses across them, so no table adds up to its "
            f"networks; estimate them whole with model.estimate_many(params, space=space), or use {ONE_KERNEL_AN_OP[0]}"
        )
    return Pricer(model, space)


class Walk:
    """Goes through every combination of every site's choices, and gives each distinct block once.

    `places` is complete when `blocks` is exhausted. Blocks are told apart by 128 bits of their key's
    hash, so that a million of them take a hundred megabytes.
    """

    def __init__(self, space: Any) -> None:
        self.space = space
        self.places: list[Place] = []
        self.done = self.rows = 0  # combinations, distinct blocks
        self._choices = {d.name: (position, d.choices) for position, d in enumerate(space.decisions)}
        own = [site for site in space.sites if not like(site)]
        self.total = sum(math.prod(len(self._choices[n][1]) for n in site.decisions) for site in own)

    def blocks(self) -> Iterator[Any]:
        """Distinct blocks in the order of their rows."""
        seen: dict[bytes, int] = {}
        for site in self.space.sites:
            if like(site):
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


def tasks(blocks: Iterable[Any], size: int = BATCH) -> Iterator[Task]:
    """Tasks of `size` blocks in the order given, the last one smaller."""
    blocks = iter(blocks)
    while batch := list(itertools.islice(blocks, size)):
        yield _task(batch)


def _task(blocks: list[Any]) -> Task:
    forms: dict[Any, list[int]] = {}
    for place, block in enumerate(blocks):
        form = None if getattr(block, "since", 0) else getattr(block, "form", None)
        forms.setdefault(form, []).append(place)
    loose, groups = forms.pop(None, []), []
    for form, places in forms.items():
        template = _template(form, len(blocks[places[0]].sizes)) if len(places) >= _WORTH_A_TEMPLATE else None
        if template is None:
            loose += places
        else:
            sizes = np.array([blocks[p].sizes for p in places], dtype=np.int64)
            groups.append((template, sizes, np.array(places, dtype=np.int64)))
    return Task(
        tuple(b.key for b in blocks), tuple(b.name for b in blocks), tuple(tuple(b.input_shape) for b in blocks),
        tuple(groups), tuple((p, traced(blocks[p])) for p in sorted(loose)),
    )  # fmt: skip


@lru_cache(maxsize=256)
def _template(form: Any, sizes: int) -> Template | None:
    try:
        return Template.of(lambda values: form.make(values, *form.structure), sizes)
    except NoTemplate:
        return None


def priced(pricer: Pricer, work: Iterable[Task], jobs: int | None = 1) -> Iterator[dict[str, Any]]:
    """The columns of each task, in order.

    Args:
        pricer: prices.
        work: tasks; a few more than are being priced are taken from it at a time.
        jobs: processes; 1: this one alone; None: as `joblib.parallel_config` says.

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
        if type(error).__name__ not in _DEAD:
            raise
        raise TableError(
            "a worker died, perhaps for lack of memory; what was priced is kept: run the same command again, "
            "with fewer --jobs"
        ) from error


def write(
    space: Any, pricer: Pricer, parts: Parts, meta: Mapping[str, Any], jobs: int | None, progress: Progress | None
) -> int:
    """Price what `parts` does not have yet, and join them to a table; the number of its rows."""
    walk, todo, count = Walk(space), deque[int](), 0

    def left() -> Iterator[Task]:
        nonlocal count
        for task in tasks(walk.blocks()):
            count += 1
            if not parts.has(count - 1, task.keys):
                todo.append(count - 1)
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
    if os.getppid() == owner:  # a local process, not one of a cluster
        threading.Thread(target=_end_with, args=(owner,), daemon=True).start()
    found: Pricer = pickle.loads(content)  # what this very run sent, never a file
    return found


def _end_with(owner: int) -> None:
    """End this process when the one that started it is gone: a killed run would leave it waiting for ever."""
    while os.getppid() == owner:
        time.sleep(1.0)
    os._exit(1)
