"""Times from OpenVINO's counters, tested on made-up counters that round down as its `PerfCount` does."""

import numpy as np
import pytest

from hwcost.runtimes.base import RuntimeUnavailable

openvino = pytest.importorskip("hwcost.runtimes.openvino.session", exc_type=RuntimeUnavailable)


def test_what_counters_cut_off_is_put_back_on_average() -> None:
    """Kernels of 20 to 200 us whose inferences differ by 5 %; each time is rounded down to 1 us, and so is the mean."""
    rng, warm, counted = np.random.default_rng(0), 2, 12
    true = rng.uniform(20, 200, 4000)
    took = true * rng.normal(1, 0.05, (warm + counted, len(true)))
    each = np.floor(took)
    before, total = np.floor(each[:warm].mean(axis=0)), np.floor(each.mean(axis=0))
    read = (total * (warm + counted) - before * warm) / counted * 1e-6
    off = openvino._whole(read) * 1e6 - took[warm:].mean(axis=0)
    assert abs(off.mean()) < 0.05  # us; without the correction it is 1.0 too low
    assert np.mean(read * 1e6 - took[warm:].mean(axis=0)) == pytest.approx(-1.0, abs=0.05)


def test_a_kernel_below_a_microsecond_took_some_time() -> None:
    assert openvino._whole(np.array([0.0, -1e-7])) == pytest.approx([5e-7, 5e-7])
