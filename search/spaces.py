"""The search spaces of `hwcost.spaces`, under the name that users of `hwcost.search` know."""

from __future__ import annotations

from hwcost.spaces.base import Block as Block
from hwcost.spaces.base import BlockList as BlockList
from hwcost.spaces.base import Decision as Decision
from hwcost.spaces.base import Form as Form
from hwcost.spaces.base import Params as Params
from hwcost.spaces.base import Site as Site
from hwcost.spaces.base import Space as Space
from hwcost.spaces.base import SpaceError as SpaceError
from hwcost.spaces.registry import get_object as get_object
from hwcost.spaces.registry import get_space as get_space
from hwcost.spaces.registry import register_space as register_space
from hwcost.spaces.registry import space_names as space_names
