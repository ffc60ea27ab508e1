"""What a program of others imports: one place for the common case, and two clients that take the same."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Unpack, get_args, get_origin, get_type_hints

import pytest

import peer
from peer import events
from peer.client import Client
from peer.results import AnswerOptions, ImageOptions, PictureOptions, TextOptions
from peer.sync import Horde
from tests.support.builders import a_link

#: What of a client is about documents, evidence, the connection or other tasks is for those who write coroutines.
ASYNC_ONLY = {
    *("delegations", "present", "hand_over", "now", "saved", "serving", "rules_document"),
    *("ready", "has_ended", "enough"),
}


def parameters(of: Callable[..., object]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(of).parameters)


def test_every_public_name_is_there_and_known_to_the_type_checker_under_the_same_name() -> None:
    for name in peer.__all__:
        assert getattr(peer, name).__name__ == name
    with pytest.raises(AttributeError):
        peer.Server  # noqa: B018


def test_all_that_happens_and_all_that_goes_wrong_is_public_but_for_what_has_pathlibs_name() -> None:
    known = {
        name
        for name, value in vars(events).items()
        if isinstance(value, type) and issubclass(value, events.Event | events.PotluckError)
    }
    assert known - set(peer.__all__) == {"Path"}


def test_the_import_alone_loads_no_network_library() -> None:
    code = (
        "import sys, peer; dir(peer); assert 'aiohttp' not in sys.modules; peer.Horde; assert 'aiohttp' in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("options", "asked"),
    [(ImageOptions, Client.image), (TextOptions, Client.text)],
    ids=["image", "text"],
)
def test_the_options_are_those_of_the_client_with_their_types(options: Any, asked: Callable[..., object]) -> None:
    wanted = get_type_hints(asked)
    keywords = {name for name, one in parameters(asked).items() if one.kind is one.KEYWORD_ONLY} - ASYNC_ONLY
    assert get_type_hints(options) == {name: wanted[name] for name in keywords}


def test_one_result_takes_the_same_options_but_for_how_many() -> None:
    assert {*get_type_hints(PictureOptions), "n"} == {*get_type_hints(ImageOptions)}
    assert {*get_type_hints(AnswerOptions), "n"} == {*get_type_hints(TextOptions)}


#: What belongs to a handler of the connection.
HANDLER = {"holding", "welcomed", "reconciled", "received", "received_document", "lost"}


def test_without_async_all_is_asked_for_in_the_same_words() -> None:
    both = {name for name in vars(Client) if not name.startswith("_")} - ASYNC_ONLY - HANDLER
    assert both == {name for name in vars(Horde) if not name.startswith("_")} - {"open", "close"}
    for name in both - {"image", "text", "rules", "rules_news", "account_number"}:
        assert parameters(getattr(Client, name)) == parameters(getattr(Horde, name)), name
    for name, options in (("image", ImageOptions), ("text", TextOptions)):
        hints = get_type_hints(getattr(Horde, name))
        assert hints["prompt"] == get_type_hints(getattr(Client, name))["prompt"]
        assert get_origin(hints["options"]) is Unpack
        assert get_args(hints["options"]) == (options,)


def test_both_are_made_of_the_same() -> None:
    only_for_tests = {"clock", "random"}
    assert parameters(Client.__init__).keys() - only_for_tests == parameters(Horde.__init__).keys()


def test_a_notebook_shows_a_picture_by_itself() -> None:
    found = peer.Picture(0, b"\x89PNG", "image/png", 7)._repr_mimebundle_(include=None, exclude=None)
    assert found == {"image/png": "iVBORw==", "text/plain": "a picture (image/png, 4 bytes, seed 7)"}


def test_a_horde_that_is_not_open_says_what_to_do() -> None:
    horde = Horde(a_link())
    with pytest.raises(RuntimeError, match="call open"):
        horde.picture("a red circle")
    with pytest.raises(RuntimeError, match="call open"):
        horde.image("a red circle")
    horde.close()
