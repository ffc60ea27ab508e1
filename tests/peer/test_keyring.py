"""Keys in a peer's folder: one in place at every moment, and none ever lost."""

from pathlib import Path

import pytest

from peer.events import Refused
from peer.home import Home, HomeError
from peer.keyring import adopt, delegated_account, kept_key, mark_delegate, next_key, read_key, set_aside, take_next
from protocol.keys import show_key
from tests.support.builders import ROOT, a_key


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_a_key_that_is_set_aside_stays_until_another_takes_its_place(home: Home) -> None:
    former, following = home.key(), next_key(home)
    aside = set_aside(home)
    assert home.key() == former, "whoever looked now would make a new one if there was none"
    assert take_next(home) == aside, "as after a crash: the same again"
    assert (home.key(), read_key(aside)) == (following, former)


def test_a_file_that_holds_another_key_is_not_taken_for_the_copy(home: Home) -> None:
    former = home.key()
    other = Home(home.folder.parent / "other")
    other.key()
    other.key_file.replace(home.folder / f"key.{show_key(former.public)[:8]}")
    with pytest.raises(HomeError, match="another key"):
        adopt(home, a_key(1), force=True)
    assert home.key() == former


def test_a_key_from_elsewhere_takes_the_place_of_one_that_is_set_aside(home: Home) -> None:
    assert adopt(home, a_key(1)) is None
    with pytest.raises(HomeError, match="--force"):
        adopt(home, a_key(2))
    assert adopt(home, a_key(1), force=True) is None, "it is there already"
    aside = adopt(home, a_key(2), force=True)
    assert aside is not None
    assert (home.key(), read_key(aside)) == (a_key(2), a_key(1))


def test_whose_delegate_a_key_is_does_not_hold_for_the_next_one(home: Home) -> None:
    home.key()
    mark_delegate(home, ROOT.public, 7)
    adopt(home, home.key(), force=True)
    assert delegated_account(home, ROOT.public) == 7
    adopt(home, a_key(1), force=True)
    assert delegated_account(home, ROOT.public) == 0


def test_a_key_that_the_horde_refuses_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "friends.key"
    with pytest.raises(Refused), kept_key(path, a_key(1)):
        raise Refused("not_allowed", "a rule forbids it")
    assert not path.exists()
    with pytest.raises(OSError, match="gone"), kept_key(path, a_key(1)):  # who knows whether it was taken
        raise OSError("gone")
    assert read_key(path) == a_key(1)


def test_no_key_comes_from_elsewhere_while_a_rotation_is_under_way(home: Home) -> None:
    former = home.key()
    next_key(home)
    with pytest.raises(HomeError, match="rotation is under way"):
        adopt(home, a_key(1), force=True)
    assert home.key() == former
