"""A device: hardware with ceilings, each with its source. Devices are files, not code.

A device file is TOML; its quantities carry their unit. A ceiling may have a paper value, a measured
one or both; where both are given the measured one is used.

    name = "intel-i9-10980xe"
    kind = "cpu"
    cores = 16

    [[compute]]
    dtype = "float32"
    paper = "4.608 TFLOP/s"
    paper_source = "16 cores x 4.5 GHz x 64 flop per cycle"
    measured = "2.86 TFLOP/s"
    measured_source = "..."

    [[memory]]
    level = "DRAM"
    paper = "96 GB/s"
    paper_source = "..."

    [[kinds]]               # optional: what a kind of kernel reaches at best in a runtime, less than the peak
    kind = "conv2d/depthwise"
    runtime = "torch-eager"
    threads = 1
    measured = "9 GFLOP/s"
    measured_source = "..."

    [energy]                # optional: what a flop and a byte of traffic cost, for energy budgets
    per_flop = "2.3 pJ"
    per_byte = "160 pJ"
    source = "..."

Which ceiling answers a question is decided here alone, and `Device.assumptions` says it in words:

1. the ceiling of that very dtype and number of threads, if there is one;
2. else, of compute: a measured ceiling before a paper one, then the nearest number of threads,
   scaled by cores, since each core computes by itself;
3. else, of memory: the next higher number of threads, or else the highest, not scaled, since cores
   share the bus;
4. a dtype without a ceiling computes at float32's;
5. kernels of a kind compute at its own ceiling where one is stated for that very runtime, dtype and number
   of threads;
6. threads beyond the number of cores add nothing, and mean nothing to what is no CPU.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import tomli_w
from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from hwcost.device.ceilings import (
    FILE,
    Ceiling,
    ComputeCeiling,
    DeviceError,
    Energy,
    Frozen,
    KindCeiling,
    MemoryCeiling,
    Seconds,
    known_dtype,
)
from hwcost.paths import shipped


class Device(Frozen):
    """Hardware with its ceilings; see the module's docstring for how they are chosen."""

    name: str = Field(min_length=1)
    kind: Literal["cpu", "gpu", "npu"] = "cpu"
    description: str = ""
    source: str = Field(default="", description="where cores and sizes come from")
    cores: int = Field(default=1, ge=1, description="physical cores; multiprocessors of a GPU")
    compute: tuple[ComputeCeiling, ...] = Field(min_length=1)
    memory: tuple[MemoryCeiling, ...] = Field(min_length=1)
    kinds: tuple[KindCeiling, ...] = Field(default=(), description="what kinds of kernel reach, where it was measured")
    lanes: int | None = Field(default=None, ge=1, description="float32s in a vector register; None: this machine's")
    dispatch: Seconds | None = Field(default=None, description="time that each call of an op takes besides")
    energy: Energy | None = Field(default=None, description="weights of work and traffic, where they are known")
    host: Mapping[str, str] = Field(default_factory=dict, description="CPU, versions, date of a measurement")

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        keys = [(c.dtype, c.threads or self.cores) for c in self.compute]
        keys += [(m.level, m.threads or self.cores) for m in self.memory]
        keys += [(f"{k.kind} in {k.runtime}, {k.dtype},", k.threads or self.cores) for k in self.kinds]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice:
            raise ValueError(f"a ceiling must be stated once, but {twice[0]} has two for {twice[1]} threads")
        return self

    # -- ceilings -----------------------------------------------------------------------------

    def peak(self, dtype: str = "float32", threads: int | None = None) -> float:
        """Peak arithmetic (flop/s) of a dtype on `threads` threads (None: the whole device).

        Raises:
            DeviceError: no such dtype or number of threads, or neither it nor float32 has a ceiling.
        """
        return self._peak(dtype, threads)[0]

    def kind_peak(self, kind: str, runtime: str, dtype: str = "float32", threads: int | None = None) -> float:
        """Peak arithmetic (flop/s) of the kernels of one kind in a runtime: `peak`, unless a ceiling of that very kind,
        runtime, dtype and number of threads is stated.

        Raises:
            DeviceError: as `peak`.
        """
        wanted = (kind, runtime, known_dtype(dtype), self._threads(threads))
        stated = (k.value for k in self.kinds if (k.kind, k.runtime, k.dtype, k.threads or self.cores) == wanted)
        return next(stated, None) or self.peak(dtype, threads)

    def bandwidth(self, level: str = "DRAM", threads: int | None = None) -> float:
        """Bandwidth (byte/s) of a memory level to `threads` threads (None: the whole device).

        Raises:
            DeviceError: the device has no such level, or no such number of threads.
        """
        return self._bandwidth(level, threads)[0]

    def ridge(self, dtype: str = "float32", threads: int | None = None) -> float:
        """Arithmetic intensity (flop/byte) at which the compute and DRAM ceilings meet."""
        return self.peak(dtype, threads) / self.bandwidth("DRAM", threads)

    def cache_size(self, level: str) -> float:
        """Bytes of a cache level, 0 where unknown."""
        return next((m.size for m in self.memory if m.level == level and m.size), 0.0)

    def assumptions(self, dtype: str = "float32", threads: int | None = None) -> tuple[str, ...]:
        """What `peak` and `bandwidth` of DRAM had to assume, a sentence each; empty if nothing.

        Raises:
            DeviceError: as `peak` and `bandwidth`.
        """
        return (*self._peak(dtype, threads)[1], *self._bandwidth("DRAM", threads)[1])

    def _peak(self, dtype: str, threads: int | None) -> tuple[float, list[str]]:
        """Value and assumptions."""
        notes = []
        known = [c for c in self.compute if c.dtype == known_dtype(dtype)]
        if not known:
            notes.append(f"{self.name} has no compute ceiling for {dtype}: float32's is used.")
            known = [c for c in self.compute if c.dtype == "float32"]
        if not known:
            stated = ", ".join(dict.fromkeys(c.dtype for c in self.compute))
            raise DeviceError(
                f"device {self.name} must have a compute ceiling for {dtype} or float32, but it has {stated}"
            )
        wanted = self._threads(threads)
        ceiling = _of(known, wanted, self.cores) or self._nearest(known, wanted)
        at = self._busy(ceiling.threads)
        scale = self._busy(wanted) / at
        if scale != 1:
            notes.append(f"The compute ceiling of {_count(at)} is scaled by cores, {self._busy(wanted)}/{at}.")
        return ceiling.value * scale, notes + _unmeasured(f"The compute ceiling of {ceiling.dtype}", ceiling)

    def _nearest(self, known: list[ComputeCeiling], wanted: int) -> ComputeCeiling:
        """Measured first, then the nearest number of busy cores by ratio, then the higher one."""

        def distance(ceiling: ComputeCeiling) -> tuple[bool, float, int]:
            busy = self._busy(ceiling.threads)
            return (not ceiling.is_measured, abs(math.log(busy / self._busy(wanted))), -busy)

        return min(known, key=distance)

    def _bandwidth(self, level: str, threads: int | None) -> tuple[float, list[str]]:
        """Value and assumptions."""
        known = [m for m in self.memory if m.level == level]
        if not known:
            stated = ", ".join(dict.fromkeys(m.level for m in self.memory))
            raise DeviceError(f"device {self.name} must have a memory level {level}, but it has {stated}")
        wanted, notes = self._threads(threads), []
        ceiling = _of(known, wanted, self.cores) or self._sharing(known, wanted)
        at = self._busy(ceiling.threads)
        if at != self._busy(wanted):
            less_or_more = "less" if at > wanted else "more"
            notes.append(f"The {level} bandwidth of {_count(at)} is used for {wanted}, which may reach {less_or_more}.")
        return ceiling.value, notes + _unmeasured(f"The {level} bandwidth", ceiling)

    def _sharing(self, known: list[MemoryCeiling], wanted: int) -> MemoryCeiling:
        """The next higher number of threads, or else the highest."""
        ordered = sorted(known, key=lambda m: m.threads or self.cores)
        return next((m for m in ordered if (m.threads or self.cores) >= wanted), ordered[-1])

    def _threads(self, threads: int | None) -> int:
        if threads is not None and threads < 1:
            raise DeviceError(f"threads must be at least 1, but got {threads}")
        return threads or self.cores

    def _busy(self, threads: int | None) -> int:
        """Cores that so many threads keep busy; all of them on what is no CPU."""
        return min(threads or self.cores, self.cores) if self.kind == "cpu" else self.cores

    # -- files --------------------------------------------------------------------------------

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The catalogue."""
        entries = shipped("devices").iterdir()
        return tuple(sorted(e.name.removesuffix(".toml") for e in entries if e.name.endswith(".toml")))

    @classmethod
    def load(cls, name_or_path: str | Path) -> Device:
        """A device of the catalogue, or of a file.

        Raises:
            DeviceError: no such device or file, or the file breaks a rule; names the file and the key.
        """
        name, path = str(name_or_path), Path(name_or_path)
        if name in cls.names():
            return _load(shipped("devices", f"{name}.toml"))
        if path.suffix == ".toml" or path.exists():
            return _load(path)
        near = get_close_matches(name, cls.names(), n=1)
        meant = f"did you mean {near[0]!r}?" if near else f"the catalogue has {', '.join(cls.names())}"
        raise DeviceError(f"a device must be a .toml file or a name of the catalogue, but got {name!r}; {meant}")

    def save(self, path: str | Path) -> None:
        """Write the device file.

        Raises:
            DeviceError: the file cannot be written.
        """
        try:
            Path(path).write_text(self.to_toml(), encoding="utf-8")
        except OSError as error:
            raise DeviceError(f"device file {path} cannot be written: {error.strerror}") from error

    def to_toml(self) -> str:
        """The device file's text; `from_toml` returns an equal device."""
        data = self.model_dump(mode="json", exclude_none=True)
        return tomli_w.dumps(_without_empty(data))

    @classmethod
    def from_toml(cls, text: str, source: str = "device file") -> Device:
        """Read a device file's text; `source` names it in errors.

        Raises:
            DeviceError: the text is no TOML, or breaks a rule.
        """
        try:
            return cls.model_validate(tomllib.loads(text), context=FILE)
        except tomllib.TOMLDecodeError as error:
            raise DeviceError(f"{source} is no TOML: {error}") from error
        except ValidationError as error:
            raise DeviceError(f"{source}: {_first(error.errors())}") from error


C = TypeVar("C", ComputeCeiling, MemoryCeiling)


def _of(known: Sequence[C], wanted: int, cores: int) -> C | None:
    """The ceiling of that very number of threads."""
    return next((c for c in known if (c.threads or cores) == wanted), None)


def _count(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"


def _unmeasured(what: str, ceiling: Ceiling) -> list[str]:
    return [] if ceiling.is_measured else [f"{what} is a paper value; programs reach less."]


def _load(file: Traversable) -> Device:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise DeviceError(f"device file {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DeviceError(f"device file {file} must be UTF-8 text, but byte {error.start} is not") from error
    return Device.from_toml(text, str(file))


def _without_empty(value: Any) -> Any:
    """Leave out what says nothing: empty text, lists and tables."""
    if isinstance(value, dict):
        return {k: _without_empty(v) for k, v in value.items() if v not in ("", {}, [])}
    return [_without_empty(v) for v in value] if isinstance(value, list) else value


def _first(errors: list[ErrorDetails]) -> str:
    """The first broken rule in one line: key, rule, value."""
    error = errors[0]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).removeprefix(".")
    return f"{key + ': ' if key else ''}{_rule(error)}"


def _rule(error: ErrorDetails) -> str:
    message = error["msg"].removeprefix("Value error, ").replace("Input should", "must")
    if error["type"] == "missing":
        return "the key is missing"
    if error["type"] == "extra_forbidden":
        return "a device file has no such key"
    if error["type"] == "value_error":  # our own sentence, which tells the value
        return message
    return f"{message}, but got {error['input']!r}"
