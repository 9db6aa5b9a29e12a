"""Ceilings of a device: quantities with their source, from a data sheet ("paper"), measured, or both."""

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
FILE = "file"  # pydantic's validation context of a device that is read from a file


class DeviceError(ValueError):
    """A device that does not exist, a device file that breaks a rule, or a ceiling that a device does not have."""


def _reads(what: str, dimension: units.Dimension, low: float, high: float, usual: str) -> BeforeValidator:
    """Reader of a quantity in [low, high]: text with a unit or, but not in a file, a number in SI units."""

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
    """Writer of a quantity as text with its unit, which is read back as the same float."""
    return PlainSerializer(lambda value: units.exact(value, dimension), return_type=str, when_used="json-unless-none")


# The ranges are wider than any hardware, so that a value outside must have the wrong unit.
FlopRate = Annotated[float, _reads("a compute ceiling", "flop/s", 1e7, 1e17, "TFLOP/s"), _writes("flop/s")]
ByteRate = Annotated[float, _reads("a bandwidth", "byte/s", 1e7, 1e15, "GB/s"), _writes("byte/s")]
Bytes = Annotated[float, _reads("a size", "byte", 1e3, 1e14, "MiB"), _writes("byte")]
Joules = Annotated[float, _reads("an energy", "joule", 1e-16, 1e-6, "pJ"), _writes("joule")]
Seconds = Annotated[float, _reads("a dispatch time", "second", 1e-9, 1.0, "µs"), _writes("second")]


class Frozen(BaseModel):
    """A table of a device file; keys other than the fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Ceiling(Frozen):
    """A ceiling from a data sheet, a measured one, or both, with their sources; subclasses say in which unit."""

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
        """The measured value, else the paper value, in SI units."""
        value = self.paper if self.measured is None else self.measured
        assert value is not None, "the validator refuses a ceiling without a value"
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
    def _checked(cls, dtype: str) -> str:
        return checked_dtype(dtype)


class KindCeiling(ComputeCeiling):
    """The rate (flop/s) that kernels of one kind reach at best in one runtime.

    For many kinds it lies below that of the dtype: a depthwise convolution cannot keep the multipliers busy, and an
    exponential takes many instructions. Williams et al. (see `hwcost.roofline`) call this an in-core ceiling.
    """

    kind: str = Field(min_length=1, description="the kernels' label (`hwcost.kernel.label`), as conv2d/depthwise")
    runtime: str = Field(min_length=1, description="that runs them")


class MemoryCeiling(Ceiling):
    """Bandwidth of one memory level (byte/s), and its size (byte)."""

    level: Level = "DRAM"
    size: Bytes | None = None
    paper: ByteRate | None = None
    measured: ByteRate | None = None


class Energy(Frozen):
    """Energy of a flop and of a byte of traffic (J)."""

    per_flop: Joules
    per_byte: Joules
    source: str = Field(min_length=1)

    def of(self, flops: float, traffic: float) -> float:
        """Energy (J) of `flops` flop and `traffic` byte, without caches and idle power: only for comparing networks."""
        return flops * self.per_flop + traffic * self.per_byte


def checked_dtype(dtype: str) -> str:
    """Return the dtype after checking that it exists.

    Raises:
        DeviceError: there is no such dtype.
    """
    if dtype not in ITEMSIZE:
        near = get_close_matches(dtype, ITEMSIZE, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise DeviceError(f"dtype must be one of {', '.join(ITEMSIZE)}, but got {dtype!r}{meant}")
    return dtype
