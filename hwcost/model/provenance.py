"""What a model says of itself without its measurements at hand."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hwcost.measure.arrays import Flat
from hwcost.measure.types import Environment
from hwcost.model.features import buckets

_KINDS = 3  # families that `provenance` names
HEAD, PRIOR = "model.json", "prior.hwcost"  # members of a model file


@dataclass(frozen=True, slots=True)
class About:
    """What is kept beside a fit, so that the measurements need not be read again."""

    provenance: str
    identity: str  # of the data
    counts: Mapping[tuple[str, int], int]


def provenance_of(environment: Environment, families: Sequence[str], date: str, prior: str = "") -> str:
    """In one line, what a model was fitted on: machine, runtime with its versions, threads, day, networks; and its
    prior, where it has one."""
    versions = ", ".join(f"{name} {value}" for name, value in environment.versions.items() if value[:1].isdigit())
    kinds = ", ".join(f"{n} {kind}" for kind, n in _kinds(families).items())
    return (
        f"fitted on {len(families)} networks ({kinds}) measured on {environment.cpu}, {environment.runtime} "
        f"({versions or 'versions unknown'}), {environment.threads} thread(s), on {date or 'an unknown day'}"
        f"{f', on top of one {prior}' if prior else ''}"
    )


def counts_of(flat: Flat) -> dict[tuple[str, int], int]:
    """How often each kernel was measured, by its digest and the bucket of its reuse distance."""
    pairs, times = np.unique(np.column_stack([flat.kernel, buckets(flat.distance)]), axis=0, return_counts=True)
    return {(flat.kernels[k].digest, b): n for (k, b), n in zip(pairs.tolist(), times.tolist(), strict=True)}


def identity_of(members: Mapping[str, bytes]) -> str:
    """SHA-256 of what a model file holds; the day of the fit is no part of it."""
    whole = hashlib.sha256()
    for name in sorted(members):
        content = members[name]
        if name == HEAD:
            head = {k: v for k, v in json.loads(content).items() if k != "date"}
            content = json.dumps(head, sort_keys=True).encode()
        elif name == PRIOR:
            content = identity_of(unpacked(content)).encode()
        whole.update(name.encode() + b"\0" + content + b"\0")
    return whole.hexdigest()


def unpacked(content: bytes) -> dict[str, bytes]:
    """Members of a model file, or of any zip."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _kinds(families: Iterable[str]) -> dict[str, int]:
    """Networks by family, the largest families first, the others together."""
    count = Counter(families)
    named = dict(count.most_common(_KINDS))
    rest = count.total() - sum(named.values())
    return named | ({f"of {len(count) - len(named)} other families": rest} if rest else {})
