"""Model files: a zip of JSON, Parquet and NumPy arrays that holds a model's data and its trees, never code or pickles.

    model.json          format, target, settings of the trees, day and provenance
    device.toml         the device
    networks.parquet, kernels.parquet, times.parquet      the measurements (`hwcost.measure.tables`)
    fitted.json         overhead, errors, accuracy on held-out networks, and what the residual learned but its arrays
    residual/NAME.npy   the arrays of the residual, trees included
    prior.hwcost        the model file of the prior, where there is one

Reading a file fits nothing, so that the same file gives the same numbers in every process.

The archive's comment holds a digest of all bytes of the file (`hwcost.foreign.SEAL`), and `model.json` says so: a file
of which one byte changed on its way is refused. Files of before, which hold none, are read as they are; of those, the
checksums of the zip archive tell most damage.

Format history:
    2  the trees and all else that was fitted; accuracy of held-out networks by name
    1  data alone: reading it fits the model (`errors.json` held what cross-validation had found)
"""

from __future__ import annotations

import io
import json
import math
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hwcost.device.ceilings import DeviceError, checked_dtype
from hwcost.device.device import Device
from hwcost.foreign import (
    BAD_CONTENT,
    SEAL,
    is_whole,
    one_line,
    parsed_json,
    read_bytes,
    real_number,
    sealed,
    text_value,
    unzipped,
    whole_number,
)
from hwcost.measure.types import MeasurementError
from hwcost.model.accuracy import Accuracy, Comparison
from hwcost.model.data import ModelData, ModelError, OldModelFile, read_tables
from hwcost.model.features import Target
from hwcost.model.fit import Fitted, account_of, fit
from hwcost.model.intervals import Errors
from hwcost.model.learned import from_members, to_members
from hwcost.model.overhead import Overhead
from hwcost.model.provenance import HEAD, PRIOR, provenance_of
from hwcost.model.residual import Residual
from hwcost.model.trees import Settings
from hwcost.paths import shipped
from hwcost.version import __version__

FORMAT = 2
_TABLES = ("networks", "kernels", "times")
_FITTED, _DEVICE, _ARRAYS = "fitted.json", "device.toml", "residual/"
_ERRORS = "errors.json"  # of format 1
_EPOCH = (2020, 1, 1, 0, 0, 0)  # one date for every member: equal models are equal files
_MOST_PRIORS = 8  # of a model: its prior, the prior's prior, and so on
_LONGEST_HEADER = 10_000  # characters of the description of an array


# -- writing -------------------------------------------------------------------------------------


def members(data: ModelData) -> dict[str, bytes]:
    """What a model file holds, by name."""
    target = data.target
    head = {
        "format": FORMAT, "hwcost": __version__, "runtime": target.runtime, "threads": target.threads,
        "dtype": target.dtype, "settings": asdict(data.settings), "fitted": data.is_fitted, "date": data.date,
        "provenance": data.provenance, "digest": "blake2b",
    }  # fmt: skip
    held = {HEAD: json.dumps(head, indent=1, sort_keys=True).encode(), _DEVICE: target.device.to_toml().encode()}
    if data.is_fitted:
        held |= {f"{name}.parquet": content for name, content in _tables(data).items()}
        held |= _fitted_members(data.fitted)
    if data.prior is not None:
        held[PRIOR] = to_bytes(data.prior)
    return held


def _tables(data: ModelData) -> Mapping[str, bytes]:
    if data.tables is not None:
        return data.tables
    from hwcost.measure.tables import to_tables, write_parquet

    assert data.taken is not None
    written = {}
    for name, table in to_tables(data.taken).items():
        sink = io.BytesIO()
        write_parquet(table, sink)
        written[name] = sink.getvalue()
    return written


def _fitted_members(fitted: Fitted) -> dict[str, bytes]:
    assert fitted.residual.learned is not None
    values, arrays = to_members(fitted.residual.learned)
    held_out = fitted.held_out.networks if fitted.held_out else ()
    document = {
        "overhead": asdict(fitted.overhead),
        "errors": asdict(fitted.errors),
        "held_out": [[n.target, n.predicted, n.low, n.high, n.measured, n.spread] for n in held_out],
        "residual": values,
    }
    found = {_FITTED: json.dumps(document, sort_keys=True).encode()}
    for name, array in sorted(arrays.items()):
        sink = io.BytesIO()
        np.lib.format.write_array(sink, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
        found[f"{_ARRAYS}{name}.npy"] = sink.getvalue()
    return found


def to_bytes(data: ModelData) -> bytes:
    """The content of a model file; equal models give equal bytes, but for the day of the fit and hwcost's version."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members(data).items():
            is_small_already = name.endswith((".parquet", ".hwcost"))
            kind = zipfile.ZIP_STORED if is_small_already else zipfile.ZIP_DEFLATED
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, kind)
        archive.comment = SEAL
    return sealed(buffer.getvalue())


def save(data: ModelData, path: Path) -> None:
    """Write a model file; a half-written one never takes the place of a whole one.

    Raises:
        ModelError: the file cannot be written.
    """
    begun = path.with_name(path.name + ".partial")
    try:
        begun.write_bytes(to_bytes(data))
        begun.replace(path)
    except OSError as error:
        begun.unlink(missing_ok=True)
        raise ModelError(f"model file {path} cannot be written: {error.strerror}") from error


# -- reading -------------------------------------------------------------------------------------


def shipped_path(runtime: str, threads: int) -> Path:
    """The file of the model that ships for this runtime and thread count.

    Raises:
        ModelError: none does.
    """
    path = Path(str(shipped("models"))) / f"{runtime}-{threads}.hwcost"
    if not path.is_file():
        raise ModelError(
            f"no model ships for {runtime} on {threads} thread{'s' if threads > 1 else ''}; "
            "measure and fit one (`hwcost measure`, `hwcost fit`), or use the roofline alone (--device)"
        )
    return path


def load(path: Path) -> ModelData:
    """Read a model file; one of format 1 is fitted, with a warning.

    Raises:
        ModelError: no such file, no model file, or one of a newer format.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError as error:
        raise ModelError(f"no model file {path}; make one with `hwcost fit -o {path}`") from error
    except OSError as error:
        raise ModelError(f"model file {path} cannot be read: {error.strerror}") from error
    data, is_old = _from_bytes(content, path)
    if is_old:
        warnings.warn(
            f"{path} is of model format 1, which holds no trees, so that it was fitted now; save it once with "
            f"hwcost.CostModel.load({str(path)!r}).save({str(path)!r}), and it loads at once",
            OldModelFile,
            stacklevel=3,
        )
    return data


def _from_bytes(content: bytes, path: Path, priors: int = 0) -> tuple[ModelData, bool]:
    """A model from a file's bytes, and whether it had to be fitted; `path` names it in errors."""
    whole = is_whole(content)
    if whole is False:
        raise ModelError(f"{path} is damaged: its bytes are not those that were written; get the file again")
    try:
        held = unzipped(content)
    except BAD_CONTENT as error:
        raise ModelError(f"{path} is no model file ({one_line(error)}); make one with `hwcost fit`") from error
    try:
        return _from_members(held, path, priors, is_sealed=bool(whole))
    except ModelError:
        raise
    except (DeviceError, MeasurementError) as error:
        raise ModelError(f"{path}: {one_line(error)}") from error
    except BAD_CONTENT as error:
        raise ModelError(f"{path} is no model file: {type(error).__name__} {one_line(error)}") from error


def _from_members(held: Mapping[str, bytes], path: Path, priors: int, *, is_sealed: bool) -> tuple[ModelData, bool]:
    head: dict[str, Any] = parsed_json(held[HEAD])
    form = whole_number(head["format"], "format", 1)
    if form > FORMAT:
        raise ModelError(f"{path} has model format {form}, but this version reads up to {FORMAT}; update hwcost")
    if "digest" in head and not is_sealed:
        raise ModelError(f"{path} is damaged: the digest at its end is missing; get the file again")
    if priors > _MOST_PRIORS:
        raise ModelError(f"{path} has a prior of a prior, and so on, more than {_MOST_PRIORS} times")
    target = _target(head, held[_DEVICE], path)
    if not _flag(head["fitted"], "fitted"):
        return analytic(target), False
    settings = _made(Settings, head["settings"], "settings")
    date, tables = str(head.get("date", "")), {name: held[f"{name}.parquet"] for name in _TABLES}
    prior, old_prior = _from_bytes(held[PRIOR], path, priors + 1) if PRIOR in held else (None, False)
    if form == 1 or old_prior:
        return _fitted_again(target, settings, date, tables, prior, held.get(_ERRORS)), True
    data = ModelData(
        target=target,
        fitted=_fitted(held, prior.fitted.residual if prior else None),
        provenance=text_value(head["provenance"], "provenance"),
        settings=settings,
        date=date,
        prior=prior,
        tables=tables,
    )
    return data, False


def _target(head: Mapping[str, Any], device: bytes, path: Path) -> Target:
    return Target(
        Device.from_toml(device.decode(), f"{path}: {_DEVICE}"),
        whole_number(head["threads"], "threads", 1),
        checked_dtype(text_value(head["dtype"], "dtype")),
        text_value(head["runtime"], "runtime"),
    )


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, but is {value!r:.60}")
    return value


T = TypeVar("T")


def _made(kind: type[T], values: Mapping[str, Any], name: str) -> T:
    """A dataclass from values of a file, after checking those of its fields that are numbers."""
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name not in values:
            continue
        value, place = values[field.name], f"{name}.{field.name}"
        if field.type == "int":
            whole_number(value, place)
        elif field.type == "float":
            real_number(value, place)
        elif field.type == "Mapping[str, float]":
            for key, number in value.items():
                real_number(number, f"{place}.{key}")
    return kind(**values)


def analytic(target: Target) -> ModelData:
    """The roofline alone."""
    return ModelData(
        target=target,
        fitted=Fitted(Residual(), Overhead(), Errors()),
        provenance=f"the roofline of {target.device.name} alone",
    )


def _fitted(held: Mapping[str, bytes], prior: Residual | None) -> Fitted:
    document = parsed_json(held[_FITTED])
    arrays = {
        name.removeprefix(_ARRAYS).removesuffix(".npy"): _array(content)
        for name, content in held.items()
        if name.startswith(_ARRAYS)
    }
    held_out = Accuracy(tuple([_comparison(*row) for row in document["held_out"]]))
    residual = Residual(from_members(document["residual"], arrays), prior)
    return Fitted(
        residual,
        _made(Overhead, document["overhead"], "overhead"),
        _made(Errors, document["errors"], "errors"),
        held_out if held_out.networks else None,
    )


def _comparison(target: str, predicted: float, low: float, high: float, measured: float, spread: float) -> Comparison:
    times = (("predicted", predicted), ("low", low), ("high", high), ("measured", measured))
    for name, time in times:
        real_number(time, f"held_out.{name}", 0.0, finite=name != "high")
    return Comparison(
        target=text_value(target, "held_out.target"), predicted=predicted, low=low, high=high, measured=measured,
        spread=real_number(spread, "held_out.spread", 0.0, finite=False),
    )  # fmt: skip


def _array(content: bytes) -> NDArray[Any]:
    """The array of a .npy file: numbers, as many as its header says."""
    stream = io.BytesIO(content)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("an array must be in the form 1.0 of .npy files")
    try:
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(stream, _LONGEST_HEADER)
    except Exception as error:  # numpy reads the header as Python text
        raise ValueError(f"an array whose header cannot be read, {one_line(error, 60)}") from error
    if dtype.kind not in "iuf" or min(shape, default=0) < 0:
        raise ValueError(f"an array must hold numbers, but has {dtype} of {shape!r:.60}")
    data = content[stream.tell() :]
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"an array of the shape {shape!r:.60} must have {math.prod(shape)} numbers, and has others")
    found: NDArray[Any] = np.frombuffer(data, dtype).reshape(shape, order="F" if by_columns else "C")
    return found


def _fitted_again(
    target: Target, settings: Settings, date: str, tables: Mapping[str, bytes], prior: ModelData | None,
    errors: bytes | None,
) -> ModelData:  # fmt: skip
    """A model of format 1, from its data; `errors` is what its cross-validation had found, where it was kept."""
    from hwcost.measure.tables import flat_from_tables

    flat = flat_from_tables(read_tables(tables))
    known = None
    if errors is not None:
        found = parsed_json(errors)
        account = None
        if found["held_out"] is not None:
            if len(found["held_out"]) != len(flat):
                raise KeyError(f"{_ERRORS} must have a prediction for every network")
            predicted = np.array(found["held_out"], dtype=float).reshape(-1, 3).T
            middle, low, high = predicted
            account = account_of(flat.names, middle, low, high, flat.latency, flat.spread)
        common, shared, z = (float(found[name]) for name in ("common", "shared", "z"))
        known = Errors(found["sigma"], common, shared, z, float(found.get("alone", 1.0))), account
    fitted = fit(flat, target, settings, prior.fitted.residual if prior else None, known)
    told = provenance_of(flat.environment, flat.families, date, prior.provenance if prior else "")
    return ModelData(
        target=target, fitted=fitted, provenance=told, settings=settings, date=date, prior=prior, tables=tables
    )
