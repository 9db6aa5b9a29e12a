"""Tests of hwcost.importers.neusight: shapes and times of published files, checked by hand; bad rows are named."""

import gzip
import os
from pathlib import Path

import pytest

from hwcost.importers.registry import FormatError, read
from hwcost.kernel import Kernel
from hwcost.measure.types import MeasurementError

SHARED = Path(os.environ.get("HWCOST_SHARED", Path(__file__).parents[3] / "shared"))
CONV = (
    "OPName,Latency,Device,Torch Version,CUDNN Version,CUDA Version,B,Input_Channel,Output_Channel,Kernel_Szie,"
    "Input_Size,Stride,Padding\n"
    "conv,0.88,Tesla V100,p2.1.0,8902,cu121,38,893,326,3,5,1,1\n"
    "conv,2.5,Tesla T4,p2.1.0,8902,cu121,1,8,16,3,9,2,0\n"
)


def kernels(name: str, path: Path) -> list[tuple[Kernel, float]]:
    found = read(name, path).measurements
    return [(m.kernel, m.timing.latency) for group in found for n in group.networks for m in n.kernels]


def test_a_convolution_of_neusight(tmp_path: Path) -> None:
    (tmp_path / "conv.csv").write_text(CONV)
    (first, latency), (second, _) = kernels("neusight", tmp_path / "conv.csv")
    assert latency == pytest.approx(0.88e-3)  # ms in the file
    assert first.cost.macs == 38 * 326 * 5 * 5 * 893 * 9  # outputs x input channels x window
    assert second.ops[0].outputs[0].shape == (1, 16, 4, 4)  # (9 - 3) / 2 + 1


@pytest.mark.parametrize(
    ("op", "columns", "macs", "out"),
    [
        ("bmm", {"B": 4, "M": 201, "N": 21, "K": 285}, 4 * 201 * 21 * 285, (4, 201, 285)),  # runs as 3 x 7 tiles
        ("linear", {"B": 1, "M": 236, "N": 64, "K": 194}, 236 * 64 * 194, (1, 236, 194)),  # runs as 2 x 8 tiles
        ("softmax", {"B": 3, "H": 7}, 0, (3, 7)),
        ("ln", {"B": 3, "H": 7}, 0, (3, 7)),
        ("add", {"B": 3, "H": 7}, 0, (3, 7)),
        ("gelu", {"B": 3, "H": 7}, 0, (3, 7)),
    ],
)
def test_other_operators_of_neusight(
    tmp_path: Path, op: str, columns: dict[str, int], macs: int, out: tuple[int, ...]
) -> None:
    names, values = ",".join(columns), ",".join(map(str, columns.values()))
    with gzip.open(tmp_path / "x.csv.gz", "wt") as file:
        file.write(f"OPName,Latency,Device,{names}\n{op},1,GPU,{values}\n")
    ((kernel, latency),) = kernels("neusight", tmp_path)
    assert kernel.cost.macs == macs
    assert kernel.ops[0].outputs[0].shape == out
    assert latency == 1e-3


def test_devices_of_one_file_are_kept_apart(tmp_path: Path) -> None:
    (tmp_path / "conv.csv").write_text(CONV)
    groups = read("neusight", tmp_path / "conv.csv").measurements
    assert [(g.environment.cpu, len(g)) for g in groups] == [("Tesla V100", 1), ("Tesla T4", 1)]
    assert groups[0].environment.versions == {"torch": "2.1.0", "cuda": "121", "cudnn": "8902"}
    with pytest.raises(MeasurementError, match="cpu is 'Tesla V100' here"):
        groups[0] + groups[1]


def test_a_kernel_of_neusight_is_the_one_that_is_traced() -> None:
    torch = pytest.importorskip("torch")
    import hwcost
    from hwcost.importers.neusight import _kernel
    from hwcost.runtimes.registry import get_runtime

    def traced(module: object, *shape: int) -> Kernel:
        graph = hwcost.trace(module, (torch.empty(shape, device="meta"),))
        return get_runtime("torch-eager").lower(graph).kernels[0].kernel

    conv = {"OPName": "conv", "B": "2", "Input_Channel": "8", "Output_Channel": "16", "Kernel_Szie": "3",
            "Input_Size": "9", "Stride": "2", "Padding": "1"}  # fmt: skip
    assert _kernel(conv, "x:1") == traced(torch.nn.Conv2d(8, 16, 3, 2, 1, bias=False), 2, 8, 9, 9)
    linear = {"OPName": "linear", "B": "1", "M": "58", "N": "13", "K": "141"}
    assert _kernel(linear, "x:1") == traced(torch.nn.Linear(13, 141, bias=False), 1, 58, 13)
    plane = {"B": "60", "H": "272"}
    for op, module in {"ln": torch.nn.LayerNorm(272), "softmax": torch.nn.Softmax(-1), "gelu": torch.nn.GELU(),
                       "relu": torch.nn.ReLU()}.items():  # fmt: skip
        assert _kernel({"OPName": op, **plane}, "x:1") == traced(module, 60, 272)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CONV.replace("0.88", "nan"), r"conv\.csv:2: Latency must be a number above 0, but got 'nan'"),
        (CONV.replace(",8,16,", ",8,-16,"), r"conv\.csv:3: Output_Channel must be a whole number from 1 on, .*'-16'"),
        (CONV.replace("conv,2.5", "roll,2.5"), r"conv\.csv:3: OPName must be one of add, .*but got 'roll'"),
        (CONV.replace("Kernel_Szie", "Kernel_Size"), r"conv\.csv:2: Kernel_Szie must be a whole number.* got None"),
        ("a,b\n1,2\n", r"conv\.csv:1: a NeuSight file must have the columns"),
        ("OPName,Latency,Device\n", "holds no row"),
    ],
)
def test_a_bad_row_of_neusight_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "conv.csv").write_text(text)
    with pytest.raises(FormatError, match=said):
        read("neusight", tmp_path / "conv.csv")


def test_the_published_rows_of_neusight_are_read() -> None:
    path = SHARED / "data" / "neusight" / "train" / "conv" / "Tesla_V100-PCIE-32GB.csv.gz"
    if not path.exists():
        pytest.skip(f"no {path}")
    (found,) = read("neusight", path).measurements
    assert len(found) == 4958  # lines of the file below its head
    assert found.environment.cores == 80  # the GPU's data sheet
