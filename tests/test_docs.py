"""What programs and people can meet is documented: refusals, messages, fields, rules, commands. And nothing else is.

The standard is read as a machine can read it: a kind has a heading of its own, with one row for each field.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import click
import msgspec
import pytest

from protocol import frames, messages
from protocol.documents import Document, Evidence, Leaf
from protocol.envelope import Challenge
from protocol.errors import REFUSALS
from protocol.kinds import DOCUMENTS
from protocol.rules import Rules
from protocol.work import ImagePrivate, ImageWork, PublicPart, TextPrivate, TextWork
from tests.protocol import make_vectors
from tracker.fitting import Reason

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
STANDARD = (DOCS / "protocol.md").read_text("utf-8")

SESSION_MESSAGES: dict[str, type[messages.SessionMessage]] = {**messages.FROM_PEER, **messages.FROM_TRACKER}
KINDS: dict[str, type[messages.SessionMessage] | type[Document]] = {**SESSION_MESSAGES, **DOCUMENTS}


def sections(text: str) -> dict[str, str]:
    """Text by heading, whatever the level: from a heading to the next one; lines of code blocks are no headings."""
    found: dict[str, str] = {}
    title = ""
    in_code = False
    for line in text.splitlines():
        in_code ^= line.strip().startswith("```")
        heading = re.match(r"#+ (.*)", line)
        if heading and not in_code:
            title = heading[1]
            assert title not in found, f"two headings {title!r}"
        found[title] = found.get(title, "") + line + "\n"
    return found


def tables(text: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Each table in the text: its head and its rows, cell by cell."""
    for block in re.findall(r"(?:^ *\|.*\n)+", text, re.MULTILINE):
        head, _, *rows = [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]] for line in block.splitlines()
        ]
        yield head, rows


def named(text: str, column: str) -> list[str]:
    """What the rows of all tables whose first column has this title name there, in backticks."""
    return [
        name
        for head, rows in tables(text)
        if head[0] == column
        for row in rows
        for name in re.findall(r"`([^`]+)`", row[0])
    ]


def structs_in(of: Any) -> list[type[msgspec.Struct]]:
    """The structs within a type of a field."""
    if isinstance(of, type) and issubclass(of, msgspec.Struct):
        return [of]
    return [found for part in get_args(of) for found in structs_in(part)]


def fields_of(of: type[msgspec.Struct], apart: Sequence[type] = ()) -> list[str]:
    """Field names of a struct and of the structs in it, except of those that are described apart."""
    names: list[str] = []
    for field in msgspec.structs.fields(of):
        names.append(field.encode_name)
        for inner in structs_in(field.type):
            names += [] if inner in apart else fields_of(inner, apart)
    return names


def undocumented(text: str, kinds: dict[str, Any]) -> list[str]:
    """Kinds without a section of their own, and fields without a row in it."""
    parts = sections(text)
    missing = []
    for kind, of in kinds.items():
        part = parts.get(f"`{kind}`")
        if part is None:
            missing.append(kind)
            continue
        rows = named(part, "field") + named(part, "element")
        missing += [f"{kind}.{name}" for name in fields_of(of, [PublicPart]) if name not in rows]
    return missing


def of_no_use(text: str, kinds: dict[str, Any]) -> list[str]:
    """Rows for fields that no kind of that name has."""
    parts = sections(text)
    return [
        f"{kind}.{name}"
        for kind, of in kinds.items()
        for name in named(parts.get(f"`{kind}`", ""), "field")
        if name not in fields_of(of, [PublicPart])
    ]


# The standard


def test_every_message_and_document_and_every_field_of_them_is_in_the_standard() -> None:
    assert undocumented(STANDARD, KINDS) == []


def test_the_standard_has_no_kind_and_no_field_that_does_not_exist() -> None:
    kinds = {title.strip("`") for title in sections(STANDARD) if re.fullmatch(r"`\w+`", title)}

    assert kinds == set(KINDS)
    assert of_no_use(STANDARD, KINDS) == []


class Invented(msgspec.Struct):
    novelty: int


def test_an_invented_kind_and_an_invented_field_are_found() -> None:
    assert undocumented(STANDARD, {"invented": Invented}) == ["invented"]
    assert undocumented(STANDARD, {"position": Invented}) == ["position.novelty"]
    assert of_no_use(STANDARD, {"ask_delegations": Invented, "position": Invented}) == [
        "position.job",
        "position.ahead",
        "position.workers",
        "position.wait",
    ]


@pytest.mark.parametrize(
    ("title", "structs"),
    [
        ("6. The conversation", [Challenge]),
        ("Public part", [PublicPart, ImageWork, TextWork]),
        ("Private part", [ImagePrivate, TextPrivate]),
        ("14. The ledger", [Leaf, Evidence]),
    ],
)
def test_what_is_no_message_has_its_fields_in_its_section(title: str, structs: list[type[msgspec.Struct]]) -> None:
    rows = set(named(sections(STANDARD)[title], "field"))
    fields = {name for of in structs for name in fields_of(of, [ImageWork, TextWork])}
    tags = {of.__struct_config__.tag_field for of in structs} - {None}
    within = {"role", "content"}  # of a chat message, in the row of `messages`

    assert (fields | tags) - within == rows
    assert all(f"`{name}`" in sections(STANDARD)[title] for name in fields & within)


def test_a_field_is_said_to_have_a_default_exactly_if_it_has_one() -> None:
    parts = sections(STANDARD)
    wrong = []
    for kind, of in KINDS.items():
        optional = {name: not required for name, required in requirements(of)}
        for head, rows in tables(parts[f"`{kind}`"]):
            if head[0] == "field" and "default" in head:
                wrong += [
                    f"{kind}.{row[0]}"
                    for row in rows
                    if bool(row[head.index("default")]) != optional[row[0].strip("`")]
                ]

    assert wrong == []


def requirements(of: type[msgspec.Struct]) -> Iterator[tuple[str, bool]]:
    for field in msgspec.structs.fields(of):
        yield field.encode_name, field.required
        for inner in structs_in(field.type):
            if inner is not PublicPart:
                yield from requirements(inner)


def size(text: str) -> int:
    number, unit = re.fullmatch(r"([\d,]+)( KiB)?(?: bytes)?", text).groups()  # type: ignore[union-attr]
    return int(number.replace(",", "")) * (1024 if unit else 1)


def test_size_caps_are_those_of_the_code() -> None:
    parts = sections(STANDARD)
    said = {
        kind: size(cap[1])
        for kind in SESSION_MESSAGES
        if (cap := re.search(r"Cap ([\d,]+(?: KiB| bytes))", parts[f"`{kind}`"]))
    }
    for head, rows in tables(parts["8. Documents"]):
        said |= {row[0].strip("`"): size(row[head.index("cap, bytes")]) for row in rows}

    assert said == {kind: of.MAX_BYTES for kind, of in KINDS.items()}


def test_who_may_send_which_document_is_that_of_the_code() -> None:
    [(head, rows)] = tables(sections(STANDARD)["8. Documents"])
    to, back = head.index("to the tracker"), head.index("from the tracker")

    assert {row[0].strip("`") for row in rows if row[to] == "yes"} == messages.DOCUMENTS_FROM_PEER
    handed = {row[0].strip("`") for row in rows if row[back] and "challenge" not in row[back]}
    assert handed == messages.DOCUMENTS_FROM_TRACKER


def refusals_in(text: str) -> list[str]:
    parts = sections(text)
    return [name for title in REFUSAL_SECTIONS for name in named(parts[title], "code")]


REFUSAL_SECTIONS = (
    "Form",
    "Who says it",
    "The conversation",
    "Documents",
    "Requests",
    "Accounts",
    "The direct stream",
    "Paths",
)


def test_every_refusal_code_is_in_the_standard_once_and_no_other() -> None:
    assert sorted(refusals_in(STANDARD)) == sorted(REFUSALS)


def test_an_invented_and_a_missing_code_are_found() -> None:
    more = STANDARD.replace("| `late` |", "| `invented` |")

    assert set(refusals_in(more)) ^ set(REFUSALS) == {"invented", "late"}


FRAMES: dict[str, Any] = {
    str(of.__struct_config__.tag): of
    for of in (
        frames.Text,
        frames.Start,
        frames.Chunk,
        frames.Final,
        frames.Progressed,
        frames.Preview,
        frames.Failed,
        frames.Alive,
    )
}


def test_every_frame_and_its_elements_are_in_the_standard() -> None:
    [(_, rows)] = tables(sections(STANDARD)["Frames"])
    said = {row[0].strip("`"): re.findall(r"`(\w+)`", row[1]) for row in rows}
    numbered = {row[0].strip("`") for row in rows if row[2] == "yes"}

    assert said == {kind: list(of.__struct_fields__) for kind, of in FRAMES.items()}
    assert numbered == {kind for kind, of in FRAMES.items() if "number" in of.__struct_fields__}


def test_an_openings_elements_are_in_the_standard() -> None:
    elements = named(sections(STANDARD)["Opening"], "element")

    assert elements == list(frames.OpenBody.__struct_fields__)


def test_examples_in_hex_come_from_the_vectors() -> None:
    vectors = "".join((make_vectors.FOLDER / name).read_text("ascii") for name in make_vectors.FILES)
    blocks = re.findall(r"```hex\n(.*?)```", STANDARD, re.DOTALL)
    assert len(blocks) >= 5

    for block in blocks:
        lines = [re.sub(r"\s|#.*", "", line) for line in block.splitlines()]
        whole = "".join(lines)
        assert re.fullmatch(r"(?:[0-9a-f]{2})+", whole)
        assert f'"{whole}"' in vectors or all(f'"{line}"' in vectors for line in lines), block


def test_every_file_of_vectors_is_described_and_no_other() -> None:
    assert sorted(named(sections(STANDARD)["18. Vectors"], "file")) == sorted(make_vectors.FILES)


# Rules


def keys_of_rules() -> list[str]:
    """Every `section.key` that an operator can write."""
    keys = []
    for section in msgspec.structs.fields(Rules):
        [of] = structs_in(section.type)
        keys += [f"{section.encode_name}.{field.encode_name}" for field in msgspec.structs.fields(of)]
    return keys


def test_every_rule_is_documented() -> None:
    said = set(named((DOCS / "rules.md").read_text("utf-8"), "key"))

    assert "prices.tax" in keys_of_rules()
    assert set(keys_of_rules()) - said == set()


def unknown_rules(text: str) -> list[str]:
    """Names in backticks that look like a rule and are none."""
    tables_of_rules = {section.encode_name for section in msgspec.structs.fields(Rules)}
    named_here = re.findall(r"`([a-z]+)\.([a-z_]+)`", text)
    said = {f"{table}.{key}" for table, key in named_here if table in tables_of_rules and key not in ("json", "md")}
    return sorted(said - set(keys_of_rules()))


def test_every_rule_that_the_standard_names_exists() -> None:
    assert unknown_rules(STANDARD) == []
    assert unknown_rules("`times.accept`, `times.lunch`") == ["times.lunch"]


# Commands


COMMANDS = {"potluck": "peer.__main__", "potluck-tracker": "tracker.__main__"}


def commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """A command and all those below it, each by what people type."""
    yield name, command
    if isinstance(command, click.Group):
        for below, inner in command.commands.items():
            yield from commands(f"{name} {below}", inner)


def missing_words(name: str, command: click.Command, text: str) -> list[str]:
    """Commands that no section names, and options that no section names in which their command is named."""
    parts = re.split(r"^#+ ", text, flags=re.MULTILINE)
    missing = []
    for typed, inner in commands(name, command):
        about = [part for part in parts if has_word(part, typed)]
        if not about:
            missing.append(typed)
        for parameter in inner.params:
            hidden = isinstance(parameter, click.Option) and parameter.hidden
            words = [] if hidden else [word for word in parameter.opts if word.startswith("--")]
            missing += [f"{typed} {word}" for word in words if not any(has_word(part, word) for part in about)]
    return missing


def has_word(text: str, word: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None


def all_pages() -> str:
    return "\n".join(page.read_text("utf-8") for page in sorted(DOCS.glob("*.md")))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(name: str) -> None:
    module = importlib.import_module(COMMANDS[name])
    groups = [value for value in vars(module).values() if isinstance(value, click.Group)]
    [group] = [one for one in groups if not any(one in other.commands.values() for other in groups)]

    assert missing_words(name, group, all_pages()) == []


def test_an_undocumented_command_and_an_undocumented_option_are_found() -> None:
    @click.group()
    def main() -> None:
        """Something."""

    @main.command()
    @click.option("--loud")
    @click.option("--quiet")
    @click.option("--secret", hidden=True)
    def sing(loud: str, quiet: str, secret: str) -> None:
        """Something else."""

    assert missing_words("tool", main, "`tool` takes --quiet") == ["tool sing", "tool sing --loud", "tool sing --quiet"]
    assert missing_words("tool", main, "# tool sing\n--quiet --louder\n# Other\n--loud") == ["tool sing --loud"]
    assert missing_words("tool", main, "`tool sing --quiet --loud`") == []


def test_every_reason_against_a_pair_is_documented() -> None:
    page = (DOCS / "protocol.md").read_text("utf-8")

    assert [reason for reason in Reason if f"`{reason}`" not in page] == []


# Promises and their tests

TESTS = Path(__file__).parent
#: Topics whose tests are not over sockets, with where they are. Years of a horde's life are told by a virtual clock.
ELSEWHERE = {"Simulation": "simulate"}


def known_tests(folder: Path) -> set[str]:
    return {name for path in folder.rglob("*.py") for name in re.findall(r"def (test_\w+)\(", path.read_text("utf-8"))}


def promises(text: str) -> Iterator[tuple[str, str, str]]:
    """Topic, promise, and the cell that names its tests."""
    for topic, part in sections(text).items():
        for head, rows in tables(part):
            assert head == ["promise", "tests"]
            for promise, cell in rows:
                yield topic, promise, cell


def without_tests(text: str) -> list[str]:
    """Promises that name a test that does not exist, or none where their topic's tests have to be."""
    found = []
    for topic, promise, cell in promises(text):
        here, _, in_memory = cell.partition("in memory")
        wanted = known_tests(TESTS / ELSEWHERE.get(topic, "together"))
        named_here, named_all = (set(re.findall(r"`(test_\w+)`", part)) for part in (here, cell))
        if named_here - wanted or named_all - known_tests(TESTS) or not (named_here or in_memory):
            found.append(promise)
    return found


def test_every_promise_names_tests_that_exist_over_real_sockets() -> None:
    text = (DOCS / "tests.md").read_text("utf-8")

    assert without_tests(text) == []
    kept = {topic for topic, _, cell in promises(text) if re.search(r"`test_\w+`", cell.partition("in memory")[0])}
    assert kept >= {
        "Accounts",
        "Delegations",
        "Prices and tax",
        "Earning",
        "Free for all",
        "Transfers",
        "No door for money",
        "The red line",
    }


def test_a_promise_without_a_test_is_found() -> None:
    rows = {
        "one": "`test_that_pigs_fly`",
        "two": "",
        "three": "in memory `test_that_pigs_fly`",
        "four": "`test_every_rule_is_documented`",
        "five": "in memory `test_every_rule_is_documented`",
        "six": "`test_leaving_on_the_command_line_asks_first`; in memory `test_every_rule_is_documented`",
    }
    text = "\n".join(f"| {promise} | {cell} |" for promise, cell in rows.items())

    assert without_tests(f"## Accounts\n\n| promise | tests |\n|---|---|\n{text}\n") == ["one", "two", "three", "four"]


# Pages


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text("utf-8"))
    dead = [
        f"{file}#{anchor}"
        for file, anchor in links
        if not (target := page.parent / file if file else page).exists()
        or (anchor and anchor not in anchors(target.read_text("utf-8")))
    ]

    assert dead == []


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_glossary_is_in_order_and_has_each_word_once() -> None:
    [(_, rows)] = tables((DOCS / "glossary.md").read_text("utf-8"))
    words = [row[0] for row in rows]

    assert words == sorted(set(words))
    assert all(row[1] for row in rows)


def test_decisions_are_numbered_listed_and_one_page_each() -> None:
    pages = sorted(page for page in (DOCS / "decisions").glob("*.md") if page.name != "README.md")
    index = (DOCS / "decisions" / "README.md").read_text("utf-8")

    assert [page.name[:4] for page in pages] == [f"{number:04}" for number in range(1, len(pages) + 1)]
    for page in pages:
        text = page.read_text("utf-8")
        title = text.splitlines()[0].removeprefix("# ")
        assert title.startswith(page.name[:4])
        assert f"[{page.name[:4]}]({page.name}) | {title[5:]} |" in index
        assert [heading for heading in sections(text) if heading][1:] == ["Context", "Choice", "Price"]
        assert len(text.splitlines()) <= 60
