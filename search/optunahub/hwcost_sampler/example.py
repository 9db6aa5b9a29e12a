"""Search a small convolutional space within a latency budget, without training what is too slow.

From a copy of the registry, in whose folder package/samplers this package lies:

    pip install hwcost optunahub
    python package/samplers/hwcost_sampler/example.py
"""

from __future__ import annotations

import hwcost
from hwcost.search.spaces import get_space
import optuna
import optunahub


package = optunahub.load_local_module("samplers/hwcost_sampler", registry_root="./package/")
space = get_space("nas-bench-201")
model = hwcost.CostModel.analytic("raspberry-pi-4")
table = hwcost.LatencyTable.build(space, model)


def evaluate(params: dict[str, str], trial: optuna.Trial) -> float:
    """Stands in for a training: the share of the cell's edges that are convolutions."""
    return sum("conv" in value for value in params.values()) / len(params)


if __name__ == "__main__":
    objective = package.LatencyObjective(space.suggest, evaluate, model=table, budget="100 ms")
    sampler = package.ArchitectureSampler(objective, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=30)
    rejected = sum(t.state == optuna.trial.TrialState.PRUNED for t in study.trials)
    print(
        study.best_params,
        study.best_value,
        f"{rejected} of {len(study.trials)} rejected before training",
    )
