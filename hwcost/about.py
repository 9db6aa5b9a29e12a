"""What a model says of itself without its measurements at hand."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hwcost.kernel import bucket
from hwcost.measure import Measurements

_KINDS = 3  # families that `provenance` names
HEAD, PRIOR = "model.json", "prior.hwcost"  # members of a model file


@dataclass(frozen=True, slots=True)
class About:
    """What is kept beside a fit, so that the measurements need not be read again."""

    provenance: str
    identity: str  # of the data
    counts: Mapping[tuple[str, int], int]


def provenance_of(measurements: Measurements, date: str) -> str:
    """In one line, what a model was fitted on: machine, runtime with its versions, threads, day, networks."""
    environment, networks = measurements.environment, measurements.networks
    versions = ", ".join(f"{name} {value}" for name, value in environment.versions.items() if value[:1].isdigit())
    kinds = ", ".join(f"{n} {kind}" for kind, n in _kinds(n.family for n in networks).items())
    return (
        f"fitted on {len(networks)} networks ({kinds}) measured on {environment.cpu}, {environment.runtime} "
        f"({versions or 'versions unknown'}), {environment.threads} thread(s), on {date or 'an unknown day'}"
    )


def counts_of(measurements: Measurements) -> dict[tuple[str, int], int]:
    """How often each kernel was measured, by its digest and the bucket of its reuse distance."""
    return dict(
        Counter((m.kernel.digest, bucket(m.distance)) for network in measurements.networks for m in network.kernels)
    )


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
