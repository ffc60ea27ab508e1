"""What clients of OpenAI's API send, and what of it cannot be had."""

import json

import pytest

from peer.gateway.errors import Troubled
from peer.gateway.openai.bodies import MAX_PROMPTS, Chat, Completion, Picture, read

HELLO = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
GO_ON = {"model": "m", "prompt": "once"}
CIRCLE = {"model": "m", "prompt": "a circle"}


def of(kind, base, **more):
    return read(json.dumps({**base, **more}).encode(), kind)


def chat(**more):
    return of(Chat, HELLO, **more)


def completion(**more):
    return of(Completion, GO_ON, **more)


def picture(**more):
    return of(Picture, CIRCLE, **more)


def test_whatever_is_not_known_is_passed_over():
    said = chat(
        user="u-1", metadata={"a": "b"}, store=True, service_tier="auto", reasoning_effort="low", new_in_2027=[1]
    )

    assert said.turns == [("user", "hello")]
    assert not said.ignored


def test_null_is_as_if_not_given():
    said = chat(
        tools=None, stop=None, n=None, logprobs=None, response_format=None, stream_options=None, max_tokens=None
    )

    assert (said.stops, said.most, said.with_usage) == ((), None, False)


def test_messages_become_turns():
    said = chat(
        messages=[
            {"role": "developer", "content": "be brief"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}],
                "name": "x",
            },
            {"role": "assistant", "content": None},
            {"role": "assistant", "content": "three", "refusal": None, "tool_calls": []},
        ]
    )

    assert said.turns == [("system", "be brief"), ("user", "one\ntwo"), ("assistant", ""), ("assistant", "three")]


PICTURE_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


@pytest.mark.parametrize(
    "messages, field, words",
    [
        ([], "messages", "empty"),
        ([{"role": "tool", "content": "4", "tool_call_id": "c"}], "messages[0].role", "no tools"),
        ([{"role": "wizard", "content": "x"}], "messages[0].role", "'wizard': wanted system"),
        ([{"role": "assistant", "tool_calls": [{"id": "c"}]}], "messages[0].tool_calls", "no tools"),
        ([{"role": "user", "content": [PICTURE_PART]}], "messages[0].content[0]", "is a picture"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "messages[0].content[0]", "wanted text"),
    ],
)
def test_a_message_that_no_model_here_reads_is_named(messages, field, words):
    with pytest.raises(Troubled, match=words) as refused:
        _ = chat(messages=messages).turns

    assert refused.value.trouble.field == field
    assert refused.value.trouble.kind in ("bad_value", "unsupported")


FUNCTION = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    "field, more",
    [
        ("tools", {"tools": [FUNCTION]}),
        ("tools", {"tools": [FUNCTION], "tool_choice": "auto"}),
        ("functions", {"functions": [{"name": "f"}]}),
        ("response_format", {"response_format": {"type": "json_object"}}),
        ("response_format", {"response_format": {"type": "json_schema", "json_schema": {"name": "s"}}}),
        ("logprobs", {"logprobs": True}),
        ("logprobs", {"top_logprobs": 3}),
        ("logit_bias", {"logit_bias": {"50256": -100}}),
        ("modalities", {"modalities": ["text", "audio"], "audio": {"voice": "alloy"}}),
        ("web_search_options", {"web_search_options": {}}),
    ],
)
def test_an_answer_without_it_would_be_wrong_so_it_is_refused(field, more):
    with pytest.raises(Troubled) as refused:
        chat(**more)

    assert (refused.value.trouble.kind, refused.value.trouble.field) == ("unsupported", field)


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [FUNCTION], "tool_choice": "none"},
        {"tools": []},
        {"response_format": {"type": "text"}},
        {"logprobs": False},
        {"logit_bias": {}},
        {"modalities": ["text"]},
    ],
)
def test_the_same_fields_are_taken_where_they_ask_for_nothing(more):
    assert chat(**more).turns


def test_penalties_are_named_as_ignored():
    assert chat(frequency_penalty=0.5, presence_penalty=0).ignored == ["frequency_penalty"]


@pytest.mark.parametrize("stop, stops", [("END", ("END",)), (["a", "", "b"], ("a", "b")), ("", ()), ([], ())])
def test_stop_is_one_text_or_several(stop, stops):
    assert chat(stop=stop).stops == stops


def test_the_newer_name_for_the_most_tokens_counts():
    assert chat(max_tokens=5).most == 5
    assert chat(max_tokens=5, max_completion_tokens=7).most == 7
    assert chat(max_tokens=-1).most is None
    assert completion(max_tokens=9).most == 9


@pytest.mark.parametrize("prompt, prompts", [("one", ["one"]), (["one", "two"], ["one", "two"])])
def test_a_prompt_is_one_text_or_several(prompt, prompts):
    assert completion(prompt=prompt).prompts == prompts


@pytest.mark.parametrize(
    "prompt, words",
    [
        (None, "empty"),
        ("", "empty"),
        ([], "empty"),
        (["a", ""], "empty"),
        ([17, 4], "tokens are the model's own"),
        ([[17, 4]], "tokens are the model's own"),
        (["x"] * (MAX_PROMPTS + 1), f"wanted {MAX_PROMPTS} or fewer"),
    ],
)
def test_a_prompt_that_cannot_be_gone_on_from_is_refused(prompt, words):
    with pytest.raises(Troubled, match=words) as refused:
        _ = completion(prompt=prompt).prompts

    assert refused.value.trouble.field == "prompt"


@pytest.mark.parametrize(
    "field, more",
    [
        ("suffix", {"suffix": "end"}),
        ("best_of", {"best_of": 3}),
        ("logprobs", {"logprobs": 0}),
        ("n", {"n": 0}),
        ("n", {"n": 10**30}),
    ],
)
def test_of_a_completion_what_cannot_be_had_is_refused(field, more):
    with pytest.raises(Troubled) as refused:
        completion(**more)

    assert refused.value.trouble.field == field


def test_best_of_as_many_as_are_wanted_asks_for_nothing():
    assert completion(n=3, best_of=3, suffix="", logprobs=None).n == 3


@pytest.mark.parametrize(
    "size, most, measures",
    [
        (None, 0, (512, 512)),
        ("auto", 0, (512, 512)),
        ("auto", 512 * 512, (512, 512)),
        ("auto", 4096, (64, 64)),
        ("auto", 200_000, (384, 384)),
        ("auto", 100, (64, 64)),
        ("1024x768", 4096, (1024, 768)),
    ],
)
def test_a_size_is_what_was_said_or_what_fits(size, most, measures):
    assert picture(size=size).measures(most) == measures


@pytest.mark.parametrize("size", ["", "big", "512", "x", "512x", "-1x5", "5 x5", "²x5", "1234567x8", "1e3x8"])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(Troubled, match="wanted WIDTHxHEIGHT"):
        picture(size=size).measures(0)


def test_what_a_picture_is_sent_as():
    assert (picture().media_type, picture().as_url) == ("image/png", False)
    assert picture(output_format="webp", quality="hd", style="vivid", user="u").media_type == "image/webp"
    assert picture(response_format="url").as_url
    with pytest.raises(Troubled, match="wanted png"):
        _ = picture(output_format="gif").media_type
    with pytest.raises(Troubled, match="wanted b64_json or url"):
        _ = picture(response_format="file").as_url


@pytest.mark.parametrize(
    "field, more",
    [
        ("prompt", {"prompt": " "}),
        ("n", {"n": 0}),
        ("n", {"n": 10**9}),
        ("stream", {"stream": True}),
        ("background", {"background": "transparent"}),
    ],
)
def test_of_a_picture_what_cannot_be_had_is_refused(field, more):
    with pytest.raises(Troubled) as refused:
        picture(**more)

    assert refused.value.trouble.field == field


@pytest.mark.parametrize(
    "raw, field",
    [
        (b"", "messages"),
        (b"{}", "messages"),
        (b'{"messages": "hello"}', "messages"),
        (b'{"messages": [{"content": "hello"}]}', "messages[0].role"),
        (b'{"messages": [{"role": "user", "content": 5}]}', "messages[0].content"),
        (b'{"messages": [], "temperature": "hot"}', "temperature"),
        (b'{"messages": [], "max_tokens": 1.5}', "max_tokens"),
        (b'{"messages": [], "stream": "yes"}', "stream"),
        (b"[]", ""),
        (b"hello", ""),
        (b'{"messages": [', ""),
        (b"\xff\xfe", ""),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', ""),
        (b'{"messages": [], "stop": ' + b"[" * 5000 + b"]" * 5000 + b"}", None),
    ],
)
def test_a_body_that_cannot_be_read_names_the_field(raw, field):
    with pytest.raises(Troubled) as refused:
        read(raw, Chat)

    assert refused.value.trouble.kind == "bad_value"
    if field is not None:
        assert refused.value.trouble.field == field
    assert "Traceback" not in refused.value.trouble.text
