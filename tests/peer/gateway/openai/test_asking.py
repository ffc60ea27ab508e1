"""From OpenAI's words to a horde's."""

import json

import pytest

from peer.gateway.asks import ImageAsk, TextAsk
from peer.gateway.catalogue import Chosen, Model
from peer.gateway.errors import Troubled
from peer.gateway.openai.asking import ANY_MODEL, chat_ask, completion_asks, picture_ask
from peer.gateway.openai.bodies import Chat, Completion, Picture, read
from protocol.work import MAX_PROMPT_CHARACTERS, MAX_SEED

TURNS = [{"role": "user", "content": "hello"}]


def chat(**more):
    return chat_ask(read(json.dumps({"messages": TURNS} | more).encode(), Chat))


def picture(models=(), **more):
    return picture_ask(
        read(json.dumps({"prompt": "a circle", **more}).encode(), Picture), Chosen("h", (), tuple(models))
    )


def test_what_is_not_said_is_as_usual_in_a_horde():
    assert chat() == TextAsk(prompt=[("user", "hello")], or_fewer=True, stop=())
    assert picture() == ImageAsk(prompt="a circle")


def test_no_limit_of_candidates_as_others_say_it():
    assert chat(top_k=-1).top_k == chat(top_k=0).top_k == 0


def test_what_is_said_arrives():
    said = chat(
        model="m",
        max_completion_tokens=5,
        temperature=0,
        top_p=0.5,
        top_k=3,
        min_p=0.1,
        repetition_penalty=1.1,
        seed=7,
        n=2,
        stop="x",
        max_price=12.5,
    )

    assert said == TextAsk(
        prompt=[("user", "hello")],
        models=("m",),
        max_tokens=5,
        or_fewer=True,
        temperature=0,
        top_p=0.5,
        top_k=3,
        min_p=0.1,
        repeat_penalty=1.1,
        seed=7,
        n=2,
        stop=("x",),
        max_price=12.5,
    )
    assert picture(
        model="p", size="64x32", n=3, steps=4, seed=9, negative_prompt="blue", guidance=2, sampler="euler", max_price=1
    ) == ImageAsk(
        prompt="a circle",
        models=("p",),
        width=64,
        height=32,
        n=3,
        steps=4,
        seed=9,
        negative_prompt="blue",
        guidance=2,
        sampler="euler",
        max_price=1,
    )


@pytest.mark.parametrize("name", [None, "", ANY_MODEL])
def test_a_model_that_is_not_named_is_any(name):
    assert chat(model=name).models == ()
    assert picture(model=name).models == ()


@pytest.mark.parametrize(
    "seed, n, becomes",
    [
        (None, 1, None),
        (-1, 1, None),
        (0, 1, 0),
        (MAX_SEED, 1, MAX_SEED),
        (MAX_SEED + 1, 1, 0),
        (MAX_SEED - 2, 3, MAX_SEED - 2),
        (MAX_SEED - 1, 3, 0),
        (-2, 1, MAX_SEED - 1),
        (2**63 - 1, 1, (2**63 - 1) % 2**53),
    ],
)
def test_any_seed_will_do_and_the_same_stays_the_same(seed, n, becomes):
    assert chat(seed=seed, n=n).seed == becomes


def test_each_prompt_is_an_ask_of_its_own_and_gone_on_from_as_it_is():
    body = read(b'{"prompt": ["one", "two"], "n": 2, "seed": 5}', Completion)

    assert completion_asks(body) == [
        TextAsk(prompt=prompt, n=2, seed=5, stop=(), or_fewer=True) for prompt in ("one", "two")
    ]


def test_a_picture_of_no_size_fits_what_the_model_makes():
    small = Model("image", "p", "h", 1, max_pixels=4096, max_steps=8)
    large = Model("image", "q", "h", 1, max_pixels=65536, max_steps=20)
    unknown = Model("image", "r", "h", 1)

    assert (picture([small]).width, picture([small]).steps) == (64, 8)
    assert (picture([small, large]).width, picture([small, large]).steps) == (256, 20)
    assert (picture([small, unknown]).width, picture([small, unknown]).steps) == (512, 30)
    assert picture([small], steps=50, size="512x512").steps == 50


@pytest.mark.parametrize(
    "contents, field",
    [
        (["short", "a" * (MAX_PROMPT_CHARACTERS + 1)], "messages[1].content"),
        (["ü" * 90_000, "ü" * 90_000], ""),
    ],
)
def test_more_than_a_request_holds_is_too_long(contents, field):
    with pytest.raises(Troubled, match="at most") as refused:
        chat(messages=[{"role": "user", "content": content} for content in contents])

    assert (refused.value.trouble.kind, refused.value.trouble.field) == ("too_long", field)


def test_a_prompt_of_many_that_is_too_long_is_named():
    body = read(json.dumps({"prompt": ["a", "a" * (MAX_PROMPT_CHARACTERS + 1)]}).encode(), Completion)
    with pytest.raises(Troubled) as refused:
        completion_asks(body)

    assert (refused.value.trouble.kind, refused.value.trouble.field) == ("too_long", "prompt")
