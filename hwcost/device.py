"""A device: hardware with ceilings, each with its source. Devices are files, not code.

A device file is TOML; quantities carry their unit. A ceiling may have a paper value, a measured one
or both; where both are given the measured one is used.

    name = "intel-i9-10980xe"
    kind = "cpu"
    cores = 16

    [[compute]]
    dtype = "float32"
    paper = "4.608 TFLOP/s"
    paper_source = "16 cores x 4.5 GHz x 64 flop per cycle"
    measured = "2.86 TFLOP/s"
    measured_source = "..."
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from hwcost import units


class DeviceError(ValueError):
    """A device that is missing or a profile that breaks a rule."""


def _quantity(dimension: units.Dimension) -> Any:
    """A float that is read from and written as text with a unit."""
    return Annotated[
        float,
        BeforeValidator(lambda v: _with_unit(v, dimension)),
        PlainSerializer(lambda v: units.format(v, dimension, digits=5), return_type=str, when_used="json"),
        Field(gt=0),
    ]


def _with_unit(value: Any, dimension: units.Dimension) -> float:
    """Files give text with a unit; a bare number there is ambiguous, so only text is parsed."""
    return units.parse(value, dimension)


FlopRate = _quantity("flop/s")
ByteRate = _quantity("byte/s")
Bytes = _quantity("byte")
Seconds = _quantity("second")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Ceiling(_Frozen):
    threads: int | None = Field(default=None, ge=1, description="None: the whole device")
    paper_source: str = ""
    measured_source: str = ""
    spread: float | None = Field(default=None, ge=0, description="repeatability, relative half-width")

    @model_validator(mode="after")
    def _has_value(self) -> _Ceiling:
        paper, measured = getattr(self, "paper", None), getattr(self, "measured", None)
        if paper is None and measured is None:
            raise ValueError("a ceiling must have a paper or a measured value")
        for name, value in (("paper", paper), ("measured", measured)):
            if value is not None and not getattr(self, f"{name}_source"):
                raise ValueError(f"a {name} value must have a {name}_source")
        return self

    @property
    def value(self) -> float:
        """The measured value, or the paper one where nothing was measured (SI)."""
        measured: float | None = getattr(self, "measured", None)
        return measured if measured is not None else float(getattr(self, "paper"))  # noqa: B009

    @property
    def is_measured(self) -> bool:
        """Whether `value` was measured."""
        return getattr(self, "measured", None) is not None


class ComputeCeiling(_Ceiling):
    """Peak arithmetic of one dtype (flop/s)."""

    dtype: str = "float32"
    paper: FlopRate | None = None
    measured: FlopRate | None = None


class MemoryCeiling(_Ceiling):
    """Bandwidth of one memory level (byte/s), and its size where it is a cache."""

    level: Literal["L1", "L2", "L3", "DRAM"] = "DRAM"
    size: Bytes | None = None
    paper: ByteRate | None = None
    measured: ByteRate | None = None


class Device(_Frozen):
    """Hardware with its ceilings."""

    name: str = Field(min_length=1)
    kind: Literal["cpu", "gpu", "npu"] = "cpu"
    description: str = ""
    cores: int = Field(default=1, ge=1)
    vector_bytes: int = Field(default=32, ge=1, description="width of a vector register")
    compute: tuple[ComputeCeiling, ...] = Field(min_length=1)
    memory: tuple[MemoryCeiling, ...] = Field(min_length=1)
    dispatch: Seconds | None = None
    host: Mapping[str, str] = Field(default_factory=dict, description="CPU, versions, date of a measurement")

    # -- ceilings ---------------------------------------------------------------------------

    def peak(self, dtype: str = "float32", threads: int | None = None) -> float:
        """Peak arithmetic (flop/s) of a dtype on `threads` threads (None: all).

        A ceiling of that thread count is used as it is; otherwise the largest known one is scaled
        by cores, since each core computes by itself. A dtype without a ceiling computes at float32's.

        Raises:
            DeviceError: no ceiling fits.
        """
        known = [c for c in self.compute if c.dtype == dtype] or [c for c in self.compute if c.dtype == "float32"]
        if not known:
            raise DeviceError(
                f"device {self.name} has no compute ceiling for {dtype}; it has {', '.join(c.dtype for c in self.compute)}"
            )
        ceiling = _of_threads(known, threads)
        return ceiling.value * self._scale(ceiling, threads)

    def bandwidth(self, level: str = "DRAM", threads: int | None = None) -> float:
        """Bandwidth (byte/s) of a memory level; shared levels are not scaled by cores.

        Raises:
            DeviceError: the device has no such level.
        """
        known = [c for c in self.memory if c.level == level]
        if not known:
            raise DeviceError(
                f"device {self.name} has no memory level {level!r}; it has {', '.join(dict.fromkeys(c.level for c in self.memory))}"
            )
        return _of_threads(known, threads).value

    def ridge(self, dtype: str = "float32", threads: int | None = None) -> float:
        """Arithmetic intensity (flop/byte) at which the compute and DRAM ceilings meet."""
        return self.peak(dtype, threads) / self.bandwidth("DRAM", threads)

    def cache_size(self, level: str) -> float:
        """Bytes of a cache level, 0 where unknown."""
        return next((c.size for c in self.memory if c.level == level and c.size), 0.0)

    def _scale(self, ceiling: _Ceiling, threads: int | None) -> float:
        if self.kind != "cpu" or ceiling.threads == threads:
            return 1.0
        return min(threads or self.cores, self.cores) / min(ceiling.threads or self.cores, self.cores)

    # -- files --------------------------------------------------------------------------------

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The catalogue."""
        return tuple(sorted(p.name.removesuffix(".toml") for p in _catalogue().iterdir() if p.name.endswith(".toml")))

    @classmethod
    def load(cls, name_or_path: str | Path) -> Device:
        """A device of the catalogue, or of a file.

        Raises:
            DeviceError: no such device or file, or the file breaks a rule; names the file and the key.
        """
        path = Path(name_or_path)
        if path.suffix == ".toml" or path.exists():
            return _read(path)
        if str(name_or_path) not in cls.names():
            raise DeviceError(f"no device {str(name_or_path)!r}; give a .toml file or one of: {', '.join(cls.names())}")
        return _read(Path(str(_catalogue() / f"{name_or_path}.toml")))

    def save(self, path: str | Path) -> None:
        """Write the device file."""
        Path(path).write_text(self.to_toml(), encoding="utf-8")

    def to_toml(self) -> str:
        """The device file's text."""
        import tomli_w

        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    @classmethod
    def from_toml(cls, text: str, source: str = "device file") -> Device:
        """Read a device file's text; `source` names it in errors."""
        try:
            return cls.model_validate(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise DeviceError(f"{source} is no TOML: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise DeviceError(
                f"{source}: {key}: {first['msg'].removeprefix('Value error, ')}, but got {first['input']!r}"
            ) from error


C = TypeVar("C", bound=_Ceiling)


def _of_threads(known: list[C], threads: int | None) -> C:
    exact = [c for c in known if c.threads == threads]
    return exact[0] if exact else max(known, key=lambda c: c.value)


def _read(path: Path) -> Device:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DeviceError(f"device file {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return Device.from_toml(text, str(path))


def _catalogue() -> Any:
    """The installed data folder, or the checkout's where links are lost."""
    installed = files("hwcost") / "datasets"
    if installed.is_dir():
        return installed / "devices"
    return Path(__file__).parents[1] / "datasets" / "devices"
