"""Which code of other packs takes part in a prediction, and what does it remember?

A patch of a MODEL is a function in its options, an object patch or a guider of a class of its own.
What such code keeps from call to call (in closures, attributes, lists) can be read and put back, so
that each picture that is run whole begins as the host's one run does.
"""

from __future__ import annotations

import inspect
import sysconfig
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import FunctionType, MemberDescriptorType, MethodType
from typing import Any

import comfy
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy.samplers import CFGGuider
from torch import Tensor, nn

__all__ = ["Memory", "foreign_code", "name_of"]

_HOST = Path(str(comfy.__path__[0])).resolve().parent
_OURS = Path(__file__).resolve().parents[3]
_TORCH = Path(torch.__file__).resolve().parent
_STANDARD = Path(sysconfig.get_path("stdlib")).resolve()
_INSTALLED = ("site-packages", "dist-packages")
DEEP = 6
Undo = Callable[[], object]


def foreign_code(guider: CFGGuider, options: dict[str, Any]) -> list[Any]:
    """List what of other packs may take part in a prediction.

    Args:
        guider: The guider.
        options: The model options of its run.

    Returns:
        Functions and objects whose code is neither the host's nor ours; perhaps the guider.
    """
    patcher: Any = guider.model_patcher
    taking_part = [*_callables(options), *getattr(patcher, "object_patches", {}).values()]
    found = [one for one in taking_part if _is_foreign(one)]
    return [*found, *([guider] if _is_foreign(guider) else [])]


def name_of(code: Any) -> str:
    """Say what a person may know such code by: its pack's folder or module, and its own name.

    Args:
        code: A function or an object.

    Returns:
        Such as "sonar_guidance of ComfyUI-sonar".
    """
    made = _function(code)
    own = getattr(made, "__qualname__", type(code).__name__).replace(".<locals>", "")
    path = _file(code)
    if path is None:
        return f"{own} of another pack"
    return f"{own} of {_below(path, ('custom_nodes', *_INSTALLED)) or path.stem}"


def _callables(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for held in value.values():
            yield from _callables(held)
    elif isinstance(value, list | tuple | set):
        for held in value:
            yield from _callables(held)
    elif callable(value) and not isinstance(value, type | nn.Module):
        yield value


def _function(code: Any) -> Any:
    """The function behind a partial or a bound method."""
    while isinstance(code, partial | MethodType):
        code = code.func if isinstance(code, partial) else code.__func__
    return code


def _file(code: Any) -> Path | None:
    made = _function(code)
    try:
        return Path(
            inspect.getfile(made if isinstance(made, FunctionType) else type(made))
        ).resolve()
    except (TypeError, OSError):  # of C, or made of a text
        return None


def _is_foreign(code: Any) -> bool:
    path = _file(code)
    if path is None or _TORCH in path.parents:  # a folder above the packs may be called torch
        return False
    if _OURS in path.parents:
        return not (_OURS / "nodes" in path.parents or _OURS / "samplers" in path.parents)
    packs = map(Path, folder_paths.get_folder_paths("custom_nodes"))
    if any(pack.resolve() in path.parents for pack in packs):
        return True
    library = _below(path, _INSTALLED)
    if library or _STANDARD in path.parents:
        # the host installs some of its own (comfy_kitchen, comfy_aimdo)
        return not library.startswith("comfy") and not _is_plain_function(code)
    return _HOST not in path.parents


def _below(path: Path, folders: Sequence[str]) -> str:
    """What stands below the last of such folders in a path; "" for none."""
    found = [after for name, after in pairwise(path.parts) if name in folders]
    return found[-1].removesuffix(".py") if found else ""


def _is_plain_function(code: Any) -> bool:
    """Whether this is a function of a module, as libraries have: it keeps nothing of its own."""
    return isinstance(code, FunctionType) and not (code.__closure__ or vars(code))


def _is_plain(name: Any) -> bool:
    """Whether this is an attribute that somebody set on a network, and none of torch's own."""
    return isinstance(name, str) and not name.startswith("_")


class Memory:
    """What code of other packs keeps from call to call, as it was when this was made."""

    def __init__(self, codes: Sequence[Any], *networks: nn.Module) -> None:
        """Take note of it.

        Args:
            codes: As foreign_code() lists them.
            *networks: On which such code may keep things; not looked at where there is none.
        """
        self._undo: list[Undo] = []
        self._seen: set[int] = set()
        self._kept: list[Any] = []  # so that no id is given twice
        for code in codes:
            self._note(code, DEEP)
        for network in networks if codes else ():
            for one in self._note_dict(vars(network), _is_plain):
                self._note(one, DEEP - 1)

    def restore(self) -> None:
        """Put it back."""
        for undo in self._undo:
            undo()

    def _note(self, held: Any, depth: int) -> None:
        if depth == 0 or id(held) in self._seen:
            return
        self._seen.add(id(held))
        self._kept.append(held)
        inside: list[Any] = []
        if isinstance(held, partial):
            inside = [held.func, *held.args, *held.keywords.values()]
        elif isinstance(held, MethodType):
            inside = [held.__func__, held.__self__]
        elif isinstance(held, FunctionType):
            inside = self._note_function(held)
        elif isinstance(held, dict):
            inside = self._note_dict(held)
        elif isinstance(held, list):
            self._undo.append(partial(held.__setitem__, slice(None), [*held]))
            inside = [*held]
        elif isinstance(held, set | deque):
            self._undo.append(partial(_refill, held, [*held]))
            inside = [*held]
        elif isinstance(held, tuple | frozenset):
            inside = [*held]
        elif isinstance(held, torch.Generator):
            self._undo.append(partial(held.set_state, held.get_state()))
        elif _is_foreign(held) and not isinstance(held, type | Tensor | nn.Module | ModelPatcher):
            inside = [*self._note_dict(getattr(held, "__dict__", {})), *self._note_slots(held)]
        for one in inside:
            self._note(one, depth - 1)

    def _note_function(self, function: FunctionType) -> list[Any]:
        inside: list[Any] = [
            *(function.__defaults__ or ()),
            *(function.__kwdefaults__ or {}).values(),
        ]
        for cell in function.__closure__ or ():
            try:
                value = cell.cell_contents
            except ValueError:  # nothing yet
                continue
            self._undo.append(partial(setattr, cell, "cell_contents", value))
            inside.append(value)
        return [*inside, *self._note_dict(vars(function))]

    def _note_slots(self, held: Any) -> list[Any]:
        """Attributes that stand in no __dict__."""
        inside: list[Any] = []
        for kind in type(held).__mro__:
            for slot in vars(kind).values() if "__slots__" in vars(kind) else ():
                if isinstance(slot, MemberDescriptorType):
                    try:
                        value = slot.__get__(held)
                    except AttributeError:  # nothing yet
                        continue
                    self._undo.append(partial(slot.__set__, held, value))
                    inside.append(value)
        return inside

    def _note_dict(
        self, held: dict[Any, Any], which: Callable[[Any], bool] = lambda _: True
    ) -> list[Any]:
        then = {key: value for key, value in held.items() if which(key)}

        def undo() -> None:
            for key in [key for key in held if which(key)]:  # all, for an order may mean something
                del held[key]
            held.update(then)

        self._undo.append(undo)
        return [*then.values()]


def _refill(held: Any, then: Sequence[Any]) -> None:
    """Put back what a set or deque held."""
    held.clear()
    for one in then:
        (held.add if isinstance(held, set) else held.append)(one)
