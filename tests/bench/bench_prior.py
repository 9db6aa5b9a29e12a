"""What ten minutes on another machine buy: a short campaign fitted on top of a model that ships. Prints a table.

    python tests/bench/bench_prior.py --of torch-eager-1 --prior torch-eager-2 --prior onnxruntime-1 \
        [--test families.db] [--networks 500] [-o there.hwcost]

There is one machine here, so another runtime or number of threads stands for another machine: the designed networks
that ten minutes measure (about 500) are taken from the first model's data, and fitted alone and on top of each
prior. Beside them: the prior alone, which knows nothing of the target, and the first model, which knows all of its
data. Networks of --test are those of `bench_families.py`, with the kernels that the runtime said it ran; without it
they are those of the first model's data that the short campaign has not: its other families, or where it has none the
rest of the designed ones. The models written by -o may be given to `bench_families.py --model`, which lowers by rules.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hwcost import CostModel
from hwcost.measure.store.store import Store
from hwcost.measure.types import Measurements
from hwcost.model.accuracy import Accuracy, Comparison
from hwcost.model.files import shipped_path
from hwcost.runtimes.base import Network

Row = tuple[str, Accuracy]


def model_of(name: str) -> CostModel:
    """A model that ships, by the name of its file without its ending, or a file."""
    runtime, _, threads = name.rpartition("-")
    return CostModel.load(shipped_path(runtime, int(threads)) if threads.isdigit() else name)


def short_campaign(measurements: Measurements, count: int) -> Measurements:
    """`count` designed networks, of the latest versions of `designed`, as a campaign of today would draw."""
    designed = [n for n in measurements.networks if n.family == "designed"]
    latest = sorted(designed, key=lambda n: -n.spec.get("params", n.spec).get("version", 0))
    return replace(measurements, networks=tuple(latest[:count]))


def others(measurements: Measurements, few: Measurements) -> Measurements:
    """Networks of other families, or where there are none those that the short campaign does not hold."""
    held = {n.name for n in few.networks}
    rest = [n for n in measurements.networks if n.name not in held and not n.is_lone]
    families = [n for n in rest if n.family != "designed"]
    return replace(measurements, networks=tuple(families or rest))


def foreign(prior: CostModel, test: Measurements) -> Accuracy:
    """What a model of another target says of networks of this one."""
    networks = [Network(n.kernels, n.calls, prior.runtime) for n in prior.lower_measured(test)]
    pairs = zip(test.networks, prior.estimate_many(networks), strict=True)
    return Accuracy(tuple(Comparison.of(n.name, e, n.timing) for n, e in pairs))


def rows(
    known: CostModel, priors: dict[str, CostModel], test: Measurements | None, count: int, output: str
) -> Iterator[Row]:
    """Every fit on the networks of --test; each is written where an output is asked for."""
    assert known.measurements is not None
    few = short_campaign(known.measurements, count)
    if test is None:  # the first model's own data: it has seen them
        test = others(known.measurements, few)
    else:
        yield f"all of its data, {len(known.measurements)} networks", known.evaluate(test)
    alone = CostModel.fit(few, device=known.device)
    yield f"{len(few)} designed networks", alone.evaluate(test)
    for name, prior in priors.items():
        yield f"{name} alone", foreign(prior, test)
        both = CostModel.fit(few, device=known.device, prior=prior)
        yield f"{len(few)} designed networks on top of {name}", both.evaluate(test)
        if output:
            both.save(Path(output).with_stem(f"{Path(output).stem}-{name}"))
    if output:
        alone.save(output)


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", required=True, help="the target: runtime-threads of a model that ships, or a file")
    parser.add_argument("--prior", required=True, action="append", help="the same; repeat for more")
    parser.add_argument("--test", help="store of networks of the target that nobody trained on")
    parser.add_argument("--networks", type=int, default=500)
    parser.add_argument("-o", "--output", default="")
    options = parser.parse_args()
    known = model_of(options.of)
    test = Store.open(options.test).measurements(known.runtime, known.threads) if options.test else None
    priors = {Path(name).stem: model_of(name) for name in options.prior}
    print(f"{'fitted on':58}{'networks':>10}{'mean':>9}{'in 5 %':>9}{'in 10 %':>9}{'covered':>9}{'width':>9}")
    for name, a in rows(known, priors, test, options.networks, options.output):
        shares = f"{a.within(0.05):9.1%}{a.within(0.10):9.1%}{a.coverage_of_interval:9.1%}{2 * a.width:9.1%}"
        print(f"{name:58}{len(a.networks):10}{a.mape:9.1%}{shares}", flush=True)


if __name__ == "__main__":
    main()
