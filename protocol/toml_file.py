"""Files of settings in TOML: typed, and every fault told with file, line and key, all of them together."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, get_args, get_origin

import msgspec

from protocol.rules import Section

#: No number of a file may be larger: a thousand million kudos, or thirty thousand years.
MAX_NUMBER = 10**12

#: What Python gives up on: a number of so many digits, brackets within brackets.
_ENDLESS = re.compile(r"[0-9_]{4300}|(?:[\[{][^\[{\]}]*){50}")

KeyPath = tuple[str, ...]
S = TypeVar("S", bound=Section)


class ConfigError(Exception):
    """A file that cannot be followed. faults: one sentence each, with file, line and key."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


def text_of(path: Path) -> str:
    """What stands in a file; raises `ConfigError`."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}:{line}: not UTF-8: save the file in that encoding"]) from error


def tables_of(text: str, path: Path) -> dict[str, Any]:
    """The tables of a file; raises `ConfigError` for what is not TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_broken_syntax(error, text, path)]) from error
    except (ValueError, RecursionError) as error:  # of what Python reads no further, and no file needs
        raise ConfigError([_endless(error, text, path)]) from error


class TableReader:
    """Turns the tables of a file into sections, and collects what is wrong with them. sections: every table that may
    stand there, with the type of its content; of `models`, that of each model."""

    def __init__(self, path: Path, text: str, sections: Mapping[str, type[Section]]) -> None:
        self.faults: list[tuple[int, str]] = []
        self._sections = sections
        self._path = path
        self._lines = dict(_lines_of_keys(text))

    def fault(self, key: KeyPath, text: str) -> None:
        """Note what is wrong with a key, at its line or, where it is not in the file, at that of its table."""
        line = next((self._lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in self._lines), 1)
        self.faults.append((line, f"{self._path}:{line}: {shown_key(key)}: {text}"))

    def faults_in_order(self) -> list[str]:
        """All faults by their line."""
        return [text for _, text in sorted(self.faults, key=lambda fault: fault[0])]

    def sections(self, tables: Mapping[str, object]) -> dict[str, object]:
        """Every table of the file by its name."""
        read: dict[str, object] = {}
        for name, found in tables.items():
            if name not in self._sections:
                meant = _meant(name, self._sections, self._sections)
                self.fault((name,), f"unknown table{meant}; known are {', '.join(self._sections)}")
            elif name == "models":
                models = found.items() if self.is_table(found, (name,)) else ()
                read[name] = {
                    model: self.section((name, model), facts, self._sections[name])
                    for model, facts in models
                    if self.is_name((name, model), 120)
                }
            else:
                read[name] = self.section((name,), found, self._sections[name])
        return read

    def section(self, path: KeyPath, found: object, of: type[S]) -> S:
        """A table as its type; defaults stand where it says nothing, or nothing that can be meant."""
        if not self.is_table(found, path):
            return of()
        fields = {field.name: field.type for field in msgspec.structs.fields(of)}
        values: dict[str, Any] = {}
        for name, value in found.items():
            key = (*path, name)
            if name not in fields:
                self.fault(key, f"unknown key{_meant(name, fields, self._sections)}; known are {', '.join(fields)}")
            elif get_origin(fields[name]) is dict:
                values[name] = self._by_name(key, value, *get_args(fields[name]))
            else:
                values[name] = self._value(key, value, fields[name])
        return of(**{name: value for name, value in values.items() if value is not msgspec.UNSET})

    def _by_name(self, path: KeyPath, found: object, name_of: Any, of: object) -> dict[str, object]:
        if not self.is_table(found, path):
            return {}
        longest = getattr(msgspec.inspect.type_info(name_of), "max_length", None) or 40
        values = {
            name: self._value((*path, name), value, of)
            for name, value in found.items()
            if self.is_name((*path, name), longest)
        }
        return {name: value for name, value in values.items() if value is not msgspec.UNSET}

    def _value(self, key: KeyPath, found: object, of: Any) -> Any:
        """The value, typed; `UNSET` after a fault."""
        try:
            read = msgspec.convert(found, of)
        except msgspec.ValidationError:
            self.fault(key, f"wanted {wanted(msgspec.inspect.type_info(of))}, found {shown(found)}")
            return msgspec.UNSET
        if any(number > MAX_NUMBER for number in _numbers(read)):
            self.fault(key, f"wanted numbers of at most {MAX_NUMBER}, found {shown(found)}")
            return msgspec.UNSET
        return read

    def is_name(self, key: KeyPath, longest: int) -> bool:
        """Whether the last part of the key will do as somebody's choice; notes it if not."""
        if 1 <= len(key[-1]) <= longest:
            return True
        self.fault(key, f"wanted a name of 1 to {longest} characters, found {len(key[-1])}")
        return False

    def is_table(self, found: object, key: KeyPath) -> TypeGuard[dict[str, object]]:
        """Whether there is a table; notes it if not."""
        if isinstance(found, dict):
            return True
        self.fault(key, f"wanted a table, found {shown(found)}")
        return False


def _meant(name: str, known: Iterable[str], sections: Mapping[str, type[Section]]) -> str:
    """What somebody probably wanted to write who wrote `name`, as a part of a sentence; else the table in which such a
    key stands, if there is one."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.7)
    if near:
        return f" (did you mean {near[0]}?)"
    tables = [table for table, of in sections.items() if name in of.__struct_fields__]
    return f" (did you mean {' or '.join(f'{table}.{name}' for table in tables)}?)" if tables else ""


def shown_key(key: KeyPath) -> str:
    """The key as people write it, names that need it in quotes."""
    return ".".join(part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else f'"{part[:60]}"' for part in key)


def wanted(of: msgspec.inspect.Type) -> str:
    """The type in words."""
    match of:
        case msgspec.inspect.IntType(ge=low, le=high):
            return f"an integer of {low} to {high}" if high is not None else f"an integer of at least {low}"
        case msgspec.inspect.StrType(pattern="^[0-9a-f]{64}$"):
            return "64 digits of hex"
        case msgspec.inspect.StrType(min_length=shortest, max_length=longest):
            return f"a text of {shortest or 0} to {longest} characters" if longest else "a text that is not empty"
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.LiteralType(values=values):
            return " or ".join(repr(value) for value in values)
        case msgspec.inspect.TupleType(item_types=items):
            return f"[{', '.join(wanted(item) for item in items)}]"
        case msgspec.inspect.VarTupleType(item_type=item, min_length=least, max_length=most):
            count = f"{least or 0} to {most} of" if most else "a list of"
            return f"{count} {wanted(item)}"
        case _:
            return type(of).__name__


def shown(found: object) -> str:
    """A value as the file has it, cut where it is long."""
    match found:
        case bool():
            return "true" if found else "false"
        case dict():
            return "a table"
        case int() | float() | str() | list() | tuple():
            text = json.dumps(found) if isinstance(found, tuple) else repr(found)
            return text if len(text) <= 80 else f"{text[:77]}..."
        case _:
            return f"a date or time ({found})"


def _numbers(value: object) -> Iterator[int]:
    if isinstance(value, tuple):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int):
        yield value


def _broken_syntax(error: tomllib.TOMLDecodeError, text: str, path: Path) -> str:
    said = str(error)
    place = re.search(r" \(at line (\d+), column (\d+)\)$", said)
    if place is None:
        return f"{path}:{text.count(chr(10)) + 1}: not TOML: {said}"
    return f"{path}:{place[1]}: not TOML: {said[: place.start()]}, column {place[2]}"


def _endless(error: Exception, text: str, path: Path) -> str:
    line = next((number for number, line in enumerate(text.split("\n"), 1) if _ENDLESS.search(line)), 1)
    if isinstance(error, RecursionError):
        return f"{path}:{line}: wanted a list of lists at most, found brackets too deep within each other to be read"
    return f"{path}:{line}: wanted numbers of at most {MAX_NUMBER}, found one of thousands of digits"


def _lines_of_keys(text: str) -> Iterator[tuple[KeyPath, int]]:
    """Each table and key of a text that is known to be TOML, with the line on which it begins."""
    table: KeyPath = ()
    for number, line in enumerate(text.split("\n"), 1):  # as TOML counts them
        start = line.strip()
        if start.startswith("["):
            table = _key_in(start) or table
            yield table, number
        elif "=" in start:
            for end in (match.start() for match in re.finditer("=", start)):
                key = _key_in(f"{start[:end]}= 0")
                if key:
                    yield (*table, *key), number
                    break


def _key_in(line: str) -> KeyPath:
    """The key that a line of TOML sets, by TOML's own reading of it; empty if it sets none."""
    try:
        tables: object = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return ()
    key: KeyPath = ()
    while isinstance(tables, dict) and tables:
        [(name, tables)] = tables.items()
        key = (*key, name)
    return key
