"""The folder of a peer: key, hordes, rules, and who may use it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from peer.home import DEFAULT_NAME, Home, HomeBusy, HomeError, Hordes, UnknownHorde, write_file
from tests.support.builders import ROOT, a_key, a_link, a_rules_document, signed


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_a_key_is_made_once_and_readable_to_its_owner_only(home: Home) -> None:
    key = home.key()

    assert home.key() == key
    if os.name == "posix":
        assert home.key_file.stat().st_mode & 0o777 == 0o600


def test_looking_at_a_home_makes_no_folder(home: Home) -> None:
    assert home.hordes() == Hordes()
    assert home.rules(ROOT.public) is None
    assert home.delegation(ROOT.public) == 0

    assert not home.folder.exists()


def test_a_key_file_that_is_no_key_is_told_of(home: Home) -> None:
    home.folder.mkdir()
    home.key_file.write_text("nonsense")
    home.key_file.chmod(0o600)

    with pytest.raises(HomeError, match="restore it from a copy"):
        home.key()


def test_the_first_horde_is_the_default_and_another_one_only_if_told_so(home: Home) -> None:
    first, second = a_link(name="First Horde"), a_link(name="Second", root=a_key(30))

    assert home.join(first) == "first-horde"
    assert home.join(second) == "second"

    assert home.link() == first
    assert home.link("second") == second
    home.join(second, default=True)
    assert home.link() == second


def test_joining_again_replaces_the_link_and_keeps_the_name(home: Home) -> None:
    home.join(a_link(), "mine")

    assert home.join(a_link("wss://example.org")) == "mine"
    assert home.link().url == "wss://example.org"
    assert list(home.hordes().links) == ["mine"]


def test_two_hordes_of_one_name_get_two_names(home: Home) -> None:
    names = [home.join(a_link(name="same", root=a_key(number))) for number in range(3)]

    assert names == ["same", "same-2", "same-3"]


@pytest.mark.parametrize("called", ["", "  ", "/../", "\x1b[31m"])
def test_a_name_that_is_none_is_replaced(home: Home, called: str) -> None:
    name = home.join(a_link(name=called))

    assert name.isprintable()
    assert "/" not in name
    assert home.link(name).root == ROOT.public


def test_without_a_horde_the_command_is_named_that_joins_one(home: Home) -> None:
    with pytest.raises(UnknownHorde, match="potluck join"):
        home.link()
    home.join(a_link(), DEFAULT_NAME)
    with pytest.raises(UnknownHorde, match=DEFAULT_NAME):
        home.link("another")


@pytest.mark.parametrize("content", ["", "[]", '{"links": {"a": 1}}', "{"])
def test_a_list_of_hordes_that_is_none_is_told_of(home: Home, content: str) -> None:
    write_file(home.folder / "hordes.json", content.encode())

    with pytest.raises(HomeError, match=r"hordes\.json"):
        home.hordes()


def test_a_link_that_somebody_broke_is_told_of(home: Home) -> None:
    write_file(home.folder / "hordes.json", b'{"default": "a", "links": {"a": "potluck:?tr=ws://x"}}')

    with pytest.raises(HomeError, match="a: "):
        home.link()


def test_rules_are_kept_for_their_horde_alone(home: Home) -> None:
    rules = signed(a_rules_document())
    home.keep_rules(ROOT.public, rules)

    assert home.rules(ROOT.public) == rules
    assert home.rules(a_key(9).public) is None
    home.keep_rules(a_key(9).public, rules)
    assert home.rules(a_key(9).public) is None


def test_rules_that_were_changed_on_disk_are_not_used(home: Home) -> None:
    home.keep_rules(ROOT.public, signed(a_rules_document()))
    [path] = (home.folder / "rules").iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"x")

    assert home.rules(ROOT.public) is None


def test_the_highest_delegation_is_remembered(home: Home) -> None:
    home.keep_delegation(ROOT.public, 3)
    home.keep_delegation(ROOT.public, 2)

    assert home.delegation(ROOT.public) == 3
    assert home.rules(ROOT.public) is None


def test_one_worker_at_a_time_uses_a_home(home: Home) -> None:
    with home.worker_lock(), pytest.raises(HomeBusy, match="--home"), home.worker_lock():
        pass
    with home.worker_lock():
        pass


def test_a_worker_of_another_process_is_seen_and_its_lock_ends_with_it(home: Home) -> None:
    script = (
        "import sys; from pathlib import Path; from peer.home import Home\n"
        "with Home(Path(sys.argv[1])).worker_lock():\n    print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(home.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == b"locked"
        with pytest.raises(HomeBusy), home.worker_lock():
            pass
        other.kill()
        other.wait()
    with home.worker_lock():
        pass


def test_a_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"

    write_file(path, b"one")
    write_file(path, b"two")

    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]
