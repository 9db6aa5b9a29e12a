"""Stores of earlier versions are brought to the present one when they are opened.

Each step takes a store from one version to the next, in SQL that is written out: a step never changes, whatever becomes
of `hwcost.measure.store.schema`. All steps run in one transaction, so a store is never between two versions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlalchemy import Connection

Step = Callable[[Connection], None]


def _summaries(connection: Connection) -> None:
    blob = "BYTEA" if connection.dialect.name == "postgresql" else "BLOB"
    connection.exec_driver_sql(
        "CREATE TABLE IF NOT EXISTS hwcost_summary ("
        "network_id INTEGER NOT NULL PRIMARY KEY REFERENCES hwcost_network (id), "
        f"times {blob} NOT NULL, rounds {blob} NOT NULL, flags TEXT NOT NULL)"
    )


def _paces(connection: Connection) -> None:
    empty = (
        "BYTEA NOT NULL DEFAULT ''::bytea" if connection.dialect.name == "postgresql" else "BLOB NOT NULL DEFAULT x''"
    )
    connection.exec_driver_sql(f"ALTER TABLE hwcost_round ADD COLUMN paces {empty}")


STEPS: Mapping[int, Step] = {1: _summaries, 2: _paces}  # the step that leads from each version to the next


def migrate(connection: Connection, version: int, wanted: int) -> None:
    """Run every step from `version` to `wanted`, inside the caller's transaction."""
    for number in range(version, wanted):
        STEPS[number](connection)
