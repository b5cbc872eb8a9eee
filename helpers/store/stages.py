"""Long work in stages: what a stage made is kept under the key of its inputs, so that a run that was cut off goes on."""

import contextlib
import inspect
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from helpers.store.files import WorkbookError, fingerprint, write_text


class Stages:
    """Finished stages as JSON files in ``folder``, one a name; each says what it did and how many seconds it took.

    ``made`` and ``kept`` name the stages that were worked on now and those that were there already, in order.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = print):
        self.folder, self.say = Path(folder), say
        self.made: list[str] = []
        self.kept: list[str] = []
        self._began = time.perf_counter()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkbookError(f"Cannot create {self.folder} ({error.strerror}): free some space.") from error

    def file(self, name: str) -> Path:
        """Where a stage is kept."""
        words = re.findall(r"[a-z0-9]+", name.lower())
        return self.folder / f"{'-'.join([*words, fingerprint(name)[:6]])}.json"  # two names may have the same words

    def run(
        self, name: str, make: Callable[..., Any], *inputs: Any, tell: Callable[[Any], str] = lambda value: ""
    ) -> Any:
        """What ``make(*inputs)`` gives, anything JSON can hold; read from disk where the same was worked on before.

        The key is derived, not given: from all inputs, the defaults of those that are left out, and the thresholds that the function
        reads (see ``key_of`` and ``thresholds``). So ``make`` has to get everything through its parameters: a function that reaches
        for variables around it is refused. ``tell(value)`` is the rest of the progress line.
        """
        key, file = fingerprint(name, _call(name, make, inputs)), self.file(name)
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {}
        if isinstance(found, dict) and found.get("key") == key:
            if name not in self.made and name not in self.kept:  # told once a run, however often it is asked for
                self.kept.append(name)
                self._line(name, "kept", tell(found["value"]))
            return found["value"]
        start = time.perf_counter()
        text = json.dumps(
            make(*inputs), ensure_ascii=False
        )  # through JSON, so that a first run sees what a second would
        took = time.perf_counter() - start
        write_text(file, f'{{"key": "{key}", "seconds": {took:.3f}, "value": {text}}}')
        self.made.append(name)
        value = json.loads(text)
        self._line(name, f"{took:.1f} s", tell(value))
        return value

    def _line(self, name: str, took: str, told: str) -> None:
        elapsed = time.perf_counter() - self._began
        self.say(f"{elapsed:6.0f} s  {name:<34} {took:>8}  {told}".rstrip())


def _call(name: str, make: Callable[..., Any], inputs: tuple[Any, ...]) -> list:
    """Everything that the value of ``make(*inputs)`` depends on, as JSON."""
    if not isinstance(make, FunctionType) or make.__closure__:
        raise TypeError(f"The stage {name!r} needs a function that gets all it uses as inputs, not {make!r}.")
    bound = inspect.signature(make).bind(*inputs)
    bound.apply_defaults()
    return [make.__qualname__, {p: key_of(v, f"{name}: {p}") for p, v in bound.arguments.items()}, thresholds(make)]


def key_of(value: Any, what: str = "value") -> Any:
    """What stands for a value in a key, as JSON: its ``key`` where it has one, else a fingerprint of all that is in it.

    Raises TypeError for what has neither, for then nobody would notice that it changed.
    """
    if isinstance(getattr(value, "key", None), str):
        return value.key
    if isinstance(value, np.ndarray):
        return fingerprint(str(value.dtype), value.shape, np.ascontiguousarray(value).tobytes())
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: key_of(getattr(value, f.name), f"{what}.{f.name}") for f in fields(value)}
    if isinstance(value, set | frozenset):
        return key_of(sorted(value), what)
    if isinstance(value, bytes):
        return fingerprint("bytes", value)
    try:
        return fingerprint(dict(value) if isinstance(value, Mapping) else value)
    except TypeError:
        if isinstance(value, Mapping):
            return [[key_of(k, what), key_of(v, what)] for k, v in value.items()]
        if isinstance(value, list | tuple):
            return [key_of(v, what) for v in value]
        raise TypeError(f"{what}: nothing tells when a {type(value).__name__} changes, so give it a `key`.") from None


def thresholds(function: Callable[..., Any]) -> dict[str, str]:
    """{name: fingerprint} of the upper-case constants and default values that a function reads, itself or through what it calls.

    Followed are the functions and classes of its own package; what has no fingerprint, such as a path, is no threshold.
    """
    found: dict[str, Any] = {}
    todo, seen = [function], set()
    while todo:
        part = inspect.unwrap(todo.pop())
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, type):
            todo += [m for m in map(_as_function, vars(part).values()) if m is not None]
            todo += [base for base in part.__bases__ if _is_ours(base, function)]
            continue
        found[f"{part.__module__}: {part.__qualname__}"] = [
            *(part.__defaults__ or ()),
            *(part.__kwdefaults__ or {}).values(),
        ]
        for name, value in _names(part):
            if _is_ours(value, function):
                todo.append(value)
            elif name.lstrip("_").isupper():
                found[f"{part.__module__}: {name}"] = value.pattern if isinstance(value, re.Pattern) else value
    return {name: key for name, value in sorted(found.items()) if (key := _fingerprint_or_none(value))}


def _fingerprint_or_none(value: Any) -> str | None:
    with contextlib.suppress(TypeError):
        return fingerprint(value)
    return None


def _as_function(member: Any) -> FunctionType | None:
    member = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
    return member if isinstance(member, FunctionType) else None


def _is_ours(value: Any, function: Callable[..., Any]) -> bool:
    """Whether a value is a function or class of the helpers, or of the module that ``function`` is from."""
    module = getattr(value, "__module__", None) or ""
    return isinstance(value, FunctionType | type) and (
        module.split(".")[0] == "helpers" or module == function.__module__
    )


def _names(function: FunctionType) -> list[tuple[str, Any]]:
    """(name, value) of the globals that a function and the functions within it name, attributes of modules among them."""
    codes, names = [function.__code__], set()
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [const for const in code.co_consts if isinstance(const, CodeType)]
    space = {n: function.__globals__[n] for n in sorted(names) if n in function.__globals__}
    modules = [m for m in space.values() if isinstance(m, ModuleType) and m.__name__.startswith("helpers")]
    return [*space.items(), *((n, getattr(m, n)) for m in modules for n in sorted(names) if hasattr(m, n))]
