"""How well the rules foresee what a runtime makes of a network, against what it says that it runs.

    python tests/bench/bench_lowering.py [--runtime torch-compile] [--networks 30] [--groups spaces designed ...]

Of ONNX Runtime that is its optimised graph, of torch-compile the code that inductor generates, which takes half a
minute a network. A line per network: whether the kernels are the same (as a multiset: kind, shapes, parameters),
how many there are against how many were foreseen, and the share of roofline time in kernels that were not. Then, over
all networks, the kernels that were missed or made up, those with the largest share of time first.
"""

from __future__ import annotations

import argparse
import importlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import nn

from hwcost import trace
from hwcost.kernel import Kernel
from hwcost.measure.items import sampled_items
from hwcost.measure.materialise import materialise
from hwcost.runtimes.base import Runtime
from hwcost.runtimes.registry import get_runtime, runtime_names
from hwcost.search.spaces import get_space, space_names
from hwcost.spaces.designed.space import DesignedSpace

PEAK, BANDWIDTH = 5e10, 1e10  # flop/s, byte/s: only weigh kernels against each other
Build = Callable[[], tuple[nn.Module, tuple[torch.Tensor, ...]]]

TORCHVISION = {
    "resnet18": 64, "resnext50_32x4d": 64, "mobilenet_v2": 64, "mobilenet_v3_small": 64, "mobilenet_v3_large": 64,
    "efficientnet_b0": 64, "efficientnet_v2_s": 64, "densenet121": 64, "squeezenet1_1": 64, "shufflenet_v2_x1_0": 64,
    "googlenet": 64, "inception_v3": 128, "mnasnet0_5": 64, "regnet_y_400mf": 64, "regnet_x_400mf": 64, "vgg11_bn": 224,
    "alexnet": 224, "convnext_tiny": 64, "swin_t": 64, "swin_v2_t": 64,
}  # fmt: skip
TIMM = {
    "resnet26d": 64, "ecaresnet26t": 64, "seresnet18": 64, "mobilenetv4_conv_small": 64, "ghostnet_100": 64,
    "hardcorenas_a": 64, "rexnet_100": 64, "tinynet_e": 106, "mixnet_s": 64, "repvgg_a0": 64, "res2net50_26w_4s": 64,
    "dla34": 64, "hrnet_w18_small": 64, "cspresnet50": 64, "darknet53": 64, "vovnet39a": 64, "ese_vovnet19b_dw": 64,
    "selecsls42b": 64, "dpn48b": 64, "xception41": 64, "nfnet_f0": 64, "skresnet18": 64, "edgenext_xx_small": 64,
    "mobilevit_xxs": 64, "mobilevitv2_050": 64, "fastvit_t8": 64, "efficientformer_l1": 224, "levit_128s": 224,
    "poolformer_s12": 64, "convmixer_768_32": 64, "mixer_s32_224": 224, "resmlp_12_224": 224, "gmlp_s16_224": 224,
    "deit_tiny_patch16_224": 224, "cait_xxs24_224": 224, "pit_ti_224": 224, "crossvit_tiny_240": 240,
    "pvt_v2_b0": 64, "twins_svt_small": 64, "coatnet_0_rw_224": 224, "swin_tiny_patch4_window7_224": 224,
    "xcit_nano_12_p16_224": 224, "visformer_tiny": 224, "convit_tiny": 224, "inception_next_tiny": 64,
    "focalnet_tiny_srf": 64,
    "repghostnet_050": 64, "mobileone_s0": 64, "starnet_s1": 64, "efficientvit_b0": 64, "tf_efficientnet_lite0": 64,
}  # fmt: skip
_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_TEXT = _SMALL | {"vocab_size": 100, "max_position_embeddings": 64}
_IMAGE = _SMALL | {"image_size": 64, "patch_size": 16}
_DEPTHS = {"depths": [1, 2], "embed_dim": 16, "num_heads": [2, 4], "image_size": 64, "window_size": 4}
TRANSFORMERS: dict[str, tuple[dict[str, Any], str]] = {
    "Bert": (_TEXT, "tokens"), "Roberta": (_TEXT, "tokens"), "Electra": (_TEXT | {"embedding_size": 32}, "tokens"),
    "DistilBert": ({"vocab_size": 100, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}, "tokens"),
    "Albert": (_TEXT | {"embedding_size": 16}, "tokens"), "MobileBert": (_TEXT | {"embedding_size": 16}, "tokens"),
    "GPT2": ({"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}, "tokens"),
    "ViT": (_IMAGE, "image"), "DeiT": (_IMAGE, "image"), "Beit": (_IMAGE, "image"), "Dinov2": (_IMAGE, "image"),
    "Swin": (_DEPTHS, "image"), "ConvNext": ({"depths": [1, 2, 1, 1], "hidden_sizes": [8, 16, 24, 32]}, "image"),
    "ConvNextV2": ({"depths": [1, 2, 1, 1], "hidden_sizes": [8, 16, 24, 32]}, "image"), "MobileViT": ({}, "image"),
    "Segformer": ({"depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 48, 64]}, "image"), "ResNet": ({}, "image"),
    "PoolFormer": ({"depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 48, 64]}, "image"),
    "MobileNetV2": ({}, "image"), "EfficientNet": ({"image_size": 64}, "image"), "RegNet": ({}, "image"),
    "CLIPVision": (_IMAGE, "image"), "Siglip Vision": (_IMAGE, "image"), "T5Encoder": (
        {"vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}, "tokens"),
}  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """The kernels of a network, and those that were foreseen."""

    name: str
    real: Counter[Kernel]
    foreseen: Counter[Kernel]

    @property
    def missed(self) -> Counter[Kernel]:
        """Kernels that run and were not foreseen."""
        return self.real - self.foreseen

    @property
    def share(self) -> float:
        """Share of the network's roofline time in kernels that were missed."""
        return sum(n * seconds(k) for k, n in self.missed.items()) / max(
            sum(n * seconds(k) for k, n in self.real.items()), 1e-12
        )


def seconds(kernel: Kernel) -> float:
    """Roofline time plus a microsecond for the call."""
    return max(kernel.cost.flops / PEAK, kernel.cost.bytes / BANDWIDTH) + 1e-6


def of_spaces(count: int) -> Iterator[tuple[str, Build]]:
    """Random networks of every search space."""
    for name in space_names():
        for item in islice(sampled_items(get_space(name), seed=7), count):
            yield item.name, item.build


def designed(count: int) -> Iterator[tuple[str, Build]]:
    """Random networks of the designed space."""
    for item in islice(sampled_items(DesignedSpace(), seed=5), count):
        yield item.name, item.build


def of_torchvision(count: int) -> Iterator[tuple[str, Build]]:
    """Named networks of torchvision."""
    models: Any = importlib.import_module("torchvision.models")
    for name, size in islice(TORCHVISION.items(), count):
        yield f"torchvision/{name}", lambda name=name, size=size: (models.get_model(name), image(size))


def of_timm(count: int) -> Iterator[tuple[str, Build]]:
    """Named networks of timm."""
    timm: Any = importlib.import_module("timm")
    for name, size in islice(TIMM.items(), count):
        yield f"timm/{name}", lambda name=name, size=size: (timm.create_model(name), image(size))


def of_transformers(count: int) -> Iterator[tuple[str, Build]]:
    """Small configurations of transformers' networks."""
    library: Any = importlib.import_module("transformers")
    for name, (config, kind) in islice(TRANSFORMERS.items(), count):
        yield (
            f"transformers/{name}",
            lambda name=name, config=config, kind=kind: _transformer(library, name.replace(" ", ""), config, kind),
        )


class First(nn.Module):
    """The first output of a network that takes its input by name."""

    def __init__(self, body: nn.Module, name: str) -> None:
        super().__init__()
        self.body, self.name = body, name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the network."""
        out: torch.Tensor = self.body(**{self.name: x})[0]
        return out


def _transformer(library: Any, name: str, config: dict[str, Any], kind: str) -> Any:
    made = getattr(library, name.removesuffix("Encoder") + "Config")(**config)
    made.use_cache = False
    module = getattr(library, f"{name}Model")(made)
    if kind == "image":
        return First(module, "pixel_values"), image(64)
    return First(module, "input_ids"), (torch.zeros(1, 12, dtype=torch.long),)


def image(size: int) -> tuple[torch.Tensor, ...]:
    """One image."""
    return (torch.empty(1, 3, size, size, device="meta"),)


GROUPS: dict[str, Callable[[int], Iterator[tuple[str, Build]]]] = {
    "spaces": of_spaces, "designed": designed, "torchvision": of_torchvision, "timm": of_timm,
    "transformers": of_transformers,
}  # fmt: skip


def compare(name: str, build: Build, runtime: Runtime) -> Compared:
    """Kernels that run against those of the lowering."""
    module, inputs = materialise(build)
    real = Counter(p.kernel for p in runtime.prepare(module, inputs, threads=1).network.kernels)
    return Compared(name, real, Counter(p.kernel for p in runtime.lower(trace(module, inputs)).kernels))


def compared(groups: Iterable[str], count: int, runtime: Runtime) -> Iterator[Compared]:
    """Every network of the groups; what cannot be built or exported is said and left out."""
    for group in groups:
        try:
            found = list(GROUPS[group](count))
        except ImportError as reason:
            print(f"{group}: left out ({reason})")
            continue
        for name, build in found:
            try:
                yield compare(name, build, runtime)
            except Exception as reason:  # any network may fail to build or to export
                print(f"{name}: left out ({type(reason).__name__}: {str(reason)[:100]!r})")


def report(result: Compared) -> None:
    """The line of one network."""
    real, foreseen = result.real.total(), result.foreseen.total()
    word = "exact" if result.real == result.foreseen else f"{result.missed.total()} missed, {result.share:.1%} of time"
    print(f"{result.name:48} {real:4} kernels, {foreseen - real:+3} foreseen, {word}", flush=True)


def summary(results: list[Compared], misses: int) -> None:
    """Shares per group, and the kernels that matter most among those that are wrong."""
    groups: defaultdict[str, list[Compared]] = defaultdict(list)
    for result in results:
        groups[result.name.split("/")[0]].append(result)
    for group, members in [*groups.items(), ("all", results)]:
        exact = sum(r.real == r.foreseen for r in members)
        near = sum(abs(r.foreseen.total() - r.real.total()) <= 0.05 * r.real.total() for r in members)
        share = sum(r.share for r in members) / max(len(members), 1)
        print(f"{group}: {exact} of {len(members)} exact, {near} within 5 % in kernels, {share:.2%} of time missed")
    for sign, wrong in (("missed", lambda r: r.missed), ("made up", lambda r: r.foreseen - r.real)):
        weight: Counter[str] = Counter()
        for result in results:
            whole = sum(n * seconds(k) for k, n in result.real.items())
            for kernel, n in wrong(result).items():
                weight[f"{kernel.name:24} {kernel.to_json()[:170]}"] += n * seconds(kernel) / whole
        for text, share in weight.most_common(misses):
            print(f"{sign} {share:8.3%} {text}")


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runtime", choices=runtime_names(), default="onnxruntime")
    parser.add_argument("--networks", type=int, default=30, help="at most so many of a group or space")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--misses", type=int, default=20, help="how many wrong kernels to list")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for result in compared(options.groups, options.networks, get_runtime(options.runtime)):
        report(result)
        results.append(result)
    summary(results, options.misses)


if __name__ == "__main__":
    main()
