"""Tables of a store.

Their names start with hwcost_, so that an Optuna study may use the same database. A round is one row, written when it
is taken; its times are blobs of little-endian float32 seconds. A network's kernels are a blob of row numbers in the
kernel table, which holds each distinct kernel once. A claim says that a process is measuring a network now. A summary
holds the timings of a network that was imported without its rounds.

Version history (`hwcost.measure.store.migrations` brings an older store here):
    1  first
    2  summaries
    3  paces of the runs of a round
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

VERSION = 3

metadata = MetaData()

about = Table(
    "hwcost_store",
    metadata,
    Column("key", String(40), primary_key=True),
    Column("value", Text, nullable=False),
)

environment = Table(
    "hwcost_environment",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("digest", String(20), nullable=False, unique=True),
    Column("runtime", String(40), nullable=False),
    Column("threads", Integer, nullable=False),
    Column("description", Text, nullable=False),  # JSON
    Column("created", Float, nullable=False),  # s since 1970, as all moments here
)

kernel = Table(
    "hwcost_kernel",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("digest", String(20), nullable=False, unique=True),
    Column("description", Text, nullable=False),  # canonical JSON
)

network = Table(
    "hwcost_network",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("environment_id", ForeignKey("hwcost_environment.id"), nullable=False),
    Column("name", String(300), nullable=False),
    Column("family", String(300), nullable=False),
    Column("spec", Text, nullable=False),  # JSON
    Column("calls", Integer, nullable=False),
    Column("kernels", LargeBinary, nullable=False),  # int32 [kernels], ids in `kernel`
    Column("distances", LargeBinary, nullable=False),  # int64 [kernels], byte
    Column("modules", Text, nullable=False),  # JSON list [kernels]
    Column("created", Float, nullable=False),
    UniqueConstraint("environment_id", "name"),
)

round_ = Table(
    "hwcost_round",
    metadata,
    Column("network_id", ForeignKey("hwcost_network.id"), primary_key=True),
    Column("number", Integer, primary_key=True),  # of the network's rounds, from 0
    Column("taken", Float, nullable=False),
    Column("seconds", Float, nullable=False),  # that its runs and profiles took together
    Column("steal", Float, nullable=False),  # s
    Column("switches", BigInteger, nullable=False),  # involuntary context switches
    Column("waited", Float, nullable=False),  # s
    Column("whole", LargeBinary, nullable=False),  # float32 [runs], s of wall time
    Column("waits", LargeBinary, nullable=False),  # float32 [runs], s
    Column("kernels", LargeBinary, nullable=False),  # float32 [profiles, kernels], s
    Column("paces", LargeBinary, nullable=False),  # float32 [runs + profiles]; empty from an older clock
)

claim = Table(
    "hwcost_claim",
    metadata,
    Column("environment_id", ForeignKey("hwcost_environment.id"), primary_key=True),
    Column("name", String(300), primary_key=True),
    Column("worker", String(80), nullable=False),
    Column("until", Float, nullable=False),
)

summary = Table(
    "hwcost_summary",
    metadata,
    Column("network_id", ForeignKey("hwcost_network.id"), primary_key=True),
    Column("times", LargeBinary, nullable=False),  # float64 [1 + kernels, 4]: latency, median, p95 (s), spread
    Column("rounds", LargeBinary, nullable=False),  # int32 [1 + kernels]
    Column("flags", Text, nullable=False),  # JSON list [1 + kernels] of lists
)
