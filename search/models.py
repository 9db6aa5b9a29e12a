"""Models of one's own: whatever tells the latency of an architecture becomes something with `estimate`.

    a look-up           {("conv", 16): "1.2 ms", ...}, a frame, or a CSV, Parquet or YAML file of rows (`Rows`)
    a function          of the architecture, and of the example inputs where it takes two arguments
    anything else       with `estimate(architecture)` or `estimate(architecture, inputs)`

What they give is a number of seconds, a text with a unit, or an object with `latency` and perhaps `low` and `high` in
seconds. A row of a look-up must tell its unit: as a text, in the name of its column, or with `Rows.of(..., unit="ms")`.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwcost import units
from hwcost.search.identity import digest
from hwcost.search.protocols import Estimate, LatencyModel

if TYPE_CHECKING:
    import pandas as pd

Keys = Callable[[Any], Sequence[Any]]
_UNITS = {"s", "ms", "us", "µs", "ns", "min", "h"}
_TIME = re.compile(r"(?:.*[^A-Za-zµ])?(s|ms|us|µs|ns)[^A-Za-zµ]*\Z")  # a column with its unit: "latency_ms", "ms"
_UNSAID = ("latency", "time", "mean", "median", "duration", "value")  # columns of times that tell no unit
_OTHER = {"count", "std", "stddev", "n", "samples"}  # columns that are neither keys nor times


class ObjectiveError(ValueError):
    """Arguments of an objective that make no sense together, or a value that no study can use."""


class ModelError(ObjectiveError):
    """A model of one's own that cannot be used: the rule, what was given, the next step."""


@dataclass(frozen=True, slots=True)
class Told:
    """A latency and its interval, in seconds."""

    latency: float
    low: float
    high: float


# -- look-ups ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """A look-up: the latency of each block in seconds, by key. An architecture takes the sum over its blocks.

    The blocks of an architecture are: itself, where it is a key; the entries of a list; or of a mapping, such as the
    parameters of a trial, the pairs of name and value. Keys may be written in other ways: ("conv", 16), "conv-16" and
    "conv 16" are one key.

    Args:
        seconds: by key.
        keys: gives the keys of an architecture, where the above does not.
    """

    seconds: Mapping[Any, float]
    keys: Keys | None = None

    def __post_init__(self) -> None:
        for key, t in self.seconds.items():
            if not (isinstance(t, (int, float)) and math.isfinite(t) and t >= 0):
                raise ModelError(
                    f"the latency of a row must be a number of seconds, not below 0, but {key!r} has {t!r}"
                )

    @classmethod
    def of(cls, rows: Mapping[Any, Any] | pd.DataFrame, *, unit: str | None = None, keys: Keys | None = None) -> Rows:
        """Rows from a mapping or a frame.

        Args:
            rows: key -> a number or a text with a unit; or a frame with one column of times, whose name ends in its
                unit ("latency_ms"). All its other columns, but counts and deviations, make the key.
            unit: of numbers, such as "ms".
            keys: as of `Rows`.

        Raises:
            ModelError: no unit is told, or there is not one column of times.
        """
        if unit is not None and unit not in _UNITS:
            raise ModelError(f"the unit of a look-up must be one of {', '.join(sorted(_UNITS))}, but got {unit!r}")
        if not isinstance(rows, Mapping):
            rows, found = _of_frame(rows, unit)
            unit = unit or found
        if not rows:
            raise ModelError("a look-up needs at least one row, but got none")
        return cls({key: _seconds(key, value, unit) for key, value in rows.items()}, keys)

    @classmethod
    def read(cls, path: str | Path, *, unit: str | None = None, keys: Keys | None = None) -> Rows:
        """Rows from a file: CSV or Parquet as of a frame; YAML as `key: 1.2 ms`, or as once-for-all's tables, whose
        rows are `key: {count: .., mean: ..}` with the mean in ms.

        Raises:
            ModelError: it cannot be read, or as of `of`.
        """
        path = Path(path)
        try:
            return cls.of(_content(path), unit=unit, keys=keys)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from None
        except Exception as error:  # the libraries that read files raise errors of many kinds
            raise ModelError(f"{path} cannot be read as a look-up: {error}") from error

    @cached_property
    def digest(self) -> str:
        """Different for different rows."""
        return digest(sorted((str(_written(key)), t) for key, t in self.seconds.items()))

    @cached_property
    def _by_text(self) -> dict[str, float]:
        """Seconds by the way that `_written` writes a key; without keys that are written alike."""
        found: dict[str, float] = {}
        twice = set()
        for key, t in self.seconds.items():
            text = _written(key)
            if text in found and found[text] != t:
                twice.add(text)
            found[text] = t
        return {text: t for text, t in found.items() if text not in twice}

    def estimate(self, architecture: Any, inputs: Any = None) -> Told:
        """The sum over the blocks of an architecture; there is no interval.

        Raises:
            ModelError: a block has no row.
        """
        t = math.fsum(self._row(alternatives) for alternatives in self._blocks(architecture))
        return Told(t, t, t)

    def _blocks(self, architecture: Any) -> Iterator[tuple[Any, ...]]:
        """For each block the keys that it may have."""
        if self.keys is not None:
            yield from ((key,) for key in self.keys(architecture))
        elif self._has(architecture):
            yield (architecture,)
        elif isinstance(architecture, Mapping):
            for name, value in architecture.items():
                yield ((name, value), value)
        elif isinstance(architecture, Sequence) and not isinstance(architecture, str):
            yield from ((key,) for key in architecture)
        else:
            yield (architecture,)

    def _has(self, key: Any) -> bool:
        try:
            return key in self.seconds or _written(key) in self._by_text
        except TypeError:  # it cannot be hashed
            return False

    def _row(self, alternatives: tuple[Any, ...]) -> float:
        for key in alternatives:
            if self._has(key):
                return self.seconds[key] if key in self.seconds else self._by_text[_written(key)]
        missing = alternatives[0]
        names = {_written(key): key for key in self.seconds}
        near = [repr(names[n]) for n in get_close_matches(_written(missing), names, n=3, cutoff=0.0)]
        raise ModelError(f"the look-up has no row for {missing!r:.80}; the nearest are {', '.join(near)}; add it")


def _written(key: Any) -> str:
    """Words and numbers of a key, with a dash between them."""
    parts = key if isinstance(key, (tuple, list)) else (key,)
    return "-".join(re.findall(r"[^\W_]+(?:\.\d+)?", " ".join(map(str, parts))))


def _seconds(key: Any, value: Any, unit: str | None) -> float:
    if isinstance(value, str):
        try:
            return units.parse(value if unit is None or not _is_number(value) else f"{value} {unit}", "second")
        except units.UnitError as error:
            raise ModelError(f"row {key!r}: {error}") from None
    if unit is None:
        raise ModelError(
            f"a look-up must tell its unit, but {key!r} has {value!r}; write '{value} ms', name the column latency_ms, "
            'or use hwcost.search.Rows.of(rows, unit="ms")'
        )
    return units.parse(f"{float(value)!r} {unit}" if unit != "ns" else f"{float(value) * 1e-9!r} s", "second")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _of_frame(frame: pd.DataFrame, unit: str | None) -> tuple[dict[Any, Any], str | None]:
    """Key -> time of a frame, and the unit that its column of times tells."""
    names = [str(c) for c in frame.columns]
    times = [n for n in names if _TIME.match(n)] or [n for n in names if n.lower() in _UNSAID]
    if len(times) != 1:
        raise ModelError(
            f"a look-up needs one column of times with its unit, such as latency_ms, but has {', '.join(names)}"
        )
    keys = [n for n in names if n != times[0] and n.lower() not in _OTHER]
    if not keys and frame.index.name is None and str(frame.index.dtype).startswith("int"):
        raise ModelError(f"a look-up needs a column of keys beside {times[0]}")
    frame = frame.rename(columns=str)
    rows = list(frame[keys].itertuples(index=False, name=None)) if keys else [(i,) for i in frame.index]
    told = _TIME.match(times[0])
    found: dict[Any, Any] = {}
    for row, value in zip(rows, frame[times[0]].tolist(), strict=True):
        key = row if len(row) > 1 else row[0]
        if found.setdefault(key, value) != value:
            raise ModelError(f"a look-up has one row for each key, but {key!r} has {found[key]} and {value}")
    return found, told.group(1) if told else unit


def _content(path: Path) -> Any:
    if path.suffix.lower() in (".yaml", ".yml"):
        import yaml  # type: ignore[import-untyped]

        rows = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(rows, Mapping):
            raise ModelError("a YAML look-up is a mapping of keys to times")
        if all(isinstance(v, Mapping) and "mean" in v for v in rows.values()):  # once-for-all, in ms
            return {key: f"{float(v['mean'])!r} ms" for key, v in rows.items()}
        return rows
    import pandas as pd

    return pd.read_parquet(path) if path.suffix.lower() == ".parquet" else pd.read_csv(path)


# -- anything that tells a latency ------------------------------------------------------------------


@dataclass(frozen=True)
class Function:
    """A function of the architecture as a model."""

    function: Callable[..., Any]

    def estimate(self, architecture: Any, inputs: Any = None) -> Any:
        """What the function gives."""
        if _takes_inputs(self.function):
            return self.function(architecture, inputs)
        return self.function(architecture)


def as_models(model: Any) -> dict[str, LatencyModel]:
    """The models by name of device; a single one is called "device".

    Raises:
        ModelError: it is nothing that tells a latency.
    """
    if isinstance(model, Mapping) and model and not all(_is_time(v) for v in model.values()):
        return {str(name): _as_model(one, str(name)) for name, one in model.items()}
    return {} if isinstance(model, Mapping) and not model else {"device": _as_model(model, "device")}


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) or (isinstance(value, str) and value.strip()[:1].isdigit())


def _as_model(model: Any, name: str) -> LatencyModel:
    if callable(getattr(model, "estimate", None)):
        return model  # type: ignore[no-any-return]
    if isinstance(model, Mapping) or hasattr(model, "to_csv"):
        return Rows.of(model)
    if isinstance(model, (str, Path)):
        return _read(Path(model))
    if callable(model):
        return Function(model)
    raise ModelError(
        f"model {name!r} must have estimate(architecture, inputs), but is a {type(model).__name__}; "
        "a function of the architecture or a look-up will do as well"
    )


def _read(path: Path) -> LatencyModel:
    """The model of a file: a cost model, a latency table, or a look-up of one's own."""
    from hwcost.table.schema import TableError
    from hwcost.table.table import LatencyTable

    if path.suffix == ".hwcost":
        from hwcost.model.cost_model import CostModel

        return CostModel.load(path)
    try:
        return LatencyTable.load(path)
    except TableError:
        return Rows.read(path)


def ask(model: Any, architecture: Any, params: Mapping[str, Any], inputs: Any) -> Estimate:
    """What a model says of an architecture.

    A latency table is asked for the parameters, where the architecture is a network that it does not know.

    Raises:
        ModelError: it gives no latency.
    """
    if "decisions" in (getattr(model, "meta", None) or {}) and not isinstance(architecture, (Mapping, Sequence)):
        architecture = dict(params)
    estimate = model.estimate
    found = estimate(architecture, inputs) if _takes_inputs(estimate) else estimate(architecture)
    if isinstance(found, str):
        found = units.parse(found, "second")
    latency = getattr(found, "latency", found)
    try:
        t = float(latency)
    except (TypeError, ValueError):
        raise ModelError(f"estimate must give a latency in seconds, but gave {found!r:.80}") from None
    if hasattr(found, "low") and hasattr(found, "high"):
        return found  # type: ignore[no-any-return]
    return Told(t, float(getattr(found, "low", t)), float(getattr(found, "high", t)))


def _takes_inputs(function: Callable[..., Any]) -> bool:
    """Whether a function takes a second positional argument; one whose signature is not known is taken to."""
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:
        return True
    return True
