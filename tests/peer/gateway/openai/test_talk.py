"""What is written for each thing that happens to an answer that is streamed."""

import json

import pytest

from peer import events
from peer.gateway.errors import Troubled
from peer.gateway.openai.answers import Choice
from peer.gateway.openai.faults import fault
from peer.gateway.openai.lines import DONE, error_line
from peer.gateway.openai.talk import Talk
from tests.peer.gateway.openai.happened import leased, received


def talk(*, n=1, prompts=1, chat=True, with_usage=False, echo=""):
    choices = [Choice(index, echo=echo, keeps=False) for index in range(n * prompts)]
    return Talk("id-1", 77, "asked", choices, n, chat=chat, with_usage=with_usage)


def read(raw):
    """The events of a stream, with the end of it as None."""
    blocks = raw.decode("ascii").split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    return [None if block == "data: [DONE]" else json.loads(block.removeprefix("data: ")) for block in blocks]


def all_of(told, happened):
    return b"".join(told.hear(at, event) for at, event in happened)


def test_a_chat_says_who_speaks_then_the_pieces_then_how_it_ended():
    told = talk()
    happened = [events.Queued(0, b"j", 5), leased(0), events.TextPiece(0, "Hel"), events.Progress(0, 1, 3)]
    happened += [events.TextPiece(0, "lo"), received(0)]

    said = read(all_of(told, [(0, event) for event in happened]) + told.end())

    assert [line and line["choices"][0]["delta"] for line in said] == [
        {"role": "assistant", "content": ""},
        {"content": "Hel"},
        {"content": "lo"},
        {},
        None,
    ]
    head = {"id": "id-1", "object": "chat.completion.chunk", "created": 77, "model": "m"}
    assert all(head.items() <= line.items() and "usage" not in line for line in said[:-1])
    assert [line["choices"][0]["finish_reason"] for line in said[:-1]] == [None, None, None, "stop"]
    assert said[3]["system_fingerprint"] == "engine 1"


def test_each_piece_is_written_when_it_comes():
    told = talk()

    assert told.hear(0, events.Queued(0, b"j", 5)) == b""
    assert read(told.hear(0, events.TextPiece(0, "one")))[-1]["choices"][0]["delta"] == {"content": "one"}
    assert len(read(told.hear(0, events.TextPiece(0, "two")))) == 1


@pytest.mark.parametrize("piece", ['"', "\\", "\n\n", "\r", "\u2028", "\x85", "ü🎈", "\0", "\ud7ff", "data: [DONE]"])
def test_no_text_breaks_a_line(piece):
    told = talk(chat=False)
    raw = told.hear(0, events.TextPiece(0, piece)) + told.hear(0, events.TextPiece(0, piece + "x"))

    assert len(raw.decode().splitlines()) == 4  # two events, and the empty line behind each
    assert [line["choices"][0]["text"] for line in read(raw)] == [piece, piece + "x"]


@pytest.mark.parametrize("model", ['a"b', "\0", '"\0"', "\\u0000", "\n\ndata: x"])
def test_no_name_of_a_model_breaks_a_line(model):
    told = talk()
    raw = all_of(told, [(0, leased(0, model=model)), (0, events.TextPiece(0, "x"))])

    assert [line["model"] for line in read(raw)] == [model, model]
    assert read(raw)[1]["choices"][0]["delta"] == {"content": "x"}


def test_choices_are_interleaved_as_they_come_and_each_says_who_speaks():
    told = talk(n=2)
    pieces = [events.TextPiece(1, "b"), events.TextPiece(0, "a"), events.TextPiece(1, "B"), received(1), received(0)]

    said = read(all_of(told, [(0, event) for event in pieces]))

    choices = [line["choices"][0] for line in said]
    assert [choice["index"] for choice in choices] == [1, 1, 0, 0, 1, 1, 0]
    assert [choice["delta"].get("content") for choice in choices] == ["", "b", "", "a", "B", None, None]


def test_several_prompts_have_choices_behind_each_other():
    told = talk(n=2, prompts=2, chat=False)
    said = read(told.hear(1, events.TextPiece(1, "x")) + told.hear(0, events.TextPiece(1, "y")))

    assert [(line["object"], line["choices"][0]["index"]) for line in said] == [
        ("text_completion", 3),
        ("text_completion", 1),
    ]


def test_an_answer_without_any_text_is_an_answer():
    told = talk()
    said = read(told.hear(0, received(0, finish="length")) + told.end())

    assert [line and line["choices"][0]["finish_reason"] for line in said] == [None, "length", None]


def test_an_answer_that_was_cut_off_is_no_whole_one():
    told = talk()
    told.hear(0, events.TextPiece(0, "once upon"))

    with pytest.raises(Troubled, match="shutting down") as cut:
        told.hear(0, received(0, finish="cancelled"))

    assert fault(cut.value.trouble).status == 503


def test_usage_comes_last_and_counts_each_prompt_once():
    told = talk(n=2, prompts=2, chat=False, with_usage=True)
    happened = [(at, received(index, used=3, context=10 + at)) for at in (0, 1) for index in (0, 1)]

    said = read(all_of(told, happened) + told.end())

    assert said[-1] is None
    assert all(line["usage"] is None for line in said[:-2])
    assert said[-2]["choices"] == []
    assert said[-2]["usage"] == {"prompt_tokens": 7 + 8, "completion_tokens": 12, "total_tokens": 27}


def test_what_was_made_before_a_worker_died_is_counted_too():
    choice = Choice(0)
    for event in (leased(0, 1), events.Progress(0, 4, 9), events.Requeued(0, 1, "left", ""), leased(0, 2)):
        choice.receive(event)
    choice.receive(received(0, used=5, context=20, attempt=2))

    assert (choice.tokens, choice.prompt_tokens) == (9, 11)


def test_a_worker_that_delivers_after_all_is_not_counted_twice():
    choice = Choice(0)
    for event in (leased(0, 1), events.Progress(0, 4, 9), events.Requeued(0, 1, "left", ""), received(0, used=9)):
        choice.receive(event)

    assert choice.tokens == 9


def test_the_prompt_is_said_again_where_that_was_asked_for():
    told = talk(chat=False, echo="once ")
    said = read(told.hear(0, events.TextPiece(0, "upon")) + told.hear(0, events.TextPiece(0, " a")))

    assert [line["choices"][0]["text"] for line in said] == ["once ", "upon", " a"]
    choice = Choice(0, echo="once ")
    choice.receive(events.TextPiece(0, "upon"))
    assert choice.text == "once upon"


def test_text_that_was_sent_cannot_be_taken_back_so_the_stream_ends():
    told = talk()
    assert told.hear(0, events.Restarted(0, "x")) == b""  # nothing was sent yet
    told.hear(0, events.TextPiece(0, "Hel"))

    with pytest.raises(Troubled, match="void") as ended:
        told.hear(0, events.Restarted(0, "x"))

    (last,) = read(error_line(fault(ended.value.trouble)))
    assert last["error"]["code"] == "job_failed"


def test_a_whole_answer_keeps_only_what_came_since_the_last_beginning():
    choice = Choice(0)
    for event in (events.TextPiece(0, "Hel"), events.Restarted(0, "x"), events.TextPiece(0, "Bye")):
        choice.receive(event)

    assert choice.text == "Bye"


def test_the_end_is_as_readers_know_it():
    assert talk().end() == DONE == b"data: [DONE]\n\n"
