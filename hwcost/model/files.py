"""Model files: a zip of JSON and Parquet that holds a model's data, never code.

Format history:
    1  first; `errors.json` came later and may be missing, then it is made again
"""

from __future__ import annotations

import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hwcost.device.ceilings import DeviceError
from hwcost.device.device import Device
from hwcost.measure.arrays import Flat
from hwcost.measure.clock import quiet_interpreter
from hwcost.measure.tables import SCHEMAS, flat_from_tables, from_tables, to_tables, write_parquet
from hwcost.measure.types import MeasurementError, Measurements
from hwcost.model import fitcache
from hwcost.model.cost_model import CostModel, ModelError
from hwcost.model.features import Target
from hwcost.model.fit import Errors, Rows, account_of, fit, rows_of
from hwcost.model.provenance import HEAD, PRIOR, About, counts_of, identity_of, provenance_of, unpacked
from hwcost.model.residual import Settings
from hwcost.paths import shipped
from hwcost.version import __version__

FORMAT = 1
_ERRORS = "errors.json"  # what cross-validation found
_EPOCH = (2020, 1, 1, 0, 0, 0)  # one date for every member: equal models are equal files


def members(model: CostModel) -> dict[str, bytes]:
    """What a model file holds, by name."""
    head = {
        "format": FORMAT, "hwcost": __version__, "runtime": model.runtime, "threads": model.threads,
        "dtype": model.target.dtype, "settings": asdict(model.settings), "fitted": model.is_fitted, "date": model.date,
    }  # fmt: skip
    held = {HEAD: json.dumps(head, indent=1, sort_keys=True).encode(), "device.toml": model.device.to_toml().encode()}
    if model.measurements is not None:
        tables = to_tables(model.measurements)
        held |= {f"{name}.parquet": _parquet(table) for name, table in tables.items()}
        held[_ERRORS] = _errors_to_json(model.fitted.errors)
    if model.prior is not None:
        held[PRIOR] = to_bytes(model.prior)
    return held


def to_bytes(model: CostModel) -> bytes:
    """The content of a model file; but for the day of the fit, equal models give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members(model).items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def save(model: CostModel, path: Path) -> None:
    """Write a model file; a half-written one never takes the place of a whole one."""
    begun = path.with_name(path.name + ".partial")
    try:
        begun.write_bytes(to_bytes(model))
        begun.replace(path)
    except OSError as error:
        begun.unlink(missing_ok=True)
        raise ModelError(f"model file {path} cannot be written: {error.strerror}") from error


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    write_parquet(table, sink)
    return sink.getvalue()


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


def load(path: Path) -> CostModel:
    """Read a model file and fit it."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"no model file {path}; make one with `hwcost fit -o {path}`") from error
    except OSError as error:
        raise ModelError(f"model file {path} cannot be read: {error.strerror}") from error
    return from_bytes(content, path)


def from_bytes(content: bytes, path: Path) -> CostModel:
    """A model from a file's bytes; `path` names it in errors."""
    try:
        held = unpacked(content)
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} is no model file ({error}); make one with `hwcost fit`") from error
    return _from_members(held, content, path)


def _from_members(held: dict[str, bytes], content: bytes, path: Path) -> CostModel:
    try:
        head: dict[str, Any] = json.loads(held[HEAD])
        if head["format"] > FORMAT:
            raise ModelError(
                f"{path} has model format {head['format']}, but this version reads up to {FORMAT}; update hwcost"
            )
        device = Device.from_toml(held["device.toml"].decode(), f"{path}: device.toml")
        if not head["fitted"]:
            return CostModel.analytic(device, head["runtime"], head["threads"], head["dtype"])
        target = Target(device, head["threads"], head["dtype"], head["runtime"])
        settings = Settings(**head["settings"])
        stored = {name: held[f"{name}.parquet"] for name in SCHEMAS}
        before = partial(from_bytes, held[PRIOR], path) if PRIOR in held else lambda: None
        make = partial(
            CostModel, target, head["runtime"], measurements=partial(_measurements, stored), settings=settings,
            date=str(head.get("date", "")),
        )  # fmt: skip
        known = fitcache.recall(content)
        if known is not None:  # then the measurements could be read, and are not needed now
            return make(prior=before(), fitted=known.fitted, about=known.about)
        # looking again and again through a million new objects takes a fifth of it all; and while the trees of a
        # prior grow, outside the interpreter, this model's own kernels are read inside it
        with quiet_interpreter(), ThreadPoolExecutor(1) as beside:
            reading = beside.submit(_read, stored, target)
            prior = before()
            flat, rows = reading.result()
            errors = _errors_from_json(held[_ERRORS], flat) if _ERRORS in held else None
            fitted = fit(flat, target, settings, prior.fitted.residual if prior else None, errors, rows)
            stands_on = prior.provenance if prior else ""
            told = provenance_of(flat.environment, flat.families, str(head.get("date", "")), stands_on)
            found = About(told, identity_of(held), counts_of(flat))
        fitcache.remember(content, fitcache.Known(fitted, found))
        return make(prior=prior, fitted=fitted, about=found)
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError, pa.ArrowInvalid) as error:
        raise ModelError(f"{path} is no model file: {type(error).__name__} {error}") from error
    except (DeviceError, MeasurementError) as error:
        raise ModelError(f"{path}: {error}") from error


def _read(stored: dict[str, bytes], target: Target) -> tuple[Flat, Rows]:
    flat = flat_from_tables(_tables(stored))
    return flat, rows_of(flat, target)


def _measurements(stored: dict[str, bytes]) -> Measurements:
    return from_tables(_tables(stored))


def _tables(stored: dict[str, bytes]) -> dict[str, pa.Table]:
    return {name: pq.read_table(io.BytesIO(content)) for name, content in stored.items()}


def _errors_to_json(errors: Errors) -> bytes:
    """The networks' names and measured times are in the measurements already."""
    held_out = [(n.predicted, n.low, n.high) for n in errors.held_out.networks] if errors.held_out else None
    found = {"sigma": dict(errors.sigma), "common": errors.common, "shared": errors.shared, "z": errors.z}
    found |= {"alone": errors.alone, "held_out": held_out}
    return json.dumps(found, sort_keys=True).encode()


def _errors_from_json(content: bytes, flat: Flat) -> Errors:
    found, account = json.loads(content), None
    if found["held_out"] is not None:
        if len(found["held_out"]) != len(flat):
            raise KeyError("errors.json must have a prediction for every network")
        account = account_of(flat, *np.array(found["held_out"], dtype=float).T)
    common, shared, z = (float(found[name]) for name in ("common", "shared", "z"))
    return Errors(found["sigma"], common, shared, z, account, float(found.get("alone", 1.0)))
