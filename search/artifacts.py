"""The breakdown of each trained architecture, which layer costs what, kept as an Optuna artifact of its trial.

It is a file "hwcost-breakdown.json" rather than an attribute of the trial, because every worker reads the attributes
of all trials, which must therefore stay small:

    {"devices": {"phone": {"latency": 0.0041, ..., "parts": [{"name": "stages.0.1", "latency_s": 0.0007, ...}]}}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact
from optuna.trial import FrozenTrial

NAME = "hwcost-breakdown.json"


class ArtifactError(ValueError):
    """A folder that cannot hold artifacts, or a trial without one."""


def folder_beside(storage: str) -> Path | None:
    """The folder for the artifacts of a study that is kept in a file: "study.db.artifacts" for "study.db".

    None for a storage that is not a file.
    """
    scheme, _, rest = storage.partition("://")
    if rest and scheme not in ("sqlite", "journal"):
        return None
    path = rest.removeprefix("/") if rest else storage
    return Path(f"{path}.artifacts") if path and path != ":memory:" else None


def store(folder: str | Path) -> FileSystemArtifactStore:
    """The artifact store in a folder, which is created where it does not exist.

    Raises:
        ArtifactError: the folder cannot be created.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"artifacts cannot be kept in {folder}: {error.strerror}; choose another folder") from error
    return FileSystemArtifactStore(base_path=str(folder))


def keep(trial: Any, breakdown: Mapping[str, Any], folder: str | Path) -> None:
    """Write a breakdown to the artifact store in `folder` and attach it to the running trial."""
    if not isinstance(trial, optuna.Trial):  # a FixedTrial belongs to no study
        return
    with TemporaryDirectory() as scratch:
        file = Path(scratch) / NAME
        file.write_text(json.dumps(breakdown), encoding="utf-8")
        upload_artifact(artifact_store=store(folder), file_path=str(file), study_or_trial=trial)


def breakdown_of(study: optuna.Study, trial: FrozenTrial, folder: str | Path) -> dict[str, Any]:
    """The breakdown of a trained trial.

    Raises:
        ArtifactError: the trial has no breakdown, or its file is not in the folder.
    """
    for meta in get_all_artifact_meta(trial, storage=study._storage):
        if meta.filename == NAME:
            try:
                with FileSystemArtifactStore(base_path=str(folder)).open_reader(meta.artifact_id) as stream:
                    return dict(json.load(stream))
            except optuna.artifacts.exceptions.ArtifactNotFound:
                raise ArtifactError(
                    f"the breakdown of trial {trial.number} is not in {folder}; give the folder of the search"
                ) from None
    raise ArtifactError(
        f"trial {trial.number} has no breakdown; search with artifacts= (the command line does so for files)"
    )
