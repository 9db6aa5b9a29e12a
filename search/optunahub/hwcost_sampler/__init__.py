from hwcost.search import ArchitectureSampler
from hwcost.search import FeasibleSampler
from hwcost.search import LatencyObjective


__all__ = ["ArchitectureSampler", "FeasibleSampler", "LatencyObjective"]
