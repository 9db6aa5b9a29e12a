"""Tests of hwcost.measure: environments tell themselves apart, measurements refuse to mix."""

from dataclasses import replace

import pytest

from hwcost.measure.types import Environment, MeasurementError, Measurements

here = Environment(cpu="A", cores=2, runtime="torch-eager", threads=1, versions={"torch": "2.13"}, host="one")


def test_an_environment_survives_json() -> None:
    assert Environment.from_json(here.to_json()) == here
    assert Environment.from_json(here.to_json()).digest == here.digest


def test_equal_machines_of_another_name_are_the_same_environment() -> None:
    other = replace(here, host="two")
    assert other.digest == here.digest
    assert not here.differences(other)
    assert len(Measurements(environment=here, networks=()) + Measurements(environment=other, networks=())) == 0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"threads": 2}, "threads is 1 here and 2 there"),
        ({"governor": "powersave"}, "governor is 'unknown' here and 'powersave' there"),
        ({"versions": {"torch": "2.14"}}, "versions.torch is '2.13' here and '2.14' there"),
        ({"versions": {}}, "versions.torch is '2.13' here and None there"),
    ],
)
def test_other_environments_are_refused_and_the_key_is_named(changed: dict[str, object], said: str) -> None:
    other = replace(here, **changed)
    assert other.digest != here.digest
    with pytest.raises(MeasurementError, match=said):
        Measurements(environment=here, networks=()) + Measurements(environment=other, networks=())


def test_an_environment_with_a_foreign_key_is_refused() -> None:
    with pytest.raises(MeasurementError, match="colour"):
        Environment.from_json(here.to_json() | {"colour": "red"})
