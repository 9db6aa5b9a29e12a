"""Losses that are part of a forward: flop per element, and one addition per element where they are summed up.

The counts follow from the definitions, with x the prediction and y the target, and functions counted as in `pointwise`.
"""

from __future__ import annotations

from hwcost.graph import OpSpec
from hwcost.rules.registry import Work, rule

_FLOPS = {
    "l1_loss": 2,  # |x - y|
    "mse_loss": 2,  # (x - y)^2
    "smooth_l1_loss": 5,  # |x - y|, compared with beta; d^2 / (2 beta)
    "huber_loss": 5,
    "kl_div": 3,  # y (log y - x)
    "binary_cross_entropy": 8,  # -(y log x + (1 - y) log(1 - x))
    "binary_cross_entropy_with_logits": 9,  # max(x, 0) - x y + log(1 + exp(-|x|))
    "cross_entropy_loss": 5,  # log_softmax x; `classes` adds what each target takes
}


def _summed(op: OpSpec, terms: int) -> int:
    """Additions of a loss of `terms` terms: none where every term is returned (reduction 0)."""
    return 0 if op.param("reduction", 1) == 0 else terms


# [] = mse_loss([*], [*], reduction)
@rule("l1_loss", "mse_loss", "smooth_l1_loss", "huber_loss", "kl_div", "binary_cross_entropy",
      "binary_cross_entropy_with_logits")  # fmt: skip
def elementwise(op: OpSpec) -> Work:
    """One term for each element."""
    terms = op.inputs[0].numel
    return Work(other_flops=_FLOPS[op.kind] * terms + _summed(op, terms))


# [] = cross_entropy_loss([b, c, *], [b, *] or [b, c, *], weight?, reduction)        [] = nll_loss_nd([b, c, *], [b, *])
@rule("cross_entropy_loss", "nll_loss", "nll_loss2d", "nll_loss_nd")
def classes(op: OpSpec) -> Work:
    """One term for each target: the negative log-probability of its class, one flop.

    One more where classes have weights, and one more where targets are probabilities of all classes.
    """
    logits, targets = op.inputs[0].numel, op.inputs[1].numel
    shares = targets if op.inputs[1].shape == op.inputs[0].shape and targets > 1 else 0
    weighted = targets if op.input("weight") else 0
    return Work(other_flops=_FLOPS.get(op.kind, 0) * logits + targets + shares + weighted + _summed(op, targets))
