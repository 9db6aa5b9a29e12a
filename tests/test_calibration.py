"""Tests of hwcost.calibration: footprints lie in their cache, paper values follow their derivation."""

import pytest

from hwcost import calibration
from hwcost.calibration import Probe, cache_footprints, calibrate, dram_array_bytes, paper_peak
from hwcost.device import Device
from hwcost.measure import MeasurementError
from hwcost.measure.machine import Cache, caches


@pytest.mark.parametrize(
    ("cache", "below", "threads", "expected"),
    [
        (Cache("L1", 32 << 10, shared=False), 0, 1, (4 << 10, 24 << 10)),
        (Cache("L2", 1 << 20, shared=False), 32 << 10, 1, (128 << 10, 768 << 10)),
        (Cache("L2", 1 << 20, shared=False), 32 << 10, 2, (256 << 10, 1536 << 10)),  # two private caches
        (Cache("L3", 4 << 20, shared=True), 2 << 20, 1, None),  # no room between the levels
    ],
)
def test_footprints_lie_inside_their_level_and_outside_the_one_below(
    cache: Cache, below: int, threads: int, expected: tuple[int, int] | None
) -> None:
    assert cache_footprints(cache, below, threads) == expected


def test_dram_arrays_are_four_times_the_last_level() -> None:
    last = max((c.size for c in caches()), default=0)
    if calibration.free_memory() < 32 * last:
        pytest.skip("too little memory for arrays of that size")
    assert dram_array_bytes() >= 4 * last


@pytest.mark.parametrize(
    ("flags", "hertz", "threads", "peak"),
    [
        ({"avx512f", "avx2"}, 4.5e9, 16, 4.608e12),  # the i9-10980XE: 16 cores x 4.5 GHz x 64 flop
        ({"avx2"}, 2.6e9, 1, 83.2e9),
        (set(), 2.6e9, 1, None),
        ({"avx2"}, 0.0, 1, None),
    ],
)
def test_paper_peak(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], hertz: float, threads: int, peak: float | None
) -> None:
    monkeypatch.setattr(calibration, "cpu_flags", lambda: flags)
    monkeypatch.setattr(calibration, "frequency", lambda: hertz)
    assert paper_peak(threads)[0] == (pytest.approx(peak) if peak else None)


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
    monkeypatch.setattr(calibration, "cpu_flags", lambda: flags)
    monkeypatch.setattr(calibration, "frequency", lambda: 1e9)
    assert paper_peak(2, dtype)[0] == 2 * flop_per_cycle * 1e9


def test_a_probe_gives_the_time_of_one_call() -> None:
    calls: list[int] = []
    probe = Probe("count", lambda: calls.append(1), repeat=5)
    probe.visit(1)
    probe.visit(1)
    assert len(calls) == 2 * (1 + calibration._RUNS) * 5
    assert len(probe.rounds) == 2
    assert probe.result()[0] == min(probe.rounds)


def test_more_threads_than_cpus_are_refused() -> None:
    with pytest.raises(MeasurementError, match="threads must lie in"):
        calibrate(threads=10_000)


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
