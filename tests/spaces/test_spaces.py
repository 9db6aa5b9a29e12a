"""The contract that every search space keeps, tested on each; and a user's own space in 20 lines."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hwcost import trace
from hwcost.cost import Cost
from hwcost.search.detached_trial import DetachedTrial
from hwcost.search.spaces import (
    Block,
    Decision,
    Params,
    Site,
    Space,
    SpaceError,
    get_object,
    get_space,
    register_space,
    space_names,
)
from hwcost.spaces.base import chain
from hwcost.spaces.vit import ViT


class Plain(Space):
    """A user's own space, as the documentation shows it."""

    name = "plain"
    decisions = (
        Decision("depth", (1, 2)),
        Decision("width", (8, 16)),
        Decision("kernel.1", (3, 5), when=("depth", (2,))),
    )

    def __init__(self) -> None:
        self.sites = (
            Site("stem", ("width",), self.stem),
            Site("body", ("depth", "width", "kernel.1"), self.body),
        )

    def stem(self, p: Params) -> Block:
        return self.conv("stem", 3, p["width"], 3)

    def body(self, p: Params) -> Block | None:
        return self.conv("body", p["width"], p["width"], p["kernel.1"]) if p["depth"] == 2 else None

    def conv(self, name: str, c: int, width: int, k: int) -> Block:
        shape = (1, c, 32, 32)
        return Block(name, f"conv {shape} {width} {k}", partial(nn.Conv2d, c, width, k, padding=k // 2), shape)

    def input_shape(self, params: Params) -> tuple[int, ...]:
        return (1, 3, 32, 32)


@pytest.fixture(params=["plain", *space_names()])
def space(request: pytest.FixtureRequest) -> Space:
    return Plain() if request.param == "plain" else get_space(request.param)


def samples(space: Space, n: int = 12) -> list[Params]:
    rng = np.random.default_rng(7)
    return [space.sample(rng) for _ in range(n)]


class TestContract:
    """What every space keeps."""

    def test_a_sample_is_valid_and_made_of_active_decisions(self, space: Space) -> None:
        for params in samples(space):
            space.validate(params)
            assert tuple(params) == space.active(params)

    def test_sampling_is_reproducible(self, space: Space) -> None:
        assert samples(space) == samples(space)

    def test_parameters_go_through_choices_and_back(self, space: Space) -> None:
        for params in samples(space, 50):
            assert space.params(space.choices(params)) == params

    def test_parameters_are_json(self, space: Space) -> None:
        for params in samples(space):
            assert json.loads(json.dumps(params)) == params

    def test_a_trial_is_asked_for_active_decisions_only(self, space: Space) -> None:
        for wanted in samples(space):
            probe = DetachedTrial(lambda name, _, wanted=wanted: wanted[name])
            assert space.suggest(probe) == wanted
            assert tuple(probe.params) == space.active(wanted)

    def test_the_network_costs_what_its_blocks_cost(self, space: Space) -> None:
        for params in samples(space, 6):
            with torch.device("meta"):
                network = trace(space.build(params), space.inputs(params))
                blocks = [trace(b.build(), torch.empty(b.input_shape)) for b in space.blocks(params)]
            assert network.status == "complete"
            assert network.cost == sum((b.cost for b in blocks), Cost())

    def test_blocks_of_one_key_are_the_same_block(self, space: Space) -> None:
        seen: dict[str, tuple[object, ...]] = {}
        for block in (b for params in samples(space) for b in space.blocks(params)):
            with torch.device("meta"):
                module = block.build()
            form = (block.input_shape, str(module))
            assert seen.setdefault(block.key, form) == form

    def test_a_site_depends_on_its_own_decisions_only(self, space: Space) -> None:
        names = {d.name for d in space.decisions}
        for site in space.sites:
            assert set(site.decisions) <= names
            assert len(set(site.decisions)) == len(site.decisions)

    def test_the_network_runs_and_learns(self, space: Space) -> None:
        params = samples(space, 1)[0]
        torch.manual_seed(0)
        network = space.build(params)
        (x,) = space.inputs(params, "cpu")
        output = network(torch.randn((2, *x.shape[1:])))
        output.sum().backward()
        assert all(p.grad is not None for p in network.parameters() if p.requires_grad)

    def test_the_network_knows_its_input(self, space: Space) -> None:
        params = samples(space, 1)[0]
        with torch.device("meta"):
            assert space.build(params).input_shape == tuple(space.inputs(params)[0].shape)

    def test_a_space_can_be_copied_and_sent_to_another_process(self, space: Space) -> None:
        other = pickle.loads(pickle.dumps(space))
        assert samples(other) == samples(space)

    def test_wrong_parameters_are_refused(self, space: Space) -> None:
        params = samples(space, 1)[0]
        first = space.decisions[0]
        with pytest.raises(SpaceError, match=f"'{first.name}' must be one of .* but got 'nonsense'"):
            space.validate({**params, first.name: "nonsense"})
        with pytest.raises(SpaceError, match="'nonsense' is no decision of it; leave it out"):
            space.validate({**params, "nonsense": 1})
        with pytest.raises(SpaceError, match="needs a value of"):
            space.validate({})
        with pytest.raises(SpaceError, match=r"must lie in 0\.\.\d+, but got 99"):
            space.params([99] * len(space.decisions))
        with pytest.raises(SpaceError, match="but got 1 choices"):
            space.params([0])


def test_size_counts_distinct_parameter_sets() -> None:
    """Depth 1: 2 widths. Depth 2: 2 widths x 2 kernels. 2 + 4 = 6, and enumeration finds as many."""
    everything = [tuple(p.items()) for p in Plain()]
    assert Plain().size == 6 == len(set(everything)) == len(everything)


def test_inactive_decisions_are_left_out() -> None:
    assert Plain().params([0, 1, 1]) == {"depth": 1, "width": 16}
    with pytest.raises(SpaceError, match=r"'kernel\.1' is not active for these parameters"):
        Plain().validate({"depth": 1, "width": 16, "kernel.1": 3})


def test_choices_must_be_distinct() -> None:
    with pytest.raises(SpaceError, match="distinct choices"):
        Decision("width", (8, 8))


def test_modules_nest_by_the_dots_in_their_names() -> None:
    network = chain([("stem", nn.ReLU()), ("stages.0.0", nn.Tanh()), ("stages.0.1", nn.GELU()), ("head", nn.ReLU())])
    names = [name for name, m in network.named_modules() if not isinstance(m, nn.Sequential)]
    assert names == ["stem", "stages.0.0", "stages.0.1", "head"]


class TestByName:
    """`get_space`."""

    def test_an_unknown_name(self) -> None:
        with pytest.raises(SpaceError, match=r"no space 'huge-cnn'; choose from .*tiny-cnn"):
            get_space("huge-cnn")

    def test_random_networks_without_decisions(self) -> None:
        with pytest.raises(SpaceError, match=r"'designed' are only measured.*; choose from .*tiny-cnn"):
            get_space("designed")

    def test_settings_are_the_text_arguments_of_the_class(self) -> None:
        assert get_space("mbconv?resolutions=64,96").decisions[0].choices == (64, 96)
        with pytest.raises(SpaceError, match="'mbconv' has no setting 'classes'; it has resolutions and widths"):
            get_space("mbconv?classes=10")
        with pytest.raises(SpaceError, match="'vit' has no setting 'widths'; it has none"):
            get_space("vit?widths=1")

    def test_ones_own_from_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "mine.py"
        file.write_text("from hwcost.spaces.tiny_cnn import TinyCNN\nclass Mine(TinyCNN):\n    name = 'mine'\n")
        assert get_space(f"{file}:Mine").name == "mine"

    def test_a_space_and_a_training_of_one_file_go_to_other_processes(self, tmp_path: Path) -> None:
        file = tmp_path / "both.py"
        code = "from hwcost.spaces.vit import ViT\nclass Mine(ViT):\n    pass\ndef train(m, t):\n    pass\n"
        file.write_text(code)
        space, train = get_space(f"{file}:Mine"), get_object(f"{file}:train", "data")
        assert type(pickle.loads(pickle.dumps(space))) is type(space)
        assert pickle.loads(pickle.dumps(train)) is train
        file.write_text(code.replace("Mine", "Yours"))
        assert type(get_space(f"{file}:Yours")).__name__ == "Yours"

    @pytest.mark.parametrize("place", ["nowhere.py:Mine", "no.such.module:Mine", "hwcost.units:nothing"])
    def test_a_place_where_nothing_is(self, place: str) -> None:
        with pytest.raises(SpaceError, match=place):
            get_space(place)

    def test_a_list_of_ones_own_blocks(self, tmp_path: Path) -> None:
        file = tmp_path / "mine.py"
        block = "Block('a', 'relu (4, 4)', nn.ReLU, (4, 4))"
        file.write_text(
            "from torch import nn\nfrom hwcost.search.spaces import Block\n"
            f"blocks, none, mixed = [{block}], [], [{block}, 'b']\n"
        )
        assert [b.name for b in get_space(f"{file}:blocks").blocks({"block": "relu (4, 4)"})] == ["a"]
        for name, held in (("none", "nothing"), ("mixed", "Block, str")):
            with pytest.raises(SpaceError, match=f"must hold hwcost.search.spaces.Block, but holds {held}"):
                get_space(f"{file}:{name}")

    @pytest.mark.parametrize(
        ("code", "message"),
        [
            ("class Mine(:", "cannot be imported: SyntaxError: invalid syntax"),
            ("x = undefined", "cannot be imported: NameError: name 'undefined' is not defined"),
            (
                "class Mine(Space):\n    name, decisions, sites = 'mine', (), ()",
                "cannot be made: TypeError: Can't instantiate abstract class Mine .*input_shape",
            ),
            (
                "class Mine(Own):\n    def __init__(self, n):\n        pass",
                "cannot be made: TypeError: .* argument: 'n'",
            ),
            (
                "class Mine(Own):\n    decisions = (Decision('width', (8, 16)),)",
                "has no 'name'; .* a space of one's own",
            ),
            (
                "class Mine(Own):\n    name, decisions, sites = 'mine', (), (Site('a', ('depth',), None),)",
                "site 'a' must depend on nothing, but names 'depth'",
            ),
            (
                "class Mine(Own):\n    name, decisions, sites = 'mine', (), (Site('a', (), lambda p: p['k']),)",
                "gives no blocks for {}: KeyError: 'k'",
            ),
            (
                "class Mine(Own):\n    name, decisions, sites = 'mine', (), (Site('a', (), lambda p: 7),)",
                "a site must give a Block or None, but gave 7 for {}",
            ),
        ],
    )
    def test_ones_own_that_is_not_whole(self, tmp_path: Path, code: str, message: str) -> None:
        file = tmp_path / "mine.py"
        own = "class Own(Space):\n    def input_shape(self, params):\n        return (1, 3)\n"
        file.write_text(f"from hwcost.search.spaces import Decision, Site, Space\n{own}{code}\n")
        with pytest.raises(SpaceError, match=message):
            get_space(f"{file}:Mine")

    def test_something_that_is_no_space(self) -> None:
        with pytest.raises(SpaceError, match=r"must be a hwcost\.search\.spaces\.Space, but is a function"):
            get_space("hwcost.units:parse")


# -- a space of somebody else, found by its name ----------------------------------------------------------

EXTENSION = """
from functools import partial
from torch import nn
from hwcost.search.spaces import Block, Decision, Site, Space, register_space


@register_space
class Dense(Space):
    name = "dense"
    decisions = (Decision("width", (8, 16)),)

    def __init__(self, depth: str = "1"):
        self.sites = tuple(Site(f"layer.{i}", ("width",), partial(self.layer, i)) for i in range(int(depth)))

    def layer(self, i, p):
        build = partial(nn.LazyLinear if i else nn.Linear, *(() if i else (4,)), p["width"])
        return Block(f"layer.{i}", f"linear {i} {p['width']}", build, (1, 4))

    def input_shape(self, params):
        return (1, 4)
"""

ASKED = """
import hwcost
from hwcost.search.spaces import get_space, space_names
assert "dense" in space_names()
assert len(get_space("dense?depth=2").sites) == 2
table = hwcost.LatencyTable.build(get_space("dense"), hwcost.CostModel.analytic("nvidia-v100"))
print(table.meta["space"], len(table))
"""


def fresh(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What Python prints in another process and how it ends, with these environment variables."""
    argv = [sys.executable, *arguments]
    return subprocess.run(argv, env=os.environ | variables, capture_output=True, text=True, check=False)


def test_a_space_is_one_file_that_the_environment_names(tmp_path: Path) -> None:
    file = tmp_path / "dense_space.py"
    file.write_text(EXTENSION)
    done = fresh("-c", ASKED, HWCOST_EXTENSIONS=str(file))
    assert (done.returncode, done.stdout.split()) == (0, ["dense", "2"]), done.stderr


def test_a_space_is_one_file_that_an_entry_point_names(tmp_path: Path) -> None:
    (tmp_path / "dense_space.py").write_text(EXTENSION)
    (tmp_path / "dense-1.0.dist-info").mkdir()
    (tmp_path / "dense-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: dense\nVersion: 1.0\n")
    (tmp_path / "dense-1.0.dist-info" / "entry_points.txt").write_text("[hwcost.spaces]\ndense = dense_space\n")
    done = fresh("-c", ASKED, PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    assert (done.returncode, done.stdout.split()) == (0, ["dense", "2"]), done.stderr


def test_an_extension_that_cannot_be_imported_is_told_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "broken_space.py"
    file.write_text("x = undefined\n")
    table = ["table", "--space", "vit", "--model", "default", "-o", str(tmp_path / "t.parquet")]
    done = fresh("-m", "hwcost", *table, HWCOST_EXTENSIONS=str(file))
    assert done.returncode == 2
    assert "broken_space.py cannot be imported: NameError" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


class TestRegistering:
    """`register_space`."""

    @pytest.fixture(autouse=True)
    def _own_registry(self, monkeypatch: pytest.MonkeyPatch) -> None:
        space_names()
        monkeypatch.setattr("hwcost.spaces.registry._spaces", {"vit": ViT})

    def test_a_class_is_known_by_its_name(self) -> None:
        assert register_space(Plain) is Plain
        assert space_names() == ("plain", "vit")
        assert type(get_space("plain")) is Plain

    def test_a_name_that_is_taken(self) -> None:
        class Other(Plain):
            name = "vit"

        with pytest.raises(SpaceError, match=r"'vit' names hwcost\.spaces\.vit:ViT and .*Other; rename one"):
            register_space(Other)

    def test_what_has_no_name_or_is_no_space(self) -> None:
        class Nameless(Space):
            def input_shape(self, params: Params) -> tuple[int, ...]:
                return (1,)

        with pytest.raises(SpaceError, match=r"class attribute `name` .* but .*Nameless has ''"):
            register_space(Nameless)
        with pytest.raises(SpaceError, match=r"subclass of hwcost\.search\.spaces\.Space, but got <class 'dict'>"):
            register_space(dict)  # type: ignore[type-var]
