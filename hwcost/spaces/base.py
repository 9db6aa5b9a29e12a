"""What a search space is: decisions, the places they decide, and the blocks that stand there.

A space is declarative. A `Decision` is a named list of choices, and may be conditional on another decision (the depth
of a stage decides whether its third block exists). A `Site` is a place in the network; it names the few decisions it
depends on and gives the `Block` that stands there. Everything else follows from these: sampling, suggesting to Optuna,
building, counting, and latency tables, in which a network's latency is the sum over sites of

    t(network) = sum_s  t_s(choices of the decisions of site s).            (1)

Equation (1) holds because the network is made of exactly these blocks, one after the other, and a block ends where no
runtime fuses the last op of one block with the first of the next. A space whose blocks are connected in another way
overrides `Space.assemble`, and says in `Block.since` how many bytes the network moves between the writing of what a
block reads and the block itself.

A space of one's own::

    class Plain(Space):
        name = "plain"
        decisions = (
            Decision("depth", (1, 2)),
            Decision("width", (8, 16)),
            Decision("kernel.1", (3, 5), when=("depth", (2,))),
        )

        def __init__(self) -> None:
            self.sites = (
                Site("stem", ("width",), self.stem),
                Site("body", ("depth", "width", "kernel.1"), self.body),
            )

        def stem(self, p: Params) -> Block:
            return self.conv("stem", 3, p["width"], 3)

        def body(self, p: Params) -> Block | None:
            return self.conv("body", p["width"], p["width"], p["kernel.1"]) if p["depth"] == 2 else None

        def conv(self, name: str, c: int, width: int, k: int) -> Block:
            shape = (1, c, 32, 32)
            return Block(name, f"conv {shape} {width} {k}", partial(nn.Conv2d, c, width, k, padding=k // 2), shape)

        def input_shape(self, params: Params) -> tuple[int, ...]:
            return (1, 3, 32, 32)

With the decorator `hwcost.search.spaces.register_space` it is known by its name, otherwise as "path/file.py:Plain"
(`hwcost.spaces.registry`).

A space may know more of an architecture than its decisions say, for instance how many of its edges lie on a path from
input to output. It then has a method `features(params) -> Mapping[str, float]`, which gives the same names for every
architecture, each scaled so that a difference of 1 matters. In a study whose `build` is the space's `suggest`, the
sampler learns from them (`nas-bench-201` has such a method).
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

Value = int | float | str | bool
Params = dict[str, Any]  # decision -> chosen value; only the active decisions


class SpaceError(ValueError):
    """A space that does not exist, or parameters that are not of a space."""


class Suggests(Protocol):
    """What a space needs of an Optuna trial."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of `choices`."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A named list of choices; `when` = (decision, values) makes it active only for those values."""

    name: str
    choices: tuple[Value, ...]
    when: tuple[str, tuple[Value, ...]] | None = None

    def __post_init__(self) -> None:
        if len(set(self.choices)) != len(self.choices) or not self.choices:
            raise SpaceError(f"decision {self.name!r} must have distinct choices, but got {self.choices}")


@dataclass(frozen=True)
class Form:
    """The structure shared by blocks that differ only in their sizes; a table traces it once for all of them."""

    make: Callable[..., tuple[nn.Module, tuple[int, ...]]]  # (sizes, *structure) -> (module, input shape)
    structure: tuple[Value, ...]  # what may change the ops, such as a kernel size; equal for all blocks of the form


@dataclass(frozen=True)
class Block:
    """A part of a network. Blocks of equal `key` are the same block and take the same time."""

    name: str  # place in the network, "stages.1.0"
    key: str  # kind, input shape and parameters: all that its time depends on
    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...]  # batch included
    form: Form | None = None  # of a block that is one of many sizes, which makes large tables fast
    sizes: tuple[int, ...] = ()  # given to `form.make`
    since: int = 0  # bytes that the network moves between the writing of what the block reads and the block itself

    @classmethod
    def of(cls, name: str, key: str, shape: tuple[int, ...], form: Form, sizes: tuple[int, ...]) -> Block:
        """A block of a form; `shape` must be the one that the form gives these sizes."""
        return cls(name, key, partial(_module_of, form, sizes), shape, form, sizes)


@dataclass(frozen=True)
class Site:
    """A place in the network, the decisions it depends on, and the block that stands there (None: no block).

    `block` is called with the choice of each of `decisions`; an inactive one comes with its first choice.
    `like` names an earlier site of the same decisions whose blocks also stand here, so that a table enumerates them
    once; "" where the blocks are this site's own.
    """

    name: str
    decisions: tuple[str, ...]
    block: Callable[[Params], Block | None]
    like: str = ""


def _module_of(form: Form, sizes: tuple[int, ...]) -> nn.Module:
    return form.make(sizes, *form.structure)[0]


class Space(ABC):
    """A search space: `name`, `decisions` (a condition after the decision it names) and `sites`."""

    name: str
    decisions: tuple[Decision, ...]
    sites: tuple[Site, ...]
    fine: bool = False  # whether blocks are so small that a runtime which fuses ops does so across their borders

    # -- one architecture -----------------------------------------------------------------------

    def suggest(self, trial: Suggests) -> Params:
        """An architecture from an Optuna trial; asks for active decisions only."""
        return self._choose(lambda d: trial.suggest_categorical(d.name, d.choices))

    def sample(self, rng: np.random.Generator) -> Params:
        """A random architecture: every active decision uniform among its choices."""
        return self._choose(lambda d: d.choices[int(rng.integers(len(d.choices)))])

    def active(self, params: Mapping[str, Value]) -> tuple[str, ...]:
        """Names of the decisions that `params` leave active, in order."""
        names: list[str] = []
        for d in self.decisions:
            if d.when is None or (d.when[0] in names and params.get(d.when[0]) in d.when[1]):
                names.append(d.name)
        return tuple(names)

    def validate(self, params: Mapping[str, Value]) -> None:
        """Raise a SpaceError unless `params` gives every active decision one of its choices, and nothing else."""
        active = self.active(params)
        for name in active:
            choices = self._by_name[name].choices
            if name not in params:
                raise SpaceError(f"space {self.name} needs a value of {name!r}, one of {choices}, but got none")
            if params[name] not in choices:
                raise SpaceError(f"space {self.name}: {name!r} must be one of {choices}, but got {params[name]!r}")
        for name in params:
            if name not in active:
                why = "is not active for these parameters" if name in self._by_name else "is no decision of it"
                raise SpaceError(f"space {self.name}: {name!r} {why}; leave it out")

    def blocks(self, params: Mapping[str, Value]) -> tuple[Block, ...]:
        """The blocks of an architecture, in the order they run."""
        self.validate(params)
        full = {d.name: params.get(d.name, d.choices[0]) for d in self.decisions}
        found = (site.block({name: full[name] for name in site.decisions}) for site in self.sites)
        return tuple(block for block in found if block is not None)

    def build(self, params: Mapping[str, Value]) -> nn.Module:
        """The network, which knows its `input_shape`.

        Under ``with torch.device("meta")`` it costs no memory and no initialisation.
        """
        network = self.assemble([(b.name, b.build()) for b in self.blocks(params)])
        network.input_shape = self.input_shape(dict(params))  # type: ignore[assignment]
        return network

    def assemble(self, parts: Sequence[tuple[str, nn.Module]]) -> nn.Module:
        """The network of the blocks' modules: here one after the other, nested by the dots in their names."""
        return chain(parts)

    def inputs(self, params: Mapping[str, Value], device: str = "meta") -> tuple[torch.Tensor, ...]:
        """Example inputs of the network, zeros."""
        return (torch.zeros(self.input_shape(dict(params)), device=device),)

    def network(self, params: Mapping[str, Value]) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
        """The network as `build` makes it, and example inputs on the meta device."""
        return self.build(params), self.inputs(params)

    @abstractmethod
    def input_shape(self, params: Params) -> tuple[int, ...]:
        """Shape of the network's input, batch (1) included."""

    # -- as numbers -----------------------------------------------------------------------------

    def choices(self, params: Mapping[str, Value]) -> tuple[int, ...]:
        """Index of each decision's choice, in order; 0 for the inactive ones."""
        self.validate(params)
        return tuple(d.choices.index(params[d.name]) if d.name in params else 0 for d in self.decisions)

    def params(self, choices: Sequence[int]) -> Params:
        """The architecture of these choice indices; those of inactive decisions are ignored."""
        if len(choices) != len(self.decisions):
            raise SpaceError(f"space {self.name} has {len(self.decisions)} decisions, but got {len(choices)} choices")
        index = dict(zip((d.name for d in self.decisions), choices, strict=True))
        for d in self.decisions:
            if not 0 <= index[d.name] < len(d.choices):
                rule = f"the choice of {d.name!r} must lie in 0..{len(d.choices) - 1}"
                raise SpaceError(f"space {self.name}: {rule}, but got {index[d.name]}")
        return self._choose(lambda d: d.choices[int(index[d.name])])

    @cached_property
    def size(self) -> int:
        """Number of distinct parameter sets."""
        deciding = {d.when[0] for d in self.decisions if d.when}
        free = [d for d in self.decisions if d.name not in deciding]
        total = 0
        for params in self._product([d for d in self.decisions if d.name in deciding]):
            active = self.active(params)
            total += math.prod(len(d.choices) for d in free if d.name in active)
        return total

    def __iter__(self) -> Iterator[Params]:
        """All architectures, for spaces that are small enough; the last decision changes fastest."""
        return self._product(self.decisions)

    # -- inside -----------------------------------------------------------------------------------

    def _choose(self, choose: Callable[[Decision], Any]) -> Params:
        """The architecture in which each active decision has the value that `choose` gives it."""
        params: Params = {}
        for d in self.decisions:
            if d.when is None or (d.when[0] in params and params[d.when[0]] in d.when[1]):
                params[d.name] = choose(d)
        return params

    def _product(self, decisions: Sequence[Decision], params: Params | None = None) -> Iterator[Params]:
        """`params` with every combination of values of those of `decisions` that are active."""
        params = params or {}
        for i, d in enumerate(decisions):
            if d.when is not None and not (d.when[0] in params and params[d.when[0]] in d.when[1]):
                continue
            for value in d.choices:
                yield from self._product(decisions[i + 1 :], {**params, d.name: value})
            return
        yield params

    @cached_property
    def _by_name(self) -> dict[str, Decision]:
        return {d.name: d for d in self.decisions}

    def __repr__(self) -> str:
        counts = f"{len(self.decisions)} decisions, {len(self.sites)} sites, {self.size:.3g} architectures"
        return f"<space {self.name}: {counts}>"


def chain(parts: Sequence[tuple[str, nn.Module]]) -> nn.Module:
    """A sequence of modules, nested by the dots in their names: "stages.0.1" becomes root.stages[0][1]."""
    root = nn.Sequential()
    for head, group in itertools.groupby(parts, key=lambda part: part[0].partition(".")[0]):
        members = [(name.partition(".")[2], module) for name, module in group]
        alone = len(members) == 1 and not members[0][0]
        root.add_module(head, members[0][1] if alone else chain(members))
    return root


class BlockList(Space):
    """A list of blocks as a space, so that a latency table of them can be made.

    Its one decision is which of the blocks to take. Each block is a network by itself, and the table's latency is that
    network's. How long the block takes inside a
    larger network is in the table's column for the reach of that network (`hwcost.table.sums`).
    """

    def __init__(self, name: str, blocks: Sequence[Block]) -> None:
        self.name = name
        self._blocks = {block.key: block for block in blocks}
        self.decisions = (Decision("block", tuple(self._blocks)),)
        self.sites = (Site("block", ("block",), lambda p: self._blocks[p["block"]]),)

    def input_shape(self, params: Params) -> tuple[int, ...]:
        """The chosen block's."""
        return self._blocks[params["block"]].input_shape
