"""Long work in stages: each result is kept under a key of its inputs, so that an interrupted run can go on."""

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
    """Runs stages and keeps their results in ``folder``, one JSON file per name; ``say`` gets a line about each stage.

    ``made`` names the stages computed in this run and ``kept`` those that were read from disk, both in order.
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
        """The file that keeps the result of a stage."""
        words = re.findall(r"[a-z0-9]+", name.lower())
        return self.folder / f"{'-'.join([*words, fingerprint(name)[:6]])}.json"  # two names may have the same words

    def run(
        self, name: str, make: Callable[..., Any], *inputs: Any, tell: Callable[[Any], str] = lambda value: ""
    ) -> Any:
        """The value of ``make(*inputs)``, anything JSON can hold; read from disk if the same was computed before.

        The key is derived from the stage's name, all inputs (with the defaults of those left out), and the thresholds
        that the function reads; see ``key_of`` and ``thresholds``. So ``make`` has to get everything through its
        parameters: a function that uses variables around it raises TypeError. ``tell(value)`` gives the end of the
        progress line.
        """
        key, file = fingerprint(name, _call(name, make, inputs)), self.file(name)
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            stored = {}
        if isinstance(stored, dict) and stored.get("key") == key:
            if name not in self.made and name not in self.kept:  # told once a run, however often it is asked for
                self.kept.append(name)
                self._line(name, "kept", tell(stored["value"]))
            return stored["value"]
        start = time.perf_counter()
        # Through JSON, so that a first run sees what a second would.
        text = json.dumps(make(*inputs), ensure_ascii=False)
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
    """What represents a value in a key, as JSON: its ``key`` if it has one, else a fingerprint of its content.

    Raises TypeError for a value that has neither, since nobody would notice that it changed.
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
    """{name: fingerprint} of the upper-case constants and default values that a function reads, itself or in its calls.

    Only calls to functions and classes of the helpers and of the function's own module are followed. Values without a
    fingerprint, such as paths, are left out.
    """
    values: dict[str, Any] = {}
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
        values[f"{part.__module__}: {part.__qualname__}"] = [
            *(part.__defaults__ or ()),
            *(part.__kwdefaults__ or {}).values(),
        ]
        for name, value in _names(part):
            if _is_ours(value, function):
                todo.append(value)
            elif name.lstrip("_").isupper():
                values[f"{part.__module__}: {name}"] = value.pattern if isinstance(value, re.Pattern) else value
    return {name: key for name, value in sorted(values.items()) if (key := _fingerprint_or_none(value))}


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
    """(name, value) of the globals that a function and the functions within it use.

    Attributes of the helpers' modules count as globals too.
    """
    codes, names = [function.__code__], set()
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [const for const in code.co_consts if isinstance(const, CodeType)]
    space = {n: function.__globals__[n] for n in sorted(names) if n in function.__globals__}
    modules = [m for m in space.values() if isinstance(m, ModuleType) and m.__name__.startswith("helpers")]
    return [*space.items(), *((n, getattr(m, n)) for m in modules for n in sorted(names) if hasattr(m, n))]
