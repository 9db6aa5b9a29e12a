"""Ceilings of a device: each a quantity with its unit and its source, paper, measured or both."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
    model_validator,
)

from hwcost import units
from hwcost.graph import ITEMSIZE

Level = Literal["L1", "L2", "L3", "DRAM"]
FILE = "file"  # validation context of what was read from a file


class DeviceError(ValueError):
    """A device that is missing, a device file that breaks a rule, or a ceiling that nobody stated."""


def _reads(what: str, dimension: units.Dimension, low: float, high: float, usual: str) -> BeforeValidator:
    """Reader of a quantity in [low, high]: text with a unit or, in Python only, an SI number."""

    def read(value: Any, info: ValidationInfo) -> float:
        if info.context == FILE and not isinstance(value, str):
            raise ValueError(f'{what} must be text with a unit, but got {value!r}; did you mean "{value} {usual}"?')
        number = units.parse(value, dimension)
        if not low <= number <= high:
            meant = "" if isinstance(value, str) else f'; did you mean "{value:g} {usual}"?'
            raise ValueError(f"{what} must lie in [{low:g}, {high:g}] {dimension}, but got {value!r}{meant}")
        return number

    return BeforeValidator(read)


def _writes(dimension: units.Dimension) -> PlainSerializer:
    """Writer whose text is read back as the same float."""
    return PlainSerializer(lambda value: units.exact(value, dimension), return_type=str, when_used="json-unless-none")


# The ranges are wider than any hardware: what lies outside is a slip of the unit.
FlopRate = Annotated[float, _reads("a compute ceiling", "flop/s", 1e7, 1e17, "TFLOP/s"), _writes("flop/s")]
ByteRate = Annotated[float, _reads("a bandwidth", "byte/s", 1e7, 1e15, "GB/s"), _writes("byte/s")]
Bytes = Annotated[float, _reads("a size", "byte", 1e3, 1e14, "MiB"), _writes("byte")]
Joules = Annotated[float, _reads("an energy", "joule", 1e-16, 1e-6, "pJ"), _writes("joule")]
Seconds = Annotated[float, _reads("a dispatch time", "second", 1e-9, 1.0, "µs"), _writes("second")]


class Frozen(BaseModel):
    """A part of a device file: no key but those that it knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Ceiling(Frozen):
    """A value with its source; subclasses give it a unit."""

    threads: int | None = Field(default=None, ge=1, description="None: the whole device")
    paper: float | None = None
    paper_source: str = ""
    measured: float | None = None
    measured_source: str = ""
    spread: float | None = Field(default=None, ge=0, description="repeatability, relative half-width")

    @model_validator(mode="after")
    def _has_value_and_source(self) -> Self:
        if self.paper is None and self.measured is None:
            raise ValueError("a ceiling must have a paper or a measured value")
        if self.paper is not None and not self.paper_source:
            raise ValueError("a paper value must have a paper_source")
        if self.measured is not None and not self.measured_source:
            raise ValueError("a measured value must have a measured_source")
        return self

    @property
    def value(self) -> float:
        """The measured value, or the paper one where nothing was measured (SI)."""
        value = self.paper if self.measured is None else self.measured
        assert value is not None, "the validator lets no ceiling without a value through"
        return value

    @property
    def is_measured(self) -> bool:
        """Whether `value` was measured."""
        return self.measured is not None


class ComputeCeiling(Ceiling):
    """Peak arithmetic of one dtype (flop/s)."""

    dtype: str = "float32"
    paper: FlopRate | None = None
    measured: FlopRate | None = None

    @field_validator("dtype")
    @classmethod
    def _known(cls, dtype: str) -> str:
        return known_dtype(dtype)


class KindCeiling(ComputeCeiling):
    """The rate (flop/s) that the kernels of one kind reach at best in one runtime, below that of the dtype for many:
    a depthwise convolution cannot keep the multipliers busy, and an exponential takes many instructions.

    An in-core ceiling in the words of Williams et al. (see `hwcost.roofline`).
    """

    kind: str = Field(min_length=1, description="label of the kernels (`hwcost.kernel.label`), as conv2d/depthwise")
    runtime: str = Field(min_length=1, description="whose kernels they are")


class MemoryCeiling(Ceiling):
    """Bandwidth of one memory level (byte/s), and its size (byte)."""

    level: Level = "DRAM"
    size: Bytes | None = None
    paper: ByteRate | None = None
    measured: ByteRate | None = None


class Energy(Frozen):
    """What work and traffic cost (J)."""

    per_flop: Joules
    per_byte: Joules
    source: str = Field(min_length=1)

    def of(self, flops: float, traffic: float) -> float:
        """Energy (J) of `flops` flop and `traffic` byte; for comparing, since caches and idle power are left out."""
        return flops * self.per_flop + traffic * self.per_byte


def known_dtype(dtype: str) -> str:
    """The dtype, if it is one.

    Raises:
        DeviceError: it is not.
    """
    if dtype not in ITEMSIZE:
        near = get_close_matches(dtype, ITEMSIZE, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise DeviceError(f"dtype must be one of {', '.join(ITEMSIZE)}, but got {dtype!r}{meant}")
    return dtype
