"""The findings at the top of the page: sentences that state what a result means, with its figures."""

from __future__ import annotations

from dataclasses import dataclass

from hwcost.model.accuracy import Accuracy
from hwcost.model.estimate import Estimate
from hwcost.report.columns import percent
from hwcost.report.result import QuickstartResult
from hwcost.units import format as quantity


@dataclass(frozen=True, slots=True)
class Finding:
    """A claim of a few words, and the sentences that give the figures behind it."""

    claim: str
    support: str


def findings(result: QuickstartResult) -> tuple[Finding, ...]:
    """The findings of a result, the most important first."""
    return (_best(result), _range(result), _gate(result), _accuracy(result), _binding(result))


def _best(result: QuickstartResult) -> Finding:
    best, row = result.best, result.best.comparison
    budget, measured = quantity(result.budget, "second"), quantity(best.measured, "second")
    if row.predicted <= result.budget:
        claim = f"{percent(best.accuracy)} accurate in {measured}, measured"
        role = f"is the most accurate architecture within the budget of {budget}"
    else:
        claim = f"Nothing found fits the budget of {budget}"
        role = f"is the fastest found, {percent(best.accuracy)} accurate in {measured}"
    broken = f" That is over the budget of {budget}." if row.predicted <= result.budget < best.measured else ""
    inside = "inside" if row.low <= row.measured <= row.high else "outside"
    return Finding(
        claim,
        f"{_capital(best.name)} {role}. It was predicted to take {quantity(row.predicted, 'second')}; the measured "
        f"time lies {inside} the {percent(best.estimate.confidence, 0)} interval of {quantity(row.low, 'second')} to "
        f"{quantity(row.high, 'second')}.{broken}",
    )


def _range(result: QuickstartResult) -> Finding:
    """What the fastest architecture of the front gives up against the most accurate one."""
    fast = min(result.winners, key=lambda w: w.measured)
    slow = max(result.winners, key=lambda w: w.accuracy)
    if fast is slow:
        return Finding("One architecture is best at both", f"{_capital(fast.name)} is the fastest and most accurate.")
    return Finding(
        f"{slow.measured / fast.measured:.1f} times faster costs {100 * (slow.accuracy - fast.accuracy):.1f} points "
        "of accuracy",
        f"The front runs from {fast.name} ({percent(fast.accuracy)} in {quantity(fast.measured, 'second')}) to "
        f"{slow.name} ({percent(slow.accuracy)} in {quantity(slow.measured, 'second')}). Which point is right depends "
        "on the deadline; every point between was found by the same search.",
    )


def _gate(result: QuickstartResult) -> Finding:
    """What the check against the budget, before each training, has saved."""
    rejected, trained, repeats = (result.count(state) for state in ("rejected", "trained", "duplicate"))
    each, saved = quantity(result.training_seconds, "second"), _duration(rejected * result.training_seconds)
    cost = f" Training them would have taken about {each} each, {saved} in all." if rejected else ""
    return Finding(
        f"{rejected} of {len(result.candidates)} proposals rejected without training",
        f"Their predicted latency was over the budget, which is known before training.{cost} {trained} were trained; "
        f"{repeats} had been proposed before, and their result was known.",
    )


def _accuracy(result: QuickstartResult) -> Finding:
    a, found = result.held_out, result.verification.networks
    inside = sum(row.low <= row.measured <= row.high for row in found)
    return Finding(
        f"Latency predicted to {percent(a.mape)} on average, for networks the model never saw",
        f"Of {len(a.networks)} networks held out of the fit, {percent(a.within(0.05), 0)} are predicted within 5 % and "
        f"{percent(a.within(0.10), 0)} within 10 %; the clock repeats itself to ±{percent(a.clock)}{_limit(a)}. "
        f"Of the {len(found)} found and measured again, {inside} lay inside the predicted interval.",
    )


def _limit(a: Accuracy) -> str:
    """A clause where measurements repeat too badly to show how good the prediction is, else ""."""
    return ", so part of that error is the clock's own" if a.clock > a.mape / 3 else ""


def _binding(result: QuickstartResult) -> Finding:
    """Whether memory or compute bounds most of the best architecture's time, and so what would make it faster."""
    estimate = result.best.estimate
    memory = estimate.memory_share
    reached = sum(k.roofline for k in estimate.kernels) / estimate.latency
    if memory >= 0.5:
        bound = f"{percent(memory, 0)} of its time is memory-bound"
        advice = "To be faster it must move fewer bytes: fewer element-wise passes, fewer and wider layers"
    else:
        bound = f"{percent(1 - memory, 0)} of its time is compute-bound"
        advice = "To be faster it must compute less: fewer channels, a lower resolution"
    return Finding(
        bound,
        f"{advice}. The ceilings alone would allow {percent(reached, 0)} of its predicted time; the rest is what "
        f"kernels lose against them{_overhead(estimate)}.",
    )


def _overhead(estimate: Estimate) -> str:
    if estimate.overhead < 0.005 * estimate.latency:
        return ""
    return f", and {quantity(estimate.overhead, 'second')} of overhead between kernels"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else quantity(seconds, "second")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
