"""Tests of hwcost.measure.quantiles: typical and tail factors, worked by hand."""

import pytest

from hwcost.measure.quantiles import quantile_factor, quantile_name, time_of
from hwcost.measure.types import Environment, MeasurementError, Measurements, NetworkMeasurement, Timing


def network(latency: float, median: float, p95: float, rounds: int = 8) -> NetworkMeasurement:
    timing = Timing(latency=latency, median=median, p95=p95, spread=0.02, rounds=rounds)
    return NetworkMeasurement(name=f"{latency}", family="toy", spec={}, timing=timing, kernels=(), calls=3)


def of(*networks: NetworkMeasurement) -> Measurements:
    return Measurements(environment=Environment(cpu="A", cores=1, runtime="torch-eager", threads=1), networks=networks)


def test_factors_are_those_of_the_median_network() -> None:
    measured = of(network(1.0, 1.1, 1.5), network(2.0, 2.6, 4.0), network(4.0, 4.8, 6.4))  # 1.1 1.3 1.2; 1.5 2 1.6
    assert quantile_factor(measured, "typical") == pytest.approx(1.2)
    assert quantile_factor(measured, "tail") == pytest.approx(1.6)
    assert quantile_factor(measured, "low") == 1.0


def test_imported_single_figures_say_nothing_of_quantiles() -> None:
    alone = network(1.0, 1.0, 1.0, rounds=1)
    assert quantile_factor(of(alone, network(1.0, 1.2, 1.5)), "0.95") == 1.5
    with pytest.raises(MeasurementError, match="the tail latency follows from networks measured in several rounds"):
        quantile_factor(of(alone), "tail")


@pytest.mark.parametrize(
    ("said", "meant"), [("0.5", "typical"), ("median", "typical"), ("0.95", "tail"), ("p95", "tail")]
)
def test_spellings(said: str, meant: str) -> None:
    assert quantile_name(said) == meant


def test_a_quantile_that_is_not_measured_is_refused() -> None:
    with pytest.raises(MeasurementError, match=r"must be one of low, typical, tail, .* but got '0\.99'"):
        quantile_name("0.99")


def test_the_time_of_each_quantile() -> None:
    timing = network(1.0, 2.0, 3.0).timing
    assert [time_of(timing, q) for q in ("low", "median", "tail")] == [1.0, 2.0, 3.0]
