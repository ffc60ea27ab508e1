"""Which horde an ask goes to, and how much room a text is given."""

from __future__ import annotations

from typing import Any

import pytest

from peer.gateway.asks import ImageAsk, TextAsk
from peer.gateway.catalogue import (
    MAX_FORMER,
    ROOM_STEP,
    Catalogue,
    Model,
    allowed,
    at_most,
    check_image,
    measured,
    read_scrape,
    room_for,
    tokens_for,
    with_former,
    words,
)
from peer.gateway.errors import Troubled
from protocol.rules import LimitsSection


def text(name: str, horde: str = "one", workers: int = 1, **more: int) -> Model:
    return Model("text", name, horde, workers, **more)


TWO = Catalogue(
    ["one", "two"],
    [
        text("big", "two"),
        text("small", "two"),
        text("small", "one"),
        text("away", "one", workers=0),
        text("returned", "one", workers=0),
        text("returned", "two"),
        Model("image", "paint", "two", 1),
        text("two/small", "two"),
    ],
)


def refused(catalogue: Catalogue, *names: str, kind: str = "text") -> Troubled:
    with pytest.raises(Troubled) as caught:
        catalogue.find("image" if kind == "image" else "text", names)
    return caught.value


# Routing


@pytest.mark.parametrize(
    ("names", "horde", "models"),
    [
        ((), "one", ()),
        (("small",), "one", ("small",)),
        (("big",), "two", ("big",)),
        (("big", "small"), "one", ("small",)),
        (("one/small",), "one", ("small",)),
        (("two/big",), "two", ("big",)),
        (("two/two/small",), "two", ("two/small",)),
        (("returned",), "two", ("returned",)),
        (("away", "big"), "two", ("big",)),
        (("unheard of", "big"), "two", ("big",)),
    ],
)
def test_the_first_horde_that_serves_it_is_asked(names: tuple[str, ...], horde: str, models: tuple[str, ...]) -> None:
    chosen = TWO.find("text", names)

    assert (chosen.horde, chosen.models) == (horde, models)


def test_one_that_does_not_answer_is_asked_only_for_what_no_other_serves() -> None:
    hordes = Catalogue(["one", "two"], [text("a"), text("b"), Model("text", "a", "two", 1)], {"one": "nothing answers"})

    assert hordes.find("text", ("a",)).horde == "two"
    assert hordes.find("text").horde == "two"
    assert hordes.names("text")["a"].horde == "two"
    assert hordes.find("text", ("one/a",)).horde == "one"
    assert hordes.find("text", ("b",)).horde == "one"


def test_one_that_serves_others_only_is_asked_last_and_for_what_no_other_serves() -> None:
    assert TWO.find("text", ("small",), {"one"}).horde == "two"
    assert TWO.find("text", ("one/small",), {"one"}).horde == "one"
    assert TWO.find("text", ("big",), {"two"}).horde == "two"


def test_paused_workers_serve_their_owner_alone() -> None:
    swarm = {"kind": "text", "model": "m", "workers": 0, "paused": 1, "max_context": 8192}
    found = Catalogue(["one"], read_scrape("one", {"swarms": [swarm]}))

    assert refused(found, "m").trouble.kind == "unavailable"
    assert found.with_paused().find("text", ("m",)).most("max_context") == 8192


def test_a_name_with_a_slash_that_is_a_models_own_means_that_model() -> None:
    assert TWO.find("text", ("two/small",)).models == ("two/small",)


def test_a_model_of_the_other_kind_is_unknown() -> None:
    assert TWO.find("image").horde == "two"
    assert refused(TWO, "paint").trouble.kind == "unknown_model"


def test_an_unknown_model_is_refused_with_what_there_is() -> None:
    trouble = refused(TWO, "gpt-9").trouble

    assert trouble.kind == "unknown_model"
    assert "gpt-9" in trouble.text
    assert "big" in trouble.text
    assert "two/small" in trouble.text


def test_what_nobody_serves_now_is_unavailable_and_not_unknown() -> None:
    assert refused(TWO, "away").trouble.kind == "unavailable"
    assert refused(Catalogue(["one"], []), kind="image").trouble.kind == "unavailable"


def test_hordes_that_do_not_answer_are_named() -> None:
    silent = Catalogue(["one"], [], {"one": "nothing answers"})

    assert refused(silent, "big").trouble.kind == "unavailable"
    assert "nothing answers" in refused(silent, "big").trouble.text
    assert (
        "nothing answers"
        in refused(Catalogue(["one", "two"], [text("a")], {"two": "nothing answers"}), "b").trouble.text
    )


def test_models_are_listed_by_every_name_that_leads_to_them() -> None:
    names = TWO.names("text")

    assert names["small"].horde == "one"
    assert names["two/big"].name == "big"
    assert "away" not in names
    assert list(Catalogue(["one"], [text("small")]).names()) == ["small"]
    assert [(model.name, model.horde) for model in TWO.served("image")] == [("paint", "two")]


# What trackers publish


def test_a_scrape_is_read_and_what_is_strange_is_left_out() -> None:
    swarm = {"kind": "text", "model": "m", "workers": 2, "waiting": 1, "slots": 4, "max_context": 8192, "speed": 7.5}
    strange: list[object] = [7, {}, {"kind": "smell", "model": "m"}, {"kind": "text", "model": ""}, {"kind": "text"}]
    broken = {"kind": "image", "model": "b", "workers": "many", "waiting": -1, "speed": float("inf")}

    [good, bad] = read_scrape("one", {"swarms": [swarm, *strange, broken]})

    assert good == text("m", workers=2, waiting=1, slots=4, max_context=8192, speed=7)
    assert bad == Model("image", "b", "one", 0)
    assert read_scrape("one", {}) == read_scrape("one", {"swarms": {}}) == []


def test_what_was_served_before_is_remembered_without_workers() -> None:
    assert with_former([text("a")], [text("a", workers=5), text("b", workers=5)]) == [text("a"), text("b", workers=0)]
    former = [text(f"m{number}") for number in range(MAX_FORMER + 1)]
    assert len(with_former([text("a")], former)) == 1 + MAX_FORMER, "a tracker that names new ones all the time"


# Room


def test_room_covers_what_the_words_may_take_and_the_answer() -> None:
    assert room_for(["x" * 100], 50) == ROOM_STEP
    assert room_for(["x" * 4000], 1000) == 3 * ROOM_STEP
    assert room_for(["\u4e16" * 1000], 10) == 2 * ROOM_STEP
    assert room_for(["x" * 4000], 1000, most=2048) == 2048
    assert words([]) == 0


def test_an_answer_of_no_said_length_is_what_is_usual_or_what_there_is_room_for() -> None:
    assert tokens_for(["hi"], 0, 0) == 1024
    assert tokens_for(["hi"], 512, 8192) == 512
    assert tokens_for(["x" * 2400], 4096, 2048) == 2048 - 1216
    assert tokens_for(["x" * 20_000], 4096, 2048) == 512
    assert tokens_for(["hi"], 4096, 1) == 1


def test_a_bound_for_an_answer_is_lowered_to_what_there_is() -> None:
    assert at_most(["hi"], 8192, 0, 0) == 8192
    assert at_most(["hi"], 8192, 512, 8192) == 512
    assert at_most(["hi"], 100, 512, 8192) == 100
    assert at_most(["hi"], 4096, 4096, 4096) == 4096 - 17
    assert at_most(["x" * 20_000], 4096, 4096, 4096) == 1024
    # What is no more than half of the room is meant as it is said: the worker counts.
    assert at_most(["x" * 20_000], 2048, 4096, 4096) == 2048
    assert at_most(["hi"], 10**400, 4096, 0) == 4096
    assert at_most(["hi"], 0, 4096, 4096) == 0


LIMITS = LimitsSection()


def ask_of(**more: Any) -> TextAsk:
    return TextAsk(prompt=[("user", "hello")], **more)


def test_what_was_not_said_of_a_text_fits_models_and_rules() -> None:
    chosen = Catalogue(["one"], [text("m", max_tokens=300, max_context=2048)]).find("text", ["m"])

    assert measured(ask_of(), chosen, allowed(LIMITS, anonymous=False)) == (300, 1024)
    assert measured(ask_of(max_tokens=20), chosen, allowed(LIMITS, anonymous=False)) == (20, 1024)
    assert measured(ask_of(max_tokens=9000, or_fewer=True), chosen, allowed(LIMITS, anonymous=False)) == (300, 1024)
    unknown = Catalogue(["one"], [text("m")]).find("text", ["m"])
    assert measured(ask_of(max_tokens=9000, or_fewer=True), unknown, allowed(LIMITS, anonymous=True)) == (512, 1024)
    assert measured(ask_of(), unknown, allowed(LIMITS, anonymous=True)) == (512, 1024)
    assert measured(ask_of(), unknown, allowed(LIMITS, anonymous=False)) == (1024, 2048)


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        ({"max_tokens": 301}, "over_limit"),
        ({"context": 4096}, "over_limit"),
        ({"max_tokens": 20, "context": 20}, "too_long"),
    ],
)
def test_what_no_worker_could_take_is_refused_and_does_not_wait(asked: dict[str, int], kind: str) -> None:
    chosen = Catalogue(["one"], [text("m", max_tokens=300, max_context=2048)]).find("text", ["m"])

    with pytest.raises(Troubled) as caught:
        measured(ask_of(**asked), chosen, allowed(LIMITS, anonymous=False))

    assert caught.value.trouble.kind == kind


def test_a_picture_that_no_worker_could_make_is_refused() -> None:
    models = [
        Model("image", name, "one", 1, max_pixels=pixels, max_steps=50) for name, pixels in (("a", 100), ("b", 0))
    ]
    of_a, of_any = Catalogue(["one"], models).find("image", ["a"]), Catalogue(["one"], models).find("image")

    check_image(ImageAsk(prompt="", width=10, height=10, steps=50), of_a)
    with pytest.raises(Troubled, match="at most 100"):
        check_image(ImageAsk(prompt="", width=11, height=10, steps=50), of_a)
    # One of these does not say how large; somebody may be able to.
    check_image(ImageAsk(prompt="", width=11, height=10, steps=50), of_any)
