"""The word lists of a horde: those that ship with Potluck, and the operator's own, in `filter` beside `horde.toml`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from protocol.filter.wordlist import BadWordList, WordList, parse, shipped
from protocol.rules import Rules
from tracker.config import ConfigError

FOLDER = "filter"
#: So many files of an operator are read: the digests of all travel with the rules.
MAX_FILES = 64


def lists_of(folder: Path) -> Sequence[WordList]:
    """All lists of the horde in `folder`; raises `ConfigError` with every fault that its own ones have."""
    faults: list[str] = []
    own: list[WordList] = []
    taken = {one.name for one in shipped()}
    files = sorted((folder / FOLDER).glob("*.txt"))
    if len(files) > MAX_FILES:
        faults.append(f"{folder / FOLDER}: {len(files)} lists: wanted at most {MAX_FILES}; put some together")
    for file in files[:MAX_FILES]:
        try:
            one = parse(file.read_bytes(), file.name)
        except BadWordList as error:
            faults.append(f"{file.parent / str(error)}")
        except OSError as error:
            faults.append(f"{file}: cannot be read: {error.strerror}")
        else:
            own.append(one)
            if one.name in taken:
                faults.append(f"{file}: a list of this name comes with Potluck and stays in force: name it otherwise")
    if faults:
        raise ConfigError(faults)
    return (*shipped(), *own)


def naming(rules: Rules, lists: Sequence[WordList]) -> Rules:
    """The rules, with the digests of the lists in force."""
    digests = {one.name: one.digest.hex() for one in lists}
    return msgspec.structs.replace(rules, filter=msgspec.structs.replace(rules.filter, lists=digests))
