"""The store: measurements in a database, written as they are taken.

A store is a SQLite file, which several processes of one machine may use at the same time, or a PostgreSQL database for
campaigns from several machines. It holds measurements of many environments and never mixes them.
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
from hwcost.measure.process import is_alive
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
from hwcost.measure.store.rows import kernel_ids_and_distances, network_of, network_row, round_of
from hwcost.measure.store.summaries import pack, rounded, unpack
from hwcost.measure.types import Environment, Item, Measurements, NetworkMeasurement
from hwcost.runtimes.base import Network

__all__ = ["Store", "StoreError"]


class Store:
    """An open store; make one with `Store.open`."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine, self.name = engine, name
        self._kernel_ids: dict[str, int] = {}  # row numbers by digest, of the kernels met so far

    # -- opening ----------------------------------------------------------------------------------

    @classmethod
    def open(cls, url: str | os.PathLike[str], *, create: bool = False) -> Store:
        """Open a store by path or URL (sqlite:///file.db, postgresql://user@host/name).

        Args:
            url: a bare path is a SQLite file.
            create: make the store where there is none, and expect to write.

        Raises:
            StoreError: missing, not a store, of a newer version, not writable or not reachable.
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
        """Close the connections to the database."""
        self._engine.dispose()

    # -- environments -----------------------------------------------------------------------------

    def environments(self) -> tuple[tuple[Environment, int], ...]:
        """Every environment with its number of networks, the oldest first."""
        return tuple((environment, networks) for _, environment, networks in self._environments())

    def _environments(self) -> list[tuple[int, Environment, int]]:
        """(row number, environment, number of networks), the oldest first."""
        count = func.count(s.network.c.id)
        query = (
            select(s.environment.c.id, s.environment.c.description, count.label("networks"))
            .select_from(s.environment.outerjoin(s.network))
            .group_by(s.environment.c.id, s.environment.c.description)
            .order_by(s.environment.c.id)
        )
        return [(r.id, Environment.from_json(json.loads(r.description)), r.networks) for r in self._read(query)]

    def environment_id(self, environment: Environment) -> int:
        """Row number of an environment, which is written if it is new."""
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
        """Row number of a network, which is written with its kernels if it is new.

        Raises:
            StoreError: the store has a network of that name with other kernels.
        """
        with self._write() as connection:
            row = network_row(
                environment_id=environment_id,
                name=item.name,
                family=item.family,
                spec=item.spec,
                calls=network.calls,
                kernels=network.kernels,
                kernel_ids=self._add_kernels(connection, [p.kernel for p in network.kernels]),
                created=time.time(),
            )
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

    def _add_kernels(self, connection: Connection, kernels: Sequence[Kernel]) -> list[int]:
        """Row numbers of kernels; those that are new are written."""
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
        """Write a round, the `number`-th of its network from 0; when this returns it is in the database."""
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

        A network whose name the store already has in that environment is left as it is. `taken` is when they were
        measured (s since 1970), by default now.
        """
        environment_id = self.environment_id(measurements.environment)
        stored = select(s.network.c.name).where(s.network.c.environment_id == environment_id)
        names = {row.name for row in self._read(stored)}
        new = {n.name: n for n in measurements.networks if n.name not in names}
        with self._write() as connection:
            self._add_kernels(connection, [m.kernel for n in new.values() for m in n.kernels])
            for part in parts(list(new.values())):
                self._add_summaries(connection, environment_id, part, time.time() if taken is None else taken)
        return len(new)

    def _add_summaries(
        self, connection: Connection, environment_id: int, networks: Sequence[NetworkMeasurement], taken: float
    ) -> None:
        """Write networks whose kernels are in the store already, with their timings."""
        rows = [
            network_row(
                environment_id=environment_id,
                name=n.name,
                family=n.family,
                spec=n.spec,
                calls=n.calls,
                kernels=n.kernels,
                kernel_ids=[self._kernel_ids[m.kernel.digest] for m in n.kernels],
                created=taken,
            )
            for n in networks
        ]
        connection.execute(s.network.insert(), rows)
        query = select(s.network.c.name, s.network.c.id).where(
            s.network.c.environment_id == environment_id, s.network.c.name.in_([n.name for n in networks])
        )
        ids_of = {row.name: row.id for row in connection.execute(query)}
        summaries = [
            {"network_id": ids_of[n.name]} | pack([n.timing, *(m.timing for m in n.kernels)]) for n in networks
        ]
        connection.execute(s.summary.insert(), summaries)

    # -- claims -----------------------------------------------------------------------------------

    def claim(self, environment_id: int, names: Iterable[str], worker: str, *, seconds: float) -> set[str]:
        """Claim networks for `worker` for the next `seconds`; returns the names of those that it now has.

        A network that another worker has claimed stays with it until the claim lapses or, on this host, the worker's
        process has ended. Workers are named as by `hwcost.measure.process.worker_name`.
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
        """All measurements of the one environment that fits the arguments.

        Args:
            runtime, threads: that the environment must have, where given.
            environment: the environment itself, or the first digits of its digest.
            spread: above which the timing of a network is flagged "unstable"; imported timings keep their flags.

        Raises:
            StoreError: no environment fits, or several do; the message says what the store has.
        """
        row, chosen = self._one_environment(runtime, threads, environment)
        return Measurements(environment=chosen, networks=tuple(self._networks(row, spread)))

    def period(
        self, runtime: str | None = None, threads: int | None = None, environment: Environment | str | None = None
    ) -> tuple[float, float]:
        """When `measurements` of the same arguments were taken: first and last moment (s since 1970)."""
        row, _ = self._one_environment(runtime, threads, environment)
        mine = s.network.c.environment_id == row
        taken = select(func.min(s.round_.c.taken), func.max(s.round_.c.taken)).join(s.network).where(mine)
        written = select(func.min(s.network.c.created), func.max(s.network.c.created)).join(s.summary).where(mine)
        moments = [m for query in (taken, written) for pair in self._read(query) for m in pair if m is not None]
        return min(moments, default=0.0), max(moments, default=0.0)

    def contexts(self, environment_id: int, least: int) -> list[list[tuple[str, int]]]:
        """(digest, reuse distance in byte) of each kernel, for every network with `least` rounds or a summary."""
        rounds = select(func.count()).where(s.round_.c.network_id == s.network.c.id).scalar_subquery()
        enough = (rounds >= least) | s.summary.c.network_id.is_not(None)
        query = (
            select(s.network.c.kernels, s.network.c.distances)
            .outerjoin(s.summary)
            .where(s.network.c.environment_id == environment_id, enough)
        )
        digests = {row.id: row.digest for row in self._read(select(s.kernel.c.id, s.kernel.c.digest))}
        return [
            [(digests[k], d) for k, d in zip(*kernel_ids_and_distances(row.kernels, row.distances), strict=True)]
            for row in self._read(query)
        ]

    def _one_environment(
        self, runtime: str | None, threads: int | None, environment: Environment | str | None
    ) -> tuple[int, Environment]:
        """Row number and environment, as of `measurements`."""
        digest = environment.digest if isinstance(environment, Environment) else environment or ""
        stored = [(row, e) for row, e, networks in self._environments() if networks]
        fits = [
            (row, e)
            for row, e in stored
            if runtime in (None, e.runtime) and threads in (None, e.threads) and e.digest.startswith(digest)
        ]
        if len(fits) > 1:
            raise StoreError(_several(self.name, [e for _, e in fits]))
        if not fits:
            raise StoreError(_none(self.name, [e for _, e in stored], runtime, threads))
        return fits[0]

    def _networks(self, environment_id: int, spread: float) -> Iterator[NetworkMeasurement]:
        """Networks of an environment, in the order in which they were added.

        Of a network that was imported and also measured here, the timings with the smaller spread are given.
        """
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
            imported = unpack(row.times, row.rounds, row.flags) if row.times is not None else []
            whole = whole_timing(own, target=spread) if own else imported[0]
            if own and not (imported and imported[0].spread < whole.spread):
                inside = [*map(rounded, kernel_timings(own))]
            else:
                whole, *inside = imported
            yield network_of(row, whole, inside, kernels)

    def _described(self, ids: set[int]) -> dict[int, Kernel]:
        """Kernels by their row numbers."""
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
    """The error where no environment fits: what was asked for, and what there is."""
    held = sorted({f"{e.runtime} with {e.threads} thread(s)" for e in has})
    wanted = f"{runtime or 'any runtime'} with {threads or 'any number of'} thread(s)"
    said = f"it has {', '.join(held)}" if held else "it is empty; fill it with `hwcost measure`"
    return f"{name} has no measurements of {wanted}; {said}"


def _several(name: str, fit: Sequence[Environment]) -> str:
    """The error where several environments fit: in what they differ, and the digits by which to choose one."""
    differ = sorted({key for e in fit[1:] for key in fit[0].differences(e)})
    said = "; ".join(f"{e.digest[:8]}: " + ", ".join(f"{key} {e.flat().get(key)}" for key in differ) for e in fit)
    return f"{name} has measurements of {len(fit)} environments that fit, choose one with --environment: {said}"
