"""What a worker serves and for whom: its owner's own limits, from `peer.toml` in the peer's folder.

What the tracker can apply travels in the announce, so that such jobs do not come at all. The worker looks at all of it
again, and at what only it can see. Of jobs of the worker's own account only what is made here is a limit.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.documents import Asker, Lease, is_among
from protocol.filter.doors import words_of
from protocol.filter.verdict import Filter
from protocol.filter.wordlist import LEAST_OPEN, BadWordList, parse
from protocol.messages import MAX_NAMED, Announce, Offer, ServiceName
from protocol.rules import Natural, Section
from protocol.toml_file import ConfigError, TableReader, tables_of, text_of
from protocol.work import PSEUDONYM_BYTES, ModelName, PrivatePart

FILE_NAME = "peer.toml"
_NUMBERED = re.compile(r".*#[1-9][0-9]*", re.DOTALL)
#: Words of one file.
MAX_WORDS = 1_000

Topic = Literal["adult", "violence", "people", "hate", "other"]
Shown = Annotated[str, Meta(min_length=26, max_length=26)]
Word = Annotated[str, Meta(min_length=2, max_length=100)]


class WorkTable(Section, frozen=True, kw_only=True):
    """What is made here.

    serve: names of models, of those that the worker has; none for all of them. max_pixels, max_steps: the largest
    picture. max_tokens, max_context: the largest text. 0 for what the engine can do.
    """

    serve: Annotated[tuple[ModelName, ...], Meta(max_length=256)] = ()
    max_pixels: Natural = 0
    max_steps: Natural = 0
    max_tokens: Natural = 0
    max_context: Natural = 0


class PeopleTable(Section, frozen=True, kw_only=True):
    """Who is served.

    anonymous: people without an account. services: accounts that ask for users of their own; not_services: but for
    these, by the name that they show. min_give_back: accounts of this class and above (0 all, 1 who has given
    something, 2 who gives half of what it takes, 3 who gives as much); with 1 to 3 no anonymous people. min_free_rate:
    jobs that their requester cannot pay in full only while so many thousandths of the rest are paid by the horde.
    not_accounts: accounts that are not served, friends: accounts that go before others; both by the pseudonyms by which
    this worker knows them.
    """

    anonymous: bool = True
    services: bool = True
    not_services: Annotated[tuple[ServiceName, ...], Meta(max_length=MAX_NAMED)] = ()
    min_give_back: Annotated[int, Meta(ge=0, le=3)] = 0
    min_free_rate: Annotated[int, Meta(ge=0, le=1000)] = 0
    not_accounts: Annotated[tuple[Shown, ...], Meta(max_length=MAX_NAMED)] = ()
    friends: Annotated[tuple[Shown, ...], Meta(max_length=MAX_NAMED)] = ()


class ContentTable(Section, frozen=True, kw_only=True):
    """What is not made here, beyond what the horde refuses.

    decline: topics of the prompt filter. words: terms that no prompt may have, read as the prompt filter reads them; a
    `*` at the end stands for however the word goes on.
    """

    decline: Annotated[tuple[Topic, ...], Meta(max_length=5)] = ()
    words: Annotated[tuple[Word, ...], Meta(max_length=MAX_WORDS)] = ()


TABLES: dict[str, type[Section]] = {"work": WorkTable, "people": PeopleTable, "content": ContentTable}


_WORK, _PEOPLE, _CONTENT = WorkTable(), PeopleTable(), ContentTable()


@dataclass(frozen=True)
class Limits:
    """All limits of one worker. paused: it serves its own account alone."""

    work: WorkTable = _WORK
    people: PeopleTable = _PEOPLE
    content: ContentTable = _CONTENT
    paused: bool = False

    # What the tracker applies

    def narrowed(self, offers: Iterable[Offer]) -> list[Offer]:
        """What of an engine's offers is served."""
        work = self.work
        return [
            msgspec.structs.replace(
                offer,
                max_pixels=_least(offer.max_pixels, work.max_pixels),
                max_steps=_least(offer.max_steps, work.max_steps),
                max_tokens=_least(offer.max_tokens, work.max_tokens),
                max_context=_least(offer.max_context, work.max_context),
            )
            for offer in offers
            if not work.serve or offer.model in work.serve
        ]

    def announce(self, offers: Iterable[Offer], *, slots: int, ahead: int) -> Announce:
        """What the tracker is told. offers: all that the engines can make."""
        people = self.people
        return Announce(
            offers=tuple(self.narrowed(offers)),
            slots=slots,
            ahead=ahead,
            anonymous=people.anonymous,
            min_free_rate=people.min_free_rate,
            paused=self.paused,
            declines=self.content.decline,
            services=people.services,
            not_services=people.not_services,
            min_give_back=people.min_give_back,
            not_accounts=tuple(map(read_pseudonym, people.not_accounts)),
            friends=tuple(map(read_pseudonym, people.friends)),
        )

    # What the worker looks at

    def why_not(self, lease: Lease) -> str:
        """Why this worker does not serve such a lease; nothing if it does."""
        asker, people = lease.asker, self.people
        if asker.own:
            return ""
        if self.paused:
            return "this worker is paused for all but its own account"
        if asker.anonymous and not people.anonymous:
            return "this worker does not serve people without an account"
        if asker.service and (not people.services or is_among(asker.service, people.not_services)):
            return f"this worker does not serve {'this service' if people.services else 'services'}"
        if asker.give_back < people.min_give_back:
            return f"this worker serves people of give-back class {people.min_give_back} and above"
        if asker.pseudonym and show_pseudonym(asker.pseudonym) in people.not_accounts:
            return "this worker does not serve this account"
        if found := sorted({*lease.labels, *lease.public.flags}.intersection(self.content.decline)):
            return f"this worker does not make what the prompt filter calls {found[0]!r}"
        return ""

    def has_unwanted_words(self, private: PrivatePart, prefix: str) -> bool:
        """Whether the owner does not want to serve these words."""
        return bool(self.content.words) and bool(self._filter.judge(words_of(private, prefix)).refused)

    def is_friend(self, asker: Asker) -> bool:
        """Whether this account goes before others."""
        return bool(asker.pseudonym) and show_pseudonym(asker.pseudonym) in self.people.friends

    @cached_property
    def _filter(self) -> Filter:
        return Filter([parse(_as_list(self.content.words), FILE_NAME)], {"other": "refuse"})


UNLIMITED = Limits()


def load(path: Path) -> Limits:
    """The limits in this file, those that ask for nothing if there is none; raises `ConfigError` with every fault."""
    if not path.exists():
        return Limits()
    return parse_limits(text_of(path), path)


def parse_limits(text: str, path: Path) -> Limits:
    """The limits in `text`, which stands in `path`; raises `ConfigError`."""
    reader = TableReader(path, text, TABLES)
    found = reader.sections(tables_of(text, path))
    limits = Limits(**found)  # type: ignore[arg-type]  # each table by its name, of its type
    for name in ("not_accounts", "friends"):
        for shown in getattr(limits.people, name):
            if not _is_pseudonym(shown):
                reader.fault(("people", name), f"wanted pseudonyms as `potluck worker` shows them, found {shown!r}")
    for name in limits.people.not_services:
        if not _NUMBERED.fullmatch(name):
            text = f"wanted names as `potluck worker` shows them (Ada#107), found {name!r}"
            reader.fault(("people", "not_services"), text)
    for number, word in enumerate(limits.content.words):
        if fault := _fault_of(word):
            reader.fault(("content", "words"), f"word {number + 1}, {word!r}: {fault}")
    if reader.faults:
        raise ConfigError(reader.faults_in_order())
    return limits


def show_pseudonym(pseudonym: bytes) -> str:
    """By what a worker knows an account, as people see it: 26 characters of lower-case base32."""
    return base64.b32encode(pseudonym).decode("ascii").rstrip("=").lower()


def read_pseudonym(shown: str) -> bytes:
    """The pseudonym that `show_pseudonym` printed; raises `ValueError`."""
    try:
        found = base64.b32decode(f"{shown.upper()}======")
    except binascii.Error as error:
        raise ValueError(f"{shown!r} is no pseudonym") from error
    if show_pseudonym(found) != shown or len(found) != PSEUDONYM_BYTES:
        raise ValueError(f"{shown!r} is no pseudonym")
    return found


def shown_asker(asker: Asker) -> str:
    """Who asks, as far as a worker knows it."""
    if asker.own:
        return "asked by your own account"
    if asker.anonymous:
        return "asked by somebody without an account"
    service = f", the service {asker.service}" if asker.service else ""
    return f"asked by {show_pseudonym(asker.pseudonym)}{service}, give-back class {asker.give_back}"


def as_json(limits: Limits) -> Mapping[str, object]:
    """The limits for scripts, table by table."""
    tables: Sequence[str] = tuple(TABLES)
    return {"paused": limits.paused, **{name: msgspec.to_builtins(getattr(limits, name)) for name in tables}}


def limits_lines(limits: Limits) -> list[str]:
    """The limits for people: everything that is not as it comes."""
    lines = ["paused      serves your own account alone"] if limits.paused else []
    for name, of in TABLES.items():
        table = getattr(limits, name)
        for key in of.__struct_fields__:
            if (value := getattr(table, key)) != getattr(of(), key):
                shown = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()
                lines.append(f"{name}.{key} = {shown}")
    return lines or ["no limits: everything that the engines can make is served, for everybody"]


def _least(one: int, bound: int) -> int:
    return min(one, bound) if bound else one


def _as_list(words: Iterable[str]) -> bytes:
    """A word list in which each word alone is enough."""
    return "\n".join(["category: other", "language: en", *(f"3 {word}" for word in words)]).encode()


def _fault_of(word: str) -> str:
    """Why the prompt filter cannot look for this word."""
    if "#" in word or "{" in word or "\n" in word:
        return "wanted words without #, braces and line ends"
    try:
        terms = parse(_as_list([word]), FILE_NAME).terms
    except BadWordList as error:
        return str(error).partition(": ")[2]
    return "" if terms else f"wanted at least {LEAST_OPEN} letters"


def _is_pseudonym(shown: str) -> bool:
    try:
        read_pseudonym(shown)
    except ValueError:
        return False
    return True
