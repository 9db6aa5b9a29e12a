"""A device: hardware with ceilings, each with its source. Devices are files, not code.

A device file is TOML, and its quantities are text with a unit. A ceiling has a paper value (from a data sheet), a
measured value, or both, of which the measured one is used.

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

    [[kinds]]               # optional: what kernels of a kind reach at best in a runtime, mostly less than the peak
    kind = "conv2d/depthwise"
    runtime = "torch-eager"
    threads = 1
    measured = "9 GFLOP/s"
    measured_source = "..."

    [energy]                # optional: energy of a flop and of a byte of traffic, for energy budgets
    per_flop = "2.3 pJ"
    per_byte = "160 pJ"
    source = "..."

Which ceiling is used for a dtype and a number of threads is decided here alone, and `Device.assumptions` puts it in
words:

1. the ceiling of exactly that dtype and number of threads, if there is one;
2. else, for compute: a measured ceiling rather than a paper one, then the nearest number of threads, scaled by the
   number of cores, since each core computes by itself;
3. else, for memory: the next higher number of threads, or else the highest, not scaled, since cores share the bus;
4. float32's ceiling for a dtype that has none;
5. for kernels of a kind, the ceiling of that kind if there is one for exactly that runtime, dtype and number of
   threads;
6. threads beyond the number of cores add nothing; for a device other than a CPU their number has no meaning.
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
    checked_dtype,
)
from hwcost.paths import shipped


class Device(Frozen):
    """Hardware with its ceilings; the module's docstring says which of them is used for what."""

    name: str = Field(min_length=1)
    kind: Literal["cpu", "gpu", "npu"] = "cpu"
    description: str = ""
    source: str = Field(default="", description="where cores and sizes come from")
    cores: int = Field(default=1, ge=1, description="physical cores; multiprocessors of a GPU")
    compute: tuple[ComputeCeiling, ...] = Field(min_length=1)
    memory: tuple[MemoryCeiling, ...] = Field(min_length=1)
    kinds: tuple[KindCeiling, ...] = Field(
        default=(), description="what kinds of kernel reach at best, where it was measured"
    )
    lanes: int | None = Field(default=None, ge=1, description="float32s in a vector register; None: this machine's")
    dispatch: Seconds | None = Field(default=None, description="time that the call of an op takes by itself")
    energy: Energy | None = Field(default=None, description="of a flop and of a byte of traffic, where known")
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
            DeviceError: no such dtype or number of threads, or no ceiling for that dtype and none for float32.
        """
        return self._peak(dtype, threads)[0]

    def kind_peak(self, kind: str, runtime: str, dtype: str = "float32", threads: int | None = None) -> float:
        """Peak arithmetic (flop/s) of the kernels of one kind in a runtime.

        It is `peak`, unless the device has a ceiling for exactly that kind, runtime, dtype and number of threads.

        Raises:
            DeviceError: as `peak`.
        """
        wanted = (kind, runtime, checked_dtype(dtype), self._threads(threads))
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
        """Size (byte) of a memory level, 0 where it is unknown."""
        return next((m.size for m in self.memory if m.level == level and m.size), 0.0)

    def assumptions(self, dtype: str = "float32", threads: int | None = None) -> tuple[str, ...]:
        """What `peak` and the bandwidth of DRAM had to assume, a sentence each; empty where they assume nothing.

        Raises:
            DeviceError: as `peak` and `bandwidth`.
        """
        return (*self._peak(dtype, threads)[1], *self._bandwidth("DRAM", threads)[1])

    def _peak(self, dtype: str, threads: int | None) -> tuple[float, list[str]]:
        """Peak (flop/s), and what it assumes."""
        notes = []
        ceilings = [c for c in self.compute if c.dtype == checked_dtype(dtype)]
        if not ceilings:
            notes.append(f"{self.name} has no compute ceiling for {dtype}: float32's is used.")
            ceilings = [c for c in self.compute if c.dtype == "float32"]
        if not ceilings:
            has = ", ".join(dict.fromkeys(c.dtype for c in self.compute))
            raise DeviceError(
                f"device {self.name} must have a compute ceiling for {dtype} or float32, but it has {has}"
            )
        wanted = self._threads(threads)
        ceiling = _of(ceilings, wanted, self.cores) or self._nearest(ceilings, wanted)
        at = self._busy(ceiling.threads)
        scale = self._busy(wanted) / at
        if scale != 1:
            notes.append(f"The compute ceiling of {_count(at)} is scaled by cores, {self._busy(wanted)}/{at}.")
        return ceiling.value * scale, notes + _unmeasured(f"The compute ceiling of {ceiling.dtype}", ceiling)

    def _nearest(self, ceilings: list[ComputeCeiling], wanted: int) -> ComputeCeiling:
        """Rule 2 of the module's docstring; of two numbers of cores as near as each other by ratio, the higher."""

        def distance(ceiling: ComputeCeiling) -> tuple[bool, float, int]:
            busy = self._busy(ceiling.threads)
            return (not ceiling.is_measured, abs(math.log(busy / self._busy(wanted))), -busy)

        return min(ceilings, key=distance)

    def _bandwidth(self, level: str, threads: int | None) -> tuple[float, list[str]]:
        """Bandwidth (byte/s), and what it assumes."""
        ceilings = [m for m in self.memory if m.level == level]
        if not ceilings:
            has = ", ".join(dict.fromkeys(m.level for m in self.memory))
            raise DeviceError(f"device {self.name} must have a memory level {level}, but it has {has}")
        wanted, notes = self._threads(threads), []
        ceiling = _of(ceilings, wanted, self.cores) or self._sharing(ceilings, wanted)
        at = self._busy(ceiling.threads)
        if at != self._busy(wanted):
            less_or_more = "less" if at > wanted else "more"
            notes.append(f"The {level} bandwidth of {_count(at)} is used for {wanted}, which may reach {less_or_more}.")
        return ceiling.value, notes + _unmeasured(f"The {level} bandwidth", ceiling)

    def _sharing(self, ceilings: list[MemoryCeiling], wanted: int) -> MemoryCeiling:
        """Rule 3 of the module's docstring."""
        ordered = sorted(ceilings, key=lambda m: m.threads or self.cores)
        return next((m for m in ordered if (m.threads or self.cores) >= wanted), ordered[-1])

    def _threads(self, threads: int | None) -> int:
        """The number of threads; `cores` where none is given."""
        if threads is not None and threads < 1:
            raise DeviceError(f"threads must be at least 1, but got {threads}")
        return threads or self.cores

    def _busy(self, threads: int | None) -> int:
        """Cores that so many threads keep busy; all of them if the device is no CPU."""
        return min(threads or self.cores, self.cores) if self.kind == "cpu" else self.cores

    # -- files --------------------------------------------------------------------------------

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the devices that come with hwcost."""
        entries = shipped("devices").iterdir()
        return tuple(sorted(e.name.removesuffix(".toml") for e in entries if e.name.endswith(".toml")))

    @classmethod
    def load(cls, name_or_path: str | Path) -> Device:
        """A device of the catalogue by name, or of a file.

        Raises:
            DeviceError: there is no such device or file, or the file breaks a rule; the message names file and key.
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


def _of(ceilings: Sequence[C], wanted: int, cores: int) -> C | None:
    """The ceiling for exactly `wanted` threads."""
    return next((c for c in ceilings if (c.threads or cores) == wanted), None)


def _count(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"


def _unmeasured(what: str, ceiling: Ceiling) -> list[str]:
    """The assumption that a ceiling makes if it is not measured."""
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
    """Drop keys whose value is empty text, an empty list or an empty table."""
    if isinstance(value, dict):
        return {k: _without_empty(v) for k, v in value.items() if v not in ("", {}, [])}
    return [_without_empty(v) for v in value] if isinstance(value, list) else value


def _first(errors: list[ErrorDetails]) -> str:
    """The first of pydantic's errors in one line: the key, the rule and the value."""
    error = errors[0]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).removeprefix(".")
    return f"{key + ': ' if key else ''}{_rule(error)}"


def _rule(error: ErrorDetails) -> str:
    """The rule that a value breaks, and the value."""
    message = error["msg"].removeprefix("Value error, ").replace("Input should", "must")
    if error["type"] == "missing":
        return "the key is missing"
    if error["type"] == "extra_forbidden":
        return "a device file has no such key"
    if error["type"] == "value_error":  # our own message, which has the value in it
        return message
    return f"{message}, but got {error['input']!r}"
