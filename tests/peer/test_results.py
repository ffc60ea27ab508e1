"""The one picture or text of a request, out of all that happens to it."""

from collections.abc import AsyncGenerator

import pytest

from peer.events import (
    Denied,
    Event,
    JobFailed,
    Leased,
    Picture,
    Preview,
    Queued,
    Received,
    Requeued,
    Restarted,
    Settled,
    TextPiece,
)
from peer.results import Answer, answer_of, picture_of

QUEUED = Queued(0, b"job", 0)
PICTURE = Picture(0, b"a picture", "image/png", 7)
RECEIVED = Received(0, 2, "stop", "an engine", 12, (), b"", b"", 30)
SETTLED = Settled(0, 2, 0, 0, 0, False, 1, b"")


class Request:
    """Gives these events, and what it ends with; closed: whether nobody reads on."""

    def __init__(self, *events: Event, error: Exception | None = None) -> None:
        self._events = events
        self._error = error
        self.closed = False

    async def events(self) -> AsyncGenerator[Event, None]:
        try:
            for event in self._events:
                yield event
            if self._error is not None:
                raise self._error
        finally:
            self.closed = True


def leased(attempt: int, model: str) -> Leased:
    return Leased(0, b"a worker", model, attempt, 0, 0)


async def test_a_picture_is_given_once_it_is_acknowledged_and_nothing_is_left_open() -> None:
    request = Request(QUEUED, Preview(0, b"a preview"), PICTURE, RECEIVED, SETTLED)
    assert await picture_of(request.events()) is PICTURE
    assert request.closed


async def test_an_answer_is_the_text_of_whoever_finished_it() -> None:
    request = Request(
        QUEUED,
        leased(1, "first"),
        TextPiece(0, "It "),
        Requeued(0, 1, "gone", ""),
        leased(2, "second"),
        TextPiece(0, "scatters."),
        RECEIVED,
        SETTLED,
    )
    answer = await answer_of(request.events())
    assert answer == Answer("It scatters.", "second", "stop", 12, 30)
    assert str(answer) == "It scatters."
    assert request.closed


async def test_what_came_before_a_new_beginning_is_no_part_of_the_answer() -> None:
    request = Request(TextPiece(0, "Once"), Restarted(0, "no engine goes on"), TextPiece(0, "It"), RECEIVED)
    assert (await answer_of(request.events())).text == "It"


@pytest.mark.parametrize("read", [picture_of, answer_of])
async def test_errors_of_the_job_are_raised_and_no_end_is_without_a_word(read) -> None:
    denied = Denied("digest_mismatch", "something else came")
    with pytest.raises(Denied):
        await read(Request(QUEUED, error=denied).events())
    with pytest.raises(JobFailed, match="nothing came"):
        await read(Request(QUEUED, SETTLED).events())
