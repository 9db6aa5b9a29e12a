"""Model files: a zip of JSON, Parquet and NumPy arrays that holds a model's data and its trees, never code or pickles.

    model.json          format, target, settings of the trees, day and provenance
    device.toml         the device
    networks.parquet, kernels.parquet, times.parquet      the measurements (`hwcost.measure.tables`)
    fitted.json         overhead, errors, accuracy on held-out networks, and what the residual learned but its arrays
    residual/NAME.npy   the arrays of the residual, trees included
    prior.hwcost        the model file of the prior, where there is one

Reading a file fits nothing, so that the same file gives the same numbers in every process.

Format history:
    2  the trees and all else that was fitted; accuracy of held-out networks by name
    1  data alone: reading it fits the model (`errors.json` held what cross-validation had found)
"""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwcost.device.ceilings import DeviceError
from hwcost.device.device import Device
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
_READ_ERRORS = (KeyError, TypeError, ValueError, AttributeError, IndexError, EOFError, OSError, zipfile.BadZipFile)


# -- writing -------------------------------------------------------------------------------------


def members(data: ModelData) -> dict[str, bytes]:
    """What a model file holds, by name."""
    target = data.target
    head = {
        "format": FORMAT, "hwcost": __version__, "runtime": target.runtime, "threads": target.threads,
        "dtype": target.dtype, "settings": asdict(data.settings), "fitted": data.is_fitted, "date": data.date,
        "provenance": data.provenance,
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
    return buffer.getvalue()


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
        content = path.read_bytes()
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


def _from_bytes(content: bytes, path: Path) -> tuple[ModelData, bool]:
    """A model from a file's bytes, and whether it had to be fitted; `path` names it in errors."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} is no model file ({error}); make one with `hwcost fit`") from error
    try:
        with archive:
            return _from_archive(archive, path)
    except ModelError:
        raise
    except (DeviceError, MeasurementError) as error:
        raise ModelError(f"{path}: {error}") from error
    except _READ_ERRORS as error:
        raise ModelError(f"{path} is no model file: {type(error).__name__} {error}") from error


def _from_archive(archive: zipfile.ZipFile, path: Path) -> tuple[ModelData, bool]:
    head: dict[str, Any] = json.loads(archive.read(HEAD))
    if head["format"] > FORMAT:
        raise ModelError(
            f"{path} has model format {head['format']}, but this version reads up to {FORMAT}; update hwcost"
        )
    device = Device.from_toml(archive.read(_DEVICE).decode(), f"{path}: {_DEVICE}")
    target = Target(device, head["threads"], head["dtype"], head["runtime"])
    if not head["fitted"]:
        return analytic(target), False
    names = set(archive.namelist())
    settings = Settings(**head["settings"])
    date, tables = str(head.get("date", "")), {name: archive.read(f"{name}.parquet") for name in _TABLES}
    prior, old_prior = _from_bytes(archive.read(PRIOR), path) if PRIOR in names else (None, False)
    if head["format"] == 1 or old_prior:
        stored = archive.read(_ERRORS) if _ERRORS in names else None
        return _fitted_again(target, settings, date, tables, prior, stored), True
    fitted = _fitted(archive, prior.fitted.residual if prior else None)
    data = ModelData(
        target=target, fitted=fitted, provenance=head["provenance"], settings=settings, date=date, prior=prior,
        tables=tables,
    )  # fmt: skip
    return data, False


def analytic(target: Target) -> ModelData:
    """The roofline alone."""
    return ModelData(
        target=target,
        fitted=Fitted(Residual(), Overhead(), Errors()),
        provenance=f"the roofline of {target.device.name} alone",
    )


def _fitted(archive: zipfile.ZipFile, prior: Residual | None) -> Fitted:
    document = json.loads(archive.read(_FITTED))
    arrays = {
        name.removeprefix(_ARRAYS).removesuffix(".npy"): _array(archive.read(name))
        for name in archive.namelist()
        if name.startswith(_ARRAYS)
    }
    networks = (dict(zip(_COLUMNS, row, strict=True)) for row in document["held_out"])
    held_out = Accuracy(tuple([Comparison(**network) for network in networks]))
    return Fitted(
        Residual(from_members(document["residual"], arrays), prior),
        Overhead(**document["overhead"]),
        Errors(**document["errors"]),
        held_out if held_out.networks else None,
    )


_COLUMNS = ("target", "predicted", "low", "high", "measured", "spread")


def _array(content: bytes) -> NDArray[Any]:
    found: NDArray[Any] = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
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
        found = json.loads(errors)
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
