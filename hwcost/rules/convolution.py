"""Convolutions: every output element is a dot product over the kernel window and the group's input channels.

macs = output elements * (input channels / groups) * kernel positions. A transposed convolution has as many products
for each element of its *input*. The bias is one addition per output element, in other_flops. Kernel positions that
lie in the padding are counted too, as in published tables.
"""

from __future__ import annotations

import math

from hwcost.graph import OpSpec
from hwcost.rules.registry import Work, rule


# [b, o, *out] = conv2d([b, i, *in], [o, i/groups, *kernel], [o]?)
# [b, o, *out] = convolution(input, weight, bias?, transposed=False)
@rule(
    "conv1d", "conv2d", "conv3d", "convolution", "_convolution", "mkldnn_convolution", "_slow_conv2d_forward",
    "conv_depthwise3d", "_conv_depthwise2d", "slow_conv3d", "thnn_conv2d", "quantized.conv1d", "quantized.conv2d",
    "quantized.conv3d", "quantized.conv1d_relu", "quantized.conv2d_relu", "quantized.conv3d_relu",
    "quantized.conv1d_dynamic", "quantized.conv2d_dynamic", "quantized.conv3d_dynamic",
)  # fmt: skip
def convolution(op: OpSpec) -> Work:
    """Stride, dilation and groups show in the shapes of the output and the weight."""
    if op.param("transposed"):
        return transposed(op)
    return Work(macs=op.outputs[0].numel * _taps(op), other_flops=_bias(op))


# [b, o, *out] = conv_transpose2d([b, i, *in], [i, o/groups, *kernel], [o]?)
@rule(
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "quantized.conv_transpose1d",
    "quantized.conv_transpose2d", "quantized.conv_transpose3d", "quantized.conv_transpose1d_dynamic",
    "quantized.conv_transpose2d_dynamic", "quantized.conv_transpose3d_dynamic",
)  # fmt: skip
def transposed(op: OpSpec) -> Work:
    """Each input element is multiplied with every kernel position of each filter of its group."""
    return Work(macs=op.inputs[0].numel * _taps(op), other_flops=_bias(op))


def _taps(op: OpSpec) -> int:
    """Products per output element (transposed: per input element)."""
    weight = op.input("weight") or op.inputs[1]
    return math.prod(weight.shape[1:])  # channels of a group times kernel positions


def _bias(op: OpSpec) -> int:
    return op.outputs[0].numel if op.input("bias") else 0


# [b, o, *out] = deform_conv2d([b, i, *in], [o, i/groups, *kernel], offset, mask?, bias)
@rule("torchvision.deform_conv2d")
def deformable(op: OpSpec) -> Work:
    """A convolution of samples of its input, each interpolated from four pixels with two flop each.

    There is a sample for every output pixel, kernel position and input channel.
    """
    batch, channels = op.inputs[0].shape[:2]
    weight = op.input("weight") or op.inputs[1]
    out = op.outputs[0]
    samples = batch * channels * math.prod(weight.shape[2:]) * math.prod(out.shape[2:])
    return Work(macs=out.numel * _taps(op), other_flops=8 * samples + _bias(op))
