"""Inputs of a network, written as text.

    1x3x224x224            a shape, batch included; float32
    1x16:int64             with a dtype
    1x16:int64=ones        with values: zeros, ones, arange, random, a number, a range 0..100 or a list 3,5,2
    tokens.npz             the arrays of a file of numpy, in its order; tokens.npz:mask is one of them
    image.npy              the array of a file

An input without values has random ones where it is a float, and zeros, which are valid as an index of any table,
otherwise. Random values are the same every time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwcost.graph import ITEMSIZE

if TYPE_CHECKING:
    import numpy as np
    import torch

_SHAPE = re.compile(r"(\d+(?:x\d+)*)(?::(\w+))?(?:=(.*))?\Z", re.DOTALL)
_FILE = re.compile(r"(.+\.npy|.+\.npz(?=\Z|:))(?::(.+))?\Z", re.DOTALL)
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)\Z")
_LIMIT = 1 << 33  # bytes of an array; a file that claims more is refused before it is read
_WAYS = "zeros, ones, arange, random, a number, a range such as 0..100, or a list such as 3,5,2"


class TargetError(ValueError):
    """A target that gives no network, or text that is no input; the message is one line."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """Shape, dtype and values of one input; `str` writes it as `parse_input` reads it."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    values: str = ""  # as written after "=": "ones", "0..100"; "" where none are given
    file: str = ""  # that holds its values, as written: "tokens.npz:mask"

    def __str__(self) -> str:
        if self.file:
            return self.file
        dtype = "" if self.dtype == "float32" else f":{self.dtype}"
        return "x".join(map(str, self.shape)) + dtype + (f"={self.values}" if self.values else "")

    @property
    def has_values(self) -> bool:
        """Whether the user gave values."""
        return bool(self.values or self.file)

    def tensor(self, device: str = "meta") -> torch.Tensor:
        """The input with its values on "cpu", and without any on "meta".

        Raises:
            TargetError: its file cannot be read any more.
        """
        import torch

        dtype: torch.dtype = getattr(torch, self.dtype)
        if device == "meta":
            return torch.zeros(self.shape, dtype=dtype, device=device)
        if self.file:
            (array,) = _arrays(self.file).values()
            return torch.from_numpy(array.copy(order="K"))
        if self.values or dtype.is_floating_point:
            return _filled(self.values or "random", self.shape, dtype)
        return torch.zeros(self.shape, dtype=dtype)


def parse_input(text: str) -> InputSpec:
    """Read one input.

    Raises:
        TargetError: the text is no shape, the dtype is unknown, the dtype cannot hold the values, or a file does not
            hold one array.
    """
    found = parse_each(text)
    if len(found) != 1:
        names = ", ".join(str(spec) for spec in found)
        raise TargetError(f"input {text!r} holds {len(found)} arrays where one is wanted: give one of {names}")
    return found[0]


def parse_each(text: str) -> tuple[InputSpec, ...]:
    """Read the inputs that a text gives: all arrays of an .npz file, and one of any other text.

    Raises:
        TargetError: as `parse_input`.
    """
    text = text.strip()
    if _FILE.match(text):
        return tuple(InputSpec(a.shape, str(a.dtype), file=where) for where, a in _arrays(text).items())
    match = _SHAPE.match(text)
    shape = tuple(int(n) for n in match[1].split("x")) if match else ()
    if match is None or 0 in shape:
        raise TargetError(
            f"input must be sizes above 0 joined by x, as in 1x3x224x224, 1x128:int64 or 1x16:int64=0..100, or an "
            f".npy or .npz file, but got {text!r}"
        )
    dtype, values = match[2] or "float32", match[3]
    if dtype not in ITEMSIZE:
        raise TargetError(f"input {text!r}: dtype must be one of {', '.join(ITEMSIZE)}, but got {dtype!r}")
    if values is not None:
        _check(text, values.strip(), shape, dtype)
    return (InputSpec(shape, dtype, (values or "").strip()),)


# -- values as text ----------------------------------------------------------------------------------------------


def _check(text: str, values: str, shape: tuple[int, ...], dtype: str) -> None:
    """Refuse values that are none of the ways to write them, or that the dtype cannot hold.

    Raises:
        TargetError: as `parse_input`.
    """
    kind = _kind(dtype)
    limits = _limits(dtype)

    def refuse(why: str) -> TargetError:
        return TargetError(f"input {text!r}: {why}")

    if values in ("zeros", "ones"):
        return
    if kind == "other":
        raise refuse(f"values of {dtype} can be zeros or ones only")
    if values == "random":
        if kind == "integer":
            raise refuse("random integers need a range, such as =0..100, which draws 0 to 99")
        return
    if values == "arange":
        numbers = [0, math.prod(shape) - 1]
        if kind == "bool":
            raise refuse("arange counts, which bool cannot; give =random, =zeros or =ones")
    elif span := _RANGE.match(values):
        if kind != "integer":
            raise refuse(f"a range draws integers, but {dtype} holds none; give =random")
        numbers = [int(span[1]), int(span[2]) - 1]
        if numbers[1] < numbers[0]:
            raise refuse(f"a range must end above its beginning, but got {values}")
    else:
        numbers = _numbers(values, whole=kind != "float", refuse=refuse)
        if "," in values and len(numbers) != math.prod(shape):
            sizes = "x".join(map(str, shape))
            raise refuse(f"{sizes} needs {math.prod(shape)} values, but the list has {len(numbers)}")
    if limits and not limits[0] <= min(numbers) <= max(numbers) <= limits[1]:
        raise refuse(
            f"{dtype} holds {limits[0]} to {limits[1]}, but the values go from {min(numbers)} to {max(numbers)}"
        )


def _numbers(values: str, *, whole: bool, refuse: Callable[[str], TargetError]) -> list[Any]:
    """The numbers of a list, or the one number."""
    numbers: list[Any] = []
    for word in values.split(","):
        try:
            numbers.append(int(word) if whole else float(word))
        except ValueError:
            if whole and _is_number(word):
                raise refuse(f"its dtype holds whole numbers, but got {word.strip()}") from None
            raise refuse(f"values must be {_WAYS}, but got {values!r}") from None
    return numbers


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _kind(dtype: str) -> str:
    """What a dtype holds: "float", "bool", "integer" or "other" (quantised numbers)."""
    if dtype.startswith(("float", "bfloat", "complex")):
        return "float"
    return "bool" if dtype == "bool" else "other" if dtype.startswith("q") else "integer"


def _limits(dtype: str) -> tuple[int, int] | None:
    """The least and the largest number of an integer dtype or of bool."""
    if dtype == "bool":
        return 0, 1
    if _kind(dtype) != "integer":
        return None
    bits = 8 * ITEMSIZE[dtype]
    return (0, 2**bits - 1) if dtype.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _filled(values: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A tensor with values that `_check` accepted."""
    import torch

    seed = torch.Generator().manual_seed(0)
    if values == "zeros":
        return torch.zeros(shape, dtype=dtype)
    if values == "ones":
        return torch.ones(shape, dtype=dtype)
    if values == "random":
        drawn = torch.rand(shape, generator=seed)
        return drawn < 0.5 if dtype is torch.bool else drawn.to(dtype)
    if values == "arange":
        return torch.arange(math.prod(shape)).reshape(shape).to(dtype)
    if span := _RANGE.match(values):
        return torch.randint(int(span[1]), int(span[2]), shape, generator=seed).to(dtype)
    real = dtype.is_floating_point or dtype.is_complex
    numbers = [float(word) if real else int(word) for word in values.split(",")]
    return torch.tensor(numbers).expand(math.prod(shape)).reshape(shape).to(dtype)


# -- files --------------------------------------------------------------------------------------------------------


def _arrays(text: str) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of "file.npy", "file.npz" or "file.npz:name", each by the text that names it alone.

    Raises:
        TargetError: there is no such file or array, or it is none that a network could take.
    """
    import numpy as np

    match = _FILE.match(text)
    assert match
    path, name = match[1], match[2]
    if not Path(path).is_file():
        raise TargetError(f"input {text!r}: there is no file {path}")
    try:
        _check_size(path)
        with open(path, "rb") as file:  # numpy leaves the file open where it cannot be read
            loaded = np.load(file, allow_pickle=False)
            arrays = {"": loaded} if isinstance(loaded, np.ndarray) else {key: loaded[key] for key in loaded.files}
    except TargetError:
        raise
    except Exception as error:  # whatever a damaged file makes numpy or zipfile raise
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise TargetError(f"input {text!r}: {path} cannot be read as a file of numpy ({why})") from error
    if not arrays:
        raise TargetError(f"input {text!r}: {path} holds no array")
    if name is not None:
        if name not in arrays or "" in arrays:
            has = ", ".join(arrays) if "" not in arrays else "one array without a name"
            raise TargetError(f"input {text!r}: {path} has no array {name!r}; it has {has}")
        arrays = {name: arrays[name]}
    for key, array in arrays.items():
        if str(array.dtype) not in ITEMSIZE or array.size == 0:
            what, sizes = f"array {key!r}" if key else "its array", list(array.shape)
            raise TargetError(
                f"input {text!r}: {what} must have elements of a dtype of torch, but is {sizes} {array.dtype}"
            )
    return {f"{path}:{key}" if key else path: array for key, array in arrays.items()}


def _check_size(path: str) -> None:
    """Refuse a file whose arrays would not fit in memory, before they are unpacked."""
    import zipfile

    size = Path(path).stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    if size > _LIMIT:
        raise TargetError(f"input {path}: its arrays take {size} bytes, and {_LIMIT} are the most that is read")
