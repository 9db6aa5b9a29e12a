"""Tests of hwcost.calibration: footprints lie in their cache, paper values follow their derivation."""

import pytest

from hwcost import units
from hwcost.calibration import datasheet
from hwcost.calibration import machine_probes as probes
from hwcost.calibration import run as calibration
from hwcost.calibration.datasheet import datasheet_peak
from hwcost.calibration.machine_probes import Probe, cache_footprints, dram_array_bytes
from hwcost.calibration.run import Noise, calibrate, joined
from hwcost.device.ceilings import ComputeCeiling, MemoryCeiling
from hwcost.device.device import Device
from hwcost.measure.machine import Cache, allowed_cpus, caches
from hwcost.measure.types import MeasurementError


@pytest.mark.parametrize(
    ("cache", "below", "threads", "expected"),
    [
        (Cache("L1", 32 << 10, shared=False), 0, 1, (4 << 10, 24 << 10)),
        (Cache("L2", 1 << 20, shared=False), 32 << 10, 1, (128 << 10, 768 << 10)),
        (
            Cache("L2", 1 << 20, shared=False),
            32 << 10,
            2,
            (768 << 10, 1536 << 10),
        ),  # two private caches, arrays shared out
        (Cache("L2", 1 << 20, shared=False), 32 << 10, 8, (3 << 20, 6 << 20)),  # 32768 elements for each of eight
        (Cache("L1", 32 << 10, shared=False), 0, 2, None),  # none of its arrays is long enough for that
        (Cache("L3", 4 << 20, shared=True), 2 << 20, 1, None),  # no room between the levels
    ],
)
def test_footprints_lie_inside_their_level_and_outside_the_one_below(
    cache: Cache, below: int, threads: int, expected: tuple[int, int] | None
) -> None:
    assert cache_footprints(cache, below, threads) == expected


def test_dram_arrays_are_four_times_the_last_level() -> None:
    last = max((c.size for c in caches()), default=0)
    if probes.free_memory() < 32 * last:
        pytest.skip("too little memory for arrays of that size")
    assert dram_array_bytes() >= 4 * last


@pytest.mark.parametrize(
    ("family", "flags", "hertz", "threads", "peak"),
    [
        ("Intel 6", {"avx512f", "avx2"}, 4.5e9, 16, 4.608e12),  # the i9-10980XE: 16 cores x 4.5 GHz x 64 flop
        ("AMD 26", {"avx512f", "avx2"}, 2e9, 1, 128e9),  # Zen 5: 2 units of 512 bits
        ("AMD 25", {"avx512f", "avx2"}, 2.6e9, 1, 83.2e9),  # Zen 4: the same with AVX-512 and without,
        ("AMD 25", {"avx2"}, 2.6e9, 1, 83.2e9),  # 2.6 GHz x 8 lanes x 2 units x 2 flop
        ("AMD 25", set(), 2.6e9, 1, None),
        ("AMD 25", {"avx2"}, 0.0, 1, None),
    ],
)
def test_the_peak_on_paper(
    monkeypatch: pytest.MonkeyPatch, family: str, flags: set[str], hertz: float, threads: int, peak: float | None
) -> None:
    vendor, number = family.split()
    monkeypatch.setattr(datasheet, "cpu_family", lambda: ({"AMD": "AuthenticAMD"}.get(vendor, "GenuineIntel"), number))
    monkeypatch.setattr(datasheet, "cpu_flags", lambda: flags)
    monkeypatch.setattr(datasheet, "frequency", lambda: hertz)
    assert datasheet_peak(threads)[0] == (pytest.approx(peak) if peak else None)


@pytest.mark.parametrize(
    ("dtype", "flags", "flop_per_cycle"),
    [
        ("bfloat16", {"avx512f", "avx512_bf16"}, 128),  # 16 lanes x 2 pairs x 2 flop x 2 units
        ("int8", {"avx512f", "avx512_vnni"}, 256),  # 16 lanes x 4 x 2 x 2
        ("int8", {"avx2", "avx_vnni"}, 128),
        ("int8", {"avx512f", "amx_int8"}, 2048),  # Intel, Optimization Reference Manual, chapter on AMX
        ("bfloat16", {"avx512f", "amx_bf16"}, 1024),
    ],
)
def test_paper_peak_of_narrow_numbers(
    monkeypatch: pytest.MonkeyPatch, dtype: str, flags: set[str], flop_per_cycle: int
) -> None:
    monkeypatch.setattr(datasheet, "cpu_family", lambda: ("GenuineIntel", "6"))
    monkeypatch.setattr(datasheet, "cpu_flags", lambda: flags)
    monkeypatch.setattr(datasheet, "frequency", lambda: 1e9)
    assert datasheet_peak(2, dtype)[0] == 2 * flop_per_cycle * 1e9


def test_a_probe_gives_the_time_of_one_call() -> None:
    calls: list[int] = []
    probe = Probe("count", lambda: calls.append(1), repeat=5)
    probe.visit(1)
    probe.visit(1)
    assert len(calls) == 2 * (1 + probes._RUNS) * 5
    assert len(probe.rounds) == 2
    assert probe.result()[0] == min(probe.rounds)


@pytest.mark.parametrize(
    ("flags", "dtypes"),
    [
        (set(), ["float32"]),
        ({"avx512_bf16", "avx512_vnni"}, ["float32", "bfloat16", "int8"]),
        ({"i8mm"}, ["float32", "int8"]),
    ],
)
def test_each_dtype_that_the_cpu_multiplies_is_multiplied(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], dtypes: list[str]
) -> None:
    """The product itself, on whatever this machine has: the operator exists, and takes such matrices."""
    monkeypatch.setattr(probes, "cpu_flags", lambda: flags)
    monkeypatch.setattr(probes, "GEMM_SIZES", (64,))
    found = probes.compute_probes()
    assert [p.name for p in found] == [f"gemm {d} 64" for d in dtypes]
    assert {p.amount for p in found} == {2 * 64**3}
    assert [tuple(p.call().shape) for p in found] == [(64, 64)] * len(found)


def timed_probe(name: str, amount: float, *seconds: float) -> Probe:
    return Probe(name, lambda: None, amount, rounds=list(seconds))


def calibrated(
    monkeypatch: pytest.MonkeyPatch,
    *,
    waited: float = 0.0,
    slowed: float = 0.0,
    gemm: tuple[float, ...] = (1e-3,) * 12,
    threads: int = 1,
) -> Device:
    """A device from times that are written down: DRAM at 3 bytes a nanosecond, an L2 that noise ate, L1 and L3."""
    for module in (calibration, probes, datasheet):
        monkeypatch.setattr(module, "cpu_flags", lambda: set())
    monkeypatch.setattr(
        calibration,
        "caches",
        lambda: tuple(Cache(n, s, False) for n, s in (("L1", 1 << 15), ("L2", 1 << 20), ("L3", 1 << 21))),
    )
    timed = [
        timed_probe("gemm float32 512", 2.0 * 512**3, *gemm),
        timed_probe("dispatch", 0.0, *(1e-6,) * 12),
        *(timed_probe(f"dram {n}", 3e6, *(1e-3,) * 12) for n in ("triad", "copy", "read", "write")),
        timed_probe("L1 0", 4e3, *(1e-7,) * 12),
        timed_probe("L1 1", 24e3, *(2e-7,) * 12),
        *(timed_probe(f"L1 {what} 0", 4e3, *(1e-7,) * 12) for what in ("read", "write")),
        timed_probe("L1 read 1", 24e3, *(1.5e-7,) * 12),
        timed_probe("L1 write 1", 24e3, *(1e-7 * (1 + i) for i in range(12))),
        timed_probe("L2 0", 2e5, *(2e-6,) * 12),
        timed_probe("L2 1", 7e5, *(1e-6,) * 12),
    ]
    return calibration._device({p.name: p for p in timed}, threads, pinned=True, noise=Noise(waited, slowed))


def test_ceilings_follow_from_times(monkeypatch: pytest.MonkeyPatch) -> None:
    device = calibrated(monkeypatch)
    assert device.compute[0].measured == pytest.approx(2 * 512**3 / 1e-3)
    assert {m.level: m.measured for m in device.memory} == {
        "L1": pytest.approx((24e3 - 4e3) / 1e-7),
        "DRAM": pytest.approx(3e9),
    }
    # 20 kB in 50 ns; what writing takes is mostly noise, from 0.1 to 1.2 us
    assert next(m for m in device.memory if m.level == "L1").measured_source.endswith(
        "between 4 kB and 24 kB; read 400 GB/s"
    )
    assert device.host["left_out"] == "L2: noise, L3: too close to the level below"


def test_a_private_cache_too_small_to_share_serves_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    [alone], [both] = ([m for m in calibrated(monkeypatch, threads=n).memory if m.level == "L1"] for n in (1, 2))
    assert both.measured == 2 * alone.measured
    assert "of one thread, times 2; read 800 GB/s" in both.measured_source


def test_a_machine_that_was_not_quiet_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert calibrated(monkeypatch).host["quiet"] == "yes"
    assert calibrated(monkeypatch, waited=0.2).host["quiet"].startswith("no: waited 20% of the time")
    steady = calibrated(monkeypatch, slowed=0.9)  # a neighbour that never pauses: all rounds agree, and are too long
    assert steady.host["quiet"].startswith("no: waited 0% of the time, slowed in 90% of visits")
    noisy = calibrated(monkeypatch, gemm=tuple(1e-3 * (1 + 0.2 * i) for i in range(12)))
    # 1.0 ms, 1.2 ... 3.2: the latency is the second, 1.2; eleven draws lie within the fourth, 1.6, 92 times of 100
    assert noisy.host["quiet"] == "no: waited 0% of the time, slowed in 0% of visits, largest spread 33%"


def of_threads(threads: int, flops: float, *, cpu: str = "A") -> Device:
    ceiling = {"threads": threads, "measured_source": "a run"}
    return Device(
        name="toy", cores=4, compute=(ComputeCeiling(measured=flops, **ceiling),),
        memory=(MemoryCeiling(measured=1e10, **ceiling),),
        host={"cpu": cpu, "threads": str(threads), "date": f"day {flops:.0f}", "quiet": "yes"},
    )  # fmt: skip


def test_a_device_holds_the_ceilings_of_every_thread_count_that_was_calibrated() -> None:
    device = joined(of_threads(2, 5e9), joined(of_threads(4, 4e9), joined(of_threads(2, 3e9), of_threads(1, 2e9))))
    assert {n: device.peak(threads=n) for n in (1, 2, 4)} == {1: 2e9, 2: 5e9, 4: 4e9}  # 3e9 was measured again
    assert len(device.memory) == 3
    assert device.host["1 threads"] == "day 2000000000, quiet: yes"
    assert "2 threads" not in device.host  # that is what "date" and "quiet" say
    assert Device.from_toml(device.to_toml()) == device


def test_ceilings_of_another_cpu_are_not_kept() -> None:
    new = of_threads(2, 5e9)
    assert joined(new, of_threads(1, 2e9, cpu="B")) == new


def test_more_threads_than_cpus_are_refused() -> None:
    with pytest.raises(MeasurementError, match="threads must lie in"):
        calibrate(threads=10_000)


@pytest.mark.skipif(len(allowed_cpus()) < 2, reason="one CPU")
def test_several_threads_are_forked_and_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "ROUNDS", 2)
    device = calibrate(2)
    assert {c.threads for c in (*device.compute, *device.memory)} == {2}
    assert units.parse(device.host["fork_join"], "second") >= 0


def test_a_calibration_is_a_device_with_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "ROUNDS", 2)
    said: list[tuple[float, float]] = []
    device = calibrate(1, progress=lambda done, total, note: said.append((done, total)))
    assert Device.from_toml(device.to_toml()).name == device.name
    for ceiling in (*device.compute, *device.memory):
        assert ceiling.threads == 1
        assert ceiling.measured_source
        assert ceiling.spread is not None
    assert device.peak(threads=1) > 1e8
    assert device.bandwidth(threads=1) > 1e8
    assert {"cpu", "torch", "date", "quiet", "pinned"} <= device.host.keys()
    assert said[-1] == (2, 2)
