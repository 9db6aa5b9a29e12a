"""The store: measurements in a database, written as they are taken.

SQLite by default, safe with several processes on one machine; PostgreSQL by URL for campaigns from
several. A store holds many environments side by side and never mixes them.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, delete, func, select

from hwcost.kernel import Kernel
from hwcost.measure.clock import Round, kernel_timings, whole_timing
from hwcost.measure.machine import is_alive
from hwcost.measure.store import schema as s
from hwcost.measure.store.database import (
    StoreError,
    check_file,
    explained,
    insert_new,
    make_engine,
    parse_url,
    parts,
    prepare,
)
from hwcost.measure.store.rows import network as network_of
from hwcost.measure.store.rows import network_row, numbers, round_of
from hwcost.measure.store.summaries import pack, rounded, unpack
from hwcost.measure.types import Environment, Item, Measurements, NetworkMeasurement
from hwcost.runtimes.base import Network

__all__ = ["Store", "StoreError"]


class Store:
    """An open store; make one with `Store.open`."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine, self.name = engine, name
        self._kernel_ids: dict[str, int] = {}

    # -- opening ----------------------------------------------------------------------------------

    @classmethod
    def open(cls, url: str | os.PathLike[str], *, create: bool = False) -> Store:
        """Open a store by path or URL (sqlite:///file.db, postgresql://user@host/name).

        Args:
            url: a bare path is a SQLite file.
            create: make the store where there is none, and expect to write.

        Raises:
            StoreError: missing, not a store, of another version, not writable or not reachable.
        """
        parsed = parse_url(url)
        name = parsed.render_as_string(hide_password=True)
        if parsed.get_backend_name() == "sqlite":
            name = parsed.database or name
            check_file(Path(name), create=create)
        with explained(name):
            engine = make_engine(parsed)
            prepare(engine, name, create=create)
        return cls(engine, name)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    # -- environments -----------------------------------------------------------------------------

    def environments(self) -> tuple[tuple[Environment, int], ...]:
        """Every environment with its number of networks, the oldest first."""
        return tuple((environment, networks) for _, environment, networks in self._places())

    def _places(self) -> list[tuple[int, Environment, int]]:
        """(row, environment, number of networks), the oldest first."""
        count = func.count(s.network.c.id)
        query = (
            select(s.environment.c.id, s.environment.c.description, count.label("networks"))
            .select_from(s.environment.outerjoin(s.network))
            .group_by(s.environment.c.id, s.environment.c.description)
            .order_by(s.environment.c.id)
        )
        return [(r.id, Environment.from_json(json.loads(r.description)), r.networks) for r in self._read(query)]

    def environment_id(self, environment: Environment) -> int:
        """Row of an environment, written where it is new."""
        row = {
            "digest": environment.digest,
            "runtime": environment.runtime,
            "threads": environment.threads,
            "description": json.dumps(environment.to_json(), sort_keys=True),
            "created": time.time(),
        }
        with self._write() as connection:
            connection.execute(insert_new(connection, s.environment), [row])
            found = connection.scalar(select(s.environment.c.id).where(s.environment.c.digest == environment.digest))
        assert found is not None
        return int(found)

    # -- writing ----------------------------------------------------------------------------------

    def add_network(self, environment_id: int, item: Item, network: Network) -> int:
        """Row of a network, written with its kernels where it is new.

        Raises:
            StoreError: the store has another network of that name.
        """
        with self._write() as connection:
            ids = self._kernels(connection, [p.kernel for p in network.kernels])
            distances, modules = [p.distance for p in network.kernels], [p.module for p in network.kernels]
            head = {"name": item.name, "family": item.family, "calls": network.calls}
            row = network_row(environment_id, head, item.spec, ids, distances, modules)
            connection.execute(insert_new(connection, s.network), [row])
            query = select(s.network.c.id, s.network.c.kernels).where(
                s.network.c.environment_id == environment_id, s.network.c.name == item.name
            )
            found = connection.execute(query).one()
        if bytes(found.kernels) != row["kernels"]:
            raise StoreError(
                f"{self.name} has a network {item.name!r} with other kernels than it has now; "
                "measure the changed network into another store"
            )
        return int(found.id)

    def _kernels(self, connection: Connection, kernels: Sequence[Kernel]) -> list[int]:
        new = {k.digest: k for k in kernels if k.digest not in self._kernel_ids}
        if new:
            rows = [{"digest": d, "description": k.to_json()} for d, k in sorted(new.items())]
            connection.execute(insert_new(connection, s.kernel), rows)
            for part in parts(list(new)):
                found = connection.execute(
                    select(s.kernel.c.digest, s.kernel.c.id).where(s.kernel.c.digest.in_(part))
                ).all()
                self._kernel_ids |= {row.digest: row.id for row in found}
        return [self._kernel_ids[k.digest] for k in kernels]

    def add_round(self, network_id: int, number: int, taken: Round) -> None:
        """Write a round; it is safe when this returns."""
        row = {
            "network_id": network_id,
            "number": number,
            "taken": time.time(),
            "seconds": taken.seconds,
            "steal": taken.disturbance.steal,
            "switches": taken.disturbance.switches,
            "waited": taken.disturbance.waited,
            "whole": taken.whole.astype("<f4").tobytes(),
            "waits": taken.waits.astype("<f4").tobytes(),
            "kernels": taken.kernels.astype("<f4").tobytes(),
            "paces": taken.paces.astype("<f4").tobytes(),
        }
        with self._write() as connection:
            connection.execute(s.round_.insert(), [row])

    def add_measurements(self, measurements: Measurements, *, taken: float | None = None) -> int:
        """Write networks with the timings that they have, all or none; returns how many were new.

        A network whose name the store has in that environment stays as it is. `taken` is when they were
        measured (s since 1970), by default now.
        """
        place = self.environment_id(measurements.environment)
        known = {r.name for r in self._read(select(s.network.c.name).where(s.network.c.environment_id == place))}
        new = {n.name: n for n in measurements.networks if n.name not in known}
        with self._write() as connection:
            self._kernels(connection, [m.kernel for n in new.values() for m in n.kernels])
            for part in parts(list(new.values())):
                self._add_summaries(connection, place, part, time.time() if taken is None else taken)
        return len(new)

    def _add_summaries(
        self, connection: Connection, place: int, networks: Sequence[NetworkMeasurement], taken: float
    ) -> None:
        rows = []
        for n in networks:
            ids = [self._kernel_ids[m.kernel.digest] for m in n.kernels]
            distances, modules = [m.distance for m in n.kernels], [m.module for m in n.kernels]
            head = {"name": n.name, "family": n.family, "calls": n.calls}
            rows.append(network_row(place, head, n.spec, ids, distances, modules) | {"created": taken})
        connection.execute(s.network.insert(), rows)
        query = select(s.network.c.name, s.network.c.id).where(
            s.network.c.environment_id == place, s.network.c.name.in_([n.name for n in networks])
        )
        ids_of = {row.name: row.id for row in connection.execute(query)}
        summaries = [
            {"network_id": ids_of[n.name]} | pack([n.timing, *(m.timing for m in n.kernels)]) for n in networks
        ]
        connection.execute(s.summary.insert(), summaries)

    # -- claims -----------------------------------------------------------------------------------

    def claim(self, environment_id: int, names: Iterable[str], worker: str, *, seconds: float) -> set[str]:
        """Take networks for `worker` for the next `seconds`; returns those it got.

        A network that another process holds is left to it, until that process has died or its claim is
        out of date. A worker is named "host:process".
        """
        now, got = time.time(), set[str]()
        columns = s.claim.c
        with self._write() as connection:
            for part in parts(sorted(names)):
                mine = (columns.environment_id == environment_id) & columns.name.in_(part)
                gone = [w for w in connection.scalars(select(columns.worker).where(mine).distinct()) if not is_alive(w)]
                void = (columns.until < now) | columns.worker.in_([worker, *gone])
                connection.execute(delete(s.claim).where(mine, void))
                rows = [
                    {"environment_id": environment_id, "name": n, "worker": worker, "until": now + seconds}
                    for n in part
                ]
                connection.execute(insert_new(connection, s.claim), rows)
                got |= set(connection.scalars(select(columns.name).where(mine, columns.worker == worker)))
        return got

    def release(self, environment_id: int, worker: str) -> None:
        """Give up every claim of `worker`."""
        with self._write() as connection:
            connection.execute(
                delete(s.claim).where(s.claim.c.environment_id == environment_id, s.claim.c.worker == worker)
            )

    # -- reading ----------------------------------------------------------------------------------

    def rounds(self, environment_id: int, names: Sequence[str] | None = None) -> dict[str, list[Round]]:
        """Rounds of each network that has any, by name, in the order they were taken."""
        query = (
            select(s.network.c.name, s.network.c.kernels.label("ids"), s.round_)
            .join(s.round_, s.round_.c.network_id == s.network.c.id)
            .where(s.network.c.environment_id == environment_id)
            .order_by(s.network.c.id, s.round_.c.number)
        )
        rounds: dict[str, list[Round]] = {}
        for part in [None] if names is None else parts(list(names)):
            for row in self._read(query if part is None else query.where(s.network.c.name.in_(part))):
                rounds.setdefault(row.name, []).append(round_of(row))
        return rounds

    def measurements(
        self,
        runtime: str | None = None,
        threads: int | None = None,
        *,
        environment: Environment | str | None = None,
        spread: float = math.inf,
    ) -> Measurements:
        """Everything measured in one environment, the only one that fits; "unstable" above `spread`.

        Args:
            runtime, threads: those of the environment, where given.
            environment: it, or the first digits of its digest.
            spread: the repeatability that was asked for.

        Raises:
            StoreError: nothing fits, or several do; says what the store has.
        """
        row, place = self._place(runtime, threads, environment)
        return Measurements(environment=place, networks=tuple(self._networks(row, spread)))

    def period(
        self, runtime: str | None = None, threads: int | None = None, environment: Environment | str | None = None
    ) -> tuple[float, float]:
        """When `measurements` of the same arguments were taken: first and last moment (s since 1970)."""
        row, _ = self._place(runtime, threads, environment)
        mine = s.network.c.environment_id == row
        taken = select(func.min(s.round_.c.taken), func.max(s.round_.c.taken)).join(s.network).where(mine)
        written = select(func.min(s.network.c.created), func.max(s.network.c.created)).join(s.summary).where(mine)
        moments = [m for query in (taken, written) for pair in self._read(query) for m in pair if m is not None]
        return min(moments, default=0.0), max(moments, default=0.0)

    def contexts(self, environment_id: int, least: int) -> list[list[tuple[str, int]]]:
        """(digest, distance) of each kernel of every network that has at least `least` rounds, or a summary."""
        rounds = select(func.count()).where(s.round_.c.network_id == s.network.c.id).scalar_subquery()
        enough = (rounds >= least) | s.summary.c.network_id.is_not(None)
        query = (
            select(s.network.c.kernels, s.network.c.distances)
            .outerjoin(s.summary)
            .where(s.network.c.environment_id == environment_id, enough)
        )
        digests = {row.id: row.digest for row in self._read(select(s.kernel.c.id, s.kernel.c.digest))}
        return [
            [(digests[k], d) for k, d in zip(*numbers(row.kernels, row.distances), strict=True)]
            for row in self._read(query)
        ]

    def _place(
        self, runtime: str | None, threads: int | None, environment: Environment | str | None
    ) -> tuple[int, Environment]:
        wanted = environment.digest if isinstance(environment, Environment) else environment or ""
        places = [(row, e) for row, e, networks in self._places() if networks]
        fits = [
            (row, e)
            for row, e in places
            if runtime in (None, e.runtime) and threads in (None, e.threads) and e.digest.startswith(wanted)
        ]
        if len(fits) != 1:
            has, several = [e for _, e in places], [e for _, e in fits]
            raise StoreError(_several(self.name, several) if several else _none(self.name, has, runtime, threads))
        return fits[0]

    def _networks(self, environment_id: int, spread: float) -> Iterator[NetworkMeasurement]:
        """In the order they were begun; one that has rounds here is told by them, as soon as they are as sure."""
        rounds = self.rounds(environment_id)
        query = (
            select(s.network, s.summary.c.times, s.summary.c.rounds, s.summary.c.flags)
            .outerjoin(s.summary)
            .where(s.network.c.environment_id == environment_id)
            .order_by(s.network.c.id)
        )
        rows = [row for row in self._read(query) if row.name in rounds or row.times is not None]
        kernels = self._described({int(i) for row in rows for i in np.frombuffer(row.kernels, "<i4")})
        for row in rows:
            own = rounds.get(row.name)
            known = unpack(row.times, row.rounds, row.flags) if row.times is not None else []
            whole = whole_timing(own, target=spread) if own else known[0]
            if own and known and known[0].spread < whole.spread:
                own, whole = None, known[0]  # a few rounds say less than what was imported
            inside = [*map(rounded, kernel_timings(own))] if own else known[1:]
            yield network_of(row, whole, inside, kernels)

    def _described(self, ids: set[int]) -> dict[int, Kernel]:
        found: dict[int, Kernel] = {}
        for part in parts(sorted(ids)):
            query = select(s.kernel.c.id, s.kernel.c.description).where(s.kernel.c.id.in_(part))
            found |= {row.id: Kernel.from_json(row.description) for row in self._read(query)}
        return found

    # -- the database -----------------------------------------------------------------------------

    def _read(self, query: Any) -> Sequence[Any]:
        with explained(self.name), self._engine.connect() as connection:
            return connection.execute(query).all()

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with explained(self.name), self._engine.begin() as connection:
            yield connection


def _none(name: str, has: Sequence[Environment], runtime: str | None, threads: int | None) -> str:
    held = sorted({f"{e.runtime} with {e.threads} thread(s)" for e in has})
    wanted = f"{runtime or 'any runtime'} with {threads or 'any number of'} thread(s)"
    said = f"it has {', '.join(held)}" if held else "it is empty; fill it with `hwcost measure`"
    return f"{name} has no measurements of {wanted}; {said}"


def _several(name: str, fit: Sequence[Environment]) -> str:
    """What tells environments apart, each by the digits that name it."""
    differ = sorted({key for e in fit[1:] for key in fit[0].differences(e)})
    said = "; ".join(f"{e.digest[:8]}: " + ", ".join(f"{key} {e.flat().get(key)}" for key in differ) for e in fit)
    return f"{name} has measurements of {len(fit)} environments that fit, choose one with --environment: {said}"
