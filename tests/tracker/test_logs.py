"""Logs show what happened, in both forms, and nothing that does not belong there."""

import io
import json
import logging

import pytest

from protocol.keys import show_key
from tests.support.builders import REQUESTER, some_bytes
from tracker import logs


@pytest.fixture
def records():
    """Loggers as they were, whatever a test sets up."""
    root = logging.getLogger()
    before = list(root.handlers), root.level
    yield logging.getLogger("tracker.example")
    for handler in list(root.handlers):
        root.removeHandler(handler)
        if handler not in before[0]:
            handler.close()
    for handler in before[0]:
        root.addHandler(handler)
    root.setLevel(before[1])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_readable_lines(records):
    stream = Terminal()
    logs.set_up(stream=stream)

    records.info("a worker came", extra={"slots": 2, "software": "potluck 0.1"})

    [line] = stream.getvalue().splitlines()
    assert line.endswith('info    tracker.example: a worker came  slots=2 software="potluck 0.1"')


def test_anything_else_gets_one_json_object_a_line(records):
    stream = io.StringIO()
    logs.set_up(stream=stream)

    records.warning("the disk fills up", extra={"free_mib": 12})

    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "tracker.example",
        "message": "the disk fills up",
        "free_mib": 12,
    }


def test_the_form_can_be_demanded(records):
    stream = Terminal()
    logs.set_up(stream=stream, as_json=True)

    records.info("started")

    assert json.loads(stream.getvalue())["message"] == "started"


def test_keys_and_digests_are_shown_by_their_beginning(records):
    stream = io.StringIO()
    logs.set_up(stream=stream)

    records.info("hello", extra={"peer": REQUESTER.public, "job": some_bytes(16)})

    line = json.loads(stream.getvalue())
    assert line["peer"] == show_key(REQUESTER.public)[:8] + "…"
    assert line["job"] == some_bytes(16)[:4].hex() + "…"


def test_a_peer_cannot_forge_a_line_or_steer_the_terminal(records):
    stream = Terminal()
    logs.set_up(stream=stream)

    records.info("refused: %s", "x\n23:59:59 error forged\x1b[2J", extra={"reason": "a\nb\x07"})

    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()
    assert "\x07" not in stream.getvalue()


def test_long_texts_are_cut(records):
    stream = io.StringIO()
    logs.set_up(stream=stream)

    records.info("refused", extra={"reason": "x" * 5000})

    assert len(json.loads(stream.getvalue())["reason"]) == logs.MAX_TEXT


def test_the_level_bounds_what_is_shown_and_the_file_gets_all(records, tmp_path):
    stream = io.StringIO()
    logs.set_up(stream=stream, level="warning", file=tmp_path / "tracker.log")

    records.debug("detail")
    records.warning("trouble")

    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["trouble"]
    written = (tmp_path / "tracker.log").read_text("utf-8").splitlines()
    assert [json.loads(line)["message"] for line in written] == ["detail", "trouble"]


def test_a_fault_comes_with_its_trace(records):
    stream = io.StringIO()
    logs.set_up(stream=stream)

    try:
        raise RuntimeError("broken")
    except RuntimeError:
        records.exception("a fault of ours")

    assert "RuntimeError: broken" in json.loads(stream.getvalue())["trace"]
