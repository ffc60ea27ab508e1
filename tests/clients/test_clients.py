"""Programs written for other services, with the libraries that they were written with, against a horde of processes."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.clients.frame import (
    BIN,
    Place,
    a_gateway,
    a_place,
    a_program,
    ended,
    standing,
    started,
    steps,
    the,
    told,
    until_halted,
    with_clients,
)
from tests.support.horde import until

pytestmark = [
    pytest.mark.clients,
    pytest.mark.asyncio(loop_scope="module"),
    with_clients,
]

PIXELS = [64, 64]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    async with a_place(tmp_path_factory.mktemp("clients")) as place:
        yield place


def openai_settings(place: Place) -> dict[str, str]:
    return {"OPENAI_BASE_URL": f"{place.gateway.url}/v1", "OPENAI_API_KEY": place.gateway.key}


def horde_settings(place: Place) -> dict[str, str]:
    return {
        "AI_HORDE_URL": f"{place.gateway.url}/api/",
        "HORDE_URL": place.gateway.url,
        "HORDE_KEY": place.gateway.key,
    }


@pytest.mark.ci_slow
async def test_the_openai_package_is_served(place: Place, tmp_path: Path) -> None:
    before = await standing(place.horde, "alice")
    said = await told(tmp_path, "openai_sync", "use", "quick", "paint", env=openai_settings(place))

    assert set(the(said, "models")["names"]) >= {"quick", "slow", "paint", "slow-paint"}
    assert the(said, "model")["name"] == "quick"
    once, again = steps(said, "chat")
    assert once == again
    assert (once["model"], once["role"], once["finish"]) == ("quick", "assistant", "length")
    assert len(once["text"].split()) == once["usage"]["completion_tokens"] == 6
    assert once["usage"]["total_tokens"] == once["usage"]["prompt_tokens"] + 6
    streamed = the(said, "stream")
    assert "".join(streamed["pieces"]) == once["text"]
    assert (streamed["finish"], streamed["usage"]) == ("length", once["usage"])
    several = the(said, "several")["texts"]
    assert several[0] == once["text"]
    assert len(set(several)) == 3
    completion, stopped = the(said, "completion"), the(said, "stopped")
    assert completion["text"].startswith(stopped["text"])
    assert stopped["at"] not in stopped["text"].split()
    assert (completion["finish"], stopped["finish"]) == ("length", "stop")
    assert "".join(the(said, "completion_stream")["pieces"]) == completion["text"]
    pictures, linked = the(said, "pictures"), the(said, "linked")
    assert (pictures["sizes"], pictures["formats"]) == ([PIXELS, PIXELS], ["PNG", "PNG"])
    assert (linked["size"], linked["format"]) == (PIXELS, "WEBP")
    after = await standing(place.horde, "alice")
    assert after.balance < before.balance


@pytest.mark.ci_slow
async def test_the_openai_package_raises_what_its_users_expect(place: Place, tmp_path: Path) -> None:
    said = await told(tmp_path, "openai_sync", "errors", "quick", "paint", env=openai_settings(place))

    errors = {line["name"]: line for line in steps(said, "error")}
    assert {name: (line["kind"], line["status"]) for name, line in errors.items()} == {
        "key": ("AuthenticationError", 401),
        "model": ("NotFoundError", 404),
        "retrieve": ("NotFoundError", 404),
        "size": ("BadRequestError", 400),
        "messages": ("BadRequestError", 400),
        "temperature": ("BadRequestError", 400),
    }
    assert errors["model"]["code"] == "model_not_found"
    assert all(line["message"] and line["type"] for line in errors.values())


@pytest.mark.ci_slow
async def test_the_openai_package_gets_the_first_tokens_while_the_rest_is_made_and_can_leave(
    place: Place, tmp_path: Path
) -> None:
    said = await told(tmp_path, "openai_async", "quick", "slow", env=openai_settings(place))

    first, second, third = the(said, "together")["texts"]
    assert first == third == the(said, "after")["text"]
    assert first != second
    assert [line["number"] for line in steps(said, "piece")] == [1, 2, 3]
    # Three were shown long before the 3,000th could be made; the others are never begun.
    assert await until_halted(place.worker, 3_000) >= 3


@pytest.mark.ci_slow
async def test_the_horde_sdk_package_takes_every_answer(place: Place, tmp_path: Path) -> None:
    said = await told(tmp_path, "horde_sdk_calls", "paint", "quick", "slow-paint", env=horde_settings(place))

    assert the(said, "heartbeat")["version"]
    workers = the(said, "workers")
    assert the(said, "worker")["name"] in workers["names"]
    by_kind = {line["kind"]: dict(zip(line["names"], line["counts"], strict=True)) for line in steps(said, "models")}
    assert by_kind["image"].keys() == {"paint", "slow-paint"}
    assert by_kind["text"].keys() == {"quick", "slow"}
    assert all(count >= 1 for counts in by_kind.values() for count in counts.values())
    assert the(said, "performance")["workers"] >= 1
    assert the(said, "user")["name"].endswith(f"#{(await standing(place.horde, 'alice')).number}")
    pictures = the(said, "pictures")
    assert pictures["price"] >= pictures["kudos"] > 0
    assert (pictures["done"], pictures["faulted"]) == (True, False)
    assert (pictures["sizes"], pictures["formats"]) == ([PIXELS, PIXELS], ["WEBP", "WEBP"])
    assert pictures["seeds"] == ["12", "13"]
    assert the(said, "within") == {"step": "within", "format": "WEBP", "size": PIXELS, "bare": True}
    assert the(said, "text")["model"] in {"quick", "slow"}
    anonymous = the(said, "anonymous")
    assert (len(anonymous["text"].split()), anonymous["model"], anonymous["done"]) == (16, "quick", True)
    assert the(said, "deleted")["done"] in (True, False)
    assert await until_halted(place.worker, 149) < 149
    refused = {line["name"]: line["rc"] for line in steps(said, "refused")}
    assert refused == {"key": "InvalidAPIKey", "steps": "TooManySteps", "payload": "", "prompt": "MissingPrompt"}


@pytest.mark.parametrize(
    "anonymous", [False, pytest.param(True, marks=pytest.mark.ci_slow)], ids=["member", "anonymous"]
)
async def test_the_calls_of_ai_hordes_command_line_are_answered(place: Place, tmp_path: Path, anonymous: bool) -> None:
    before, said_before = await standing(place.horde, "alice"), len(place.worker.lines())
    settings = horde_settings(place)
    if anonymous:
        del settings["HORDE_KEY"]
    said = await told(tmp_path, "ai_horde_cli", "paint", "slow-paint", env=settings)

    assert (the(said, "price")["status"], the(said, "asked")["status"]) == (200, 202)
    checked = the(said, "checked")
    assert (checked["done"], checked["finished"], checked["is_possible"]) == (True, 2, True)
    assert not {"id", "generations"} & checked.keys()
    dreamt = the(said, "dreamt")
    assert not dreamt["faulted"]
    assert (dreamt["sizes"], dreamt["formats"]) == ([PIXELS, PIXELS], ["WEBP", "WEBP"])
    wanted = {"img", "seed", "id", "censored", "worker_id", "worker_name", "model", "state", "gen_metadata"}
    assert all(wanted <= set(fields) for fields in dreamt["fields"])
    [text] = the(said, "written")["texts"]
    assert len(text.split()) == 40
    assert the(said, "deleted")["status"] == 200
    assert await until_halted(place.worker, 50, said_before) < 50
    after = await standing(place.horde, "alice")
    assert (after.balance == before.balance) is anonymous


@pytest.mark.ci_slow
async def test_the_webuiapi_package_is_served(place: Place, tmp_path: Path) -> None:
    settings = {"WEBUI_URL": place.gateway.url, "WEBUI_PASSWORD": place.gateway.key}
    said = await told(tmp_path, "webuiapi_calls", "paint", "slow-paint", env=settings)

    assert the(said, "models")["names"] == ["paint", "slow-paint"]
    assert the(said, "samplers")["names"]
    assert the(said, "schedulers")["names"]
    assert "None" in the(said, "upscalers")["names"]
    assert [line["name"] for line in steps(said, "list") if line["error"]] == []
    assert the(said, "chosen")["name"] == "paint"
    pictures = the(said, "pictures")
    assert (pictures["sizes"], pictures["formats"]) == ([PIXELS, PIXELS], ["PNG", "PNG"])
    assert (pictures["seeds"], pictures["steps"]) == ([11, 12], 3)
    assert all("a red circle" in text and "Seed: " in text for text in pictures["texts"])
    progress = the(said, "progress")
    assert 0 < progress["progress"] < 1
    assert progress["steps"] >= 2
    assert progress["picture"]
    assert len(the(said, "interrupted")["ended"]) == 1
    assert await until_halted(place.worker, 148) < 148
    assert the(said, "ready")
    assert the(said, "refused")["status"] == 401


def llm_settings(place: Place, folder: Path) -> dict[str, str]:
    """What its own documentation says: a model more in one file, the key in another."""
    folder.mkdir()
    models = [
        {
            "model_id": f"horde-{name}",
            "model_name": name,
            "api_base": f"{place.gateway.url}/v1",
            "api_key_name": "horde",
        }
        for name in ("quick", "slow")
    ]
    (folder / "extra-openai-models.yaml").write_text(json.dumps(models), "utf-8")  # JSON is YAML
    (folder / "keys.json").write_text(json.dumps({"horde": place.gateway.key}), "utf-8")
    return {"LLM_USER_PATH": str(folder)}


@pytest.mark.ci_slow
async def test_the_llm_command_is_served(place: Place, tmp_path: Path) -> None:
    settings = llm_settings(place, tmp_path / "llm")
    llm = str(BIN / "llm")
    async with started(tmp_path, "models", llm, "models", env=settings) as listing:
        await ended(listing)
        assert "horde-quick" in listing.text()
    texts = []
    for name, options in (("streamed", ()), ("whole", ("--no-stream", "-s", "You are brief."))):
        words = (
            "prompt",
            "-m",
            "horde-quick",
            "-o",
            "seed",
            "4",
            "-o",
            "max_tokens",
            "7",
            *options,
            "What is for dinner?",
        )
        async with started(tmp_path, name, llm, *words, env=settings) as asking:
            await ended(asking)
            texts.append(asking.text().split())
    assert [len(words) for words in texts] == [7, 7]
    assert texts[0] != texts[1]


@pytest.mark.ci_slow
async def test_the_llm_command_shows_words_as_they_come_and_ctrl_c_cancels(place: Place, tmp_path: Path) -> None:
    settings = llm_settings(place, tmp_path / "llm")
    words = ("prompt", "-m", "horde-slow", "-o", "max_tokens", "4000", "What is for dinner?")
    async with started(tmp_path, "slow", str(BIN / "llm"), *words, env=settings) as asking:
        await until(lambda: len(asking.text().split()) >= 3, "no words were shown")
        assert asking.process.returncode is None
        asking.process.send_signal(signal.SIGINT)
        await asking.process.wait()
    assert await until_halted(place.worker, 4_000) >= 3


async def test_over_tls_pictures_have_https_links_and_clients_need_no_more_than_the_certificate(
    place: Place, tmp_path: Path
) -> None:
    """The plug-ins of picture editors take a picture only from an address that begins with https."""
    async with a_gateway(place.horde, "alice", "--tls") as gateway:
        settings = {"HORDE_URL": gateway.url, "HORDE_KEY": gateway.key}
        trusting = settings | {"REQUESTS_CA_BUNDLE": gateway.certificate}
        said = await told(tmp_path, "ai_horde_cli", "paint", "slow-paint", env=trusting)
        async with a_program(tmp_path, "ai_horde_cli", "paint", "slow-paint", env=settings) as program:
            assert await program.process.wait() != 0
            assert "certificate verify failed" in program.text()
        [layer] = await told(tmp_path, "plug_in_calls", "paint", env=settings)

    dreamt = the(said, "dreamt")
    assert all(link.startswith(f"{gateway.url}/") for link in dreamt["links"])
    assert dreamt["formats"] == ["WEBP", "WEBP"]
    assert (layer["linked"], layer["format"], layer["size"]) == (True, "WEBP", PIXELS)
    assert layer["seed"].isdigit()


async def test_a_gateway_for_members_only_sends_anonymous_clients_away(place: Place, tmp_path: Path) -> None:
    """The control of the anonymous calls above."""
    async with (
        a_gateway(place.horde, "alice", "--no-anonymous") as gateway,
        a_program(tmp_path, "ai_horde_cli", "paint", "slow-paint", env={"HORDE_URL": gateway.url}) as program,
    ):
        assert await program.process.wait() != 0
        assert the(program.lines(), "price")["status"] == 401
