"""Where a model comes from: what it was fitted on in one line, and the identity of its data."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from hwcost.measure.types import Environment

_KINDS = 3  # families that `provenance_of` names
HEAD, PRIOR = "model.json", "prior.hwcost"  # members of a model file


def provenance_of(environment: Environment, families: Sequence[str], date: str, prior: str = "") -> str:
    """In one line, what a model was fitted on.

    Args:
        environment: in which its networks were measured.
        families: of the networks, one for each.
        date: day of the fit.
        prior: provenance of its prior, where it has one.
    """
    versions = ", ".join(f"{name} {value}" for name, value in environment.versions.items() if value[:1].isdigit())
    kinds = ", ".join(f"{n} {kind}" for kind, n in _kinds(families).items())
    return (
        f"fitted on {len(families)} networks ({kinds}) measured on {environment.cpu}, {environment.runtime} "
        f"({versions or 'versions unknown'}), {environment.threads} thread(s), on {date or 'an unknown day'}"
        f"{f', on top of one {prior}' if prior else ''}"
    )


def _kinds(families: Iterable[str]) -> dict[str, int]:
    """Networks by family, the largest families first, the others together."""
    count = Counter(families)
    named = dict(count.most_common(_KINDS))
    rest = count.total() - sum(named.values())
    return named | ({f"of {len(count) - len(named)} other families": rest} if rest else {})


def identity_of(members: Mapping[str, bytes]) -> str:
    """SHA-256 (hex digits) of what a model file holds; the day of the fit is no part of it."""
    whole = hashlib.sha256()
    for name in sorted(members):
        content = members[name]
        if name == HEAD:
            head = {k: v for k, v in json.loads(content).items() if k not in ("date", "hwcost", "provenance")}
            content = json.dumps(head, sort_keys=True).encode()
        elif name == PRIOR:
            content = identity_of(unpacked(content)).encode()
        whole.update(name.encode() + b"\0" + content + b"\0")
    return whole.hexdigest()


def unpacked(content: bytes) -> dict[str, bytes]:
    """Members of a zip file, such as a model file."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
