"""AUTOMATIC1111's door of a real gateway: tracker, workers and a client, each a process or a socket of its own."""

from __future__ import annotations

import asyncio
import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image

from tests.support.gateway import Gateway
from tests.support.horde import POLL_S, Horde, Process, until

#: Half a minute of its worker, who must not come to its end.
LONG: dict[str, Any] = {"width": 64, "height": 64, "steps": 50, "override_settings": {"sd_model_checkpoint": "slow"}}
SMALL: dict[str, Any] = {"width": 32, "height": 32, "steps": 6, "prompt": "a small red circle on blue"}


class Program:
    """A client of that program."""

    def __init__(self, session: aiohttp.ClientSession, gateway: Gateway) -> None:
        self._session = session
        self._gateway = gateway

    async def ask(self, what: str, body: object = None, status: int = 200) -> Any:
        """GET, or POST with a body."""
        url = f"{self._gateway.url}/sdapi/v1/{what}"
        method = "GET" if body is None else "POST"
        async with self._session.request(method, url, json=body, headers=self._gateway.basic) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()

    async def under_way(self) -> dict[str, Any]:
        """What progress says as soon as some steps are done and there is something to see."""
        async with asyncio.timeout(60):
            while True:
                found: dict[str, Any] = await self.ask("progress")
                if found["state"]["sampling_step"] >= 1 and found["current_image"]:
                    return found
                await asyncio.sleep(POLL_S)


def pictures(answer: dict[str, Any]) -> list[Image.Image]:
    found: list[Image.Image] = [Image.open(BytesIO(base64.b64decode(image))) for image in answer["images"]]
    for image in found:
        image.load()
    return found


def reached(worker: Process) -> int:
    """The last step that the worker says it made."""
    return max((line["done"] for line in worker.lines() if line.get("event") == "progress"), default=0)


async def has_dropped(worker: Process, times: int) -> None:
    """Wait until the worker has let go of so many jobs half-way, and show that it did."""
    ends = ("made", "failed", "dropped")
    await until(lambda: sum(line.get("event") in ends for line in worker.lines()) >= times, "the worker did not stop")
    assert reached(worker) < 50


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_pictures_of_real_and_of_slow_workers_are_asked_for_watched_and_stopped(tmp_path: Path) -> None:
    async with Horde.open(tmp_path) as horde, aiohttp.ClientSession() as session:
        slow = await horde.worker("slow", "--dry-run", "image:model=slow,step_ms=500")
        await horde.worker("ann", "--image", "shapes")
        gateway = await Gateway.start(horde, "me")
        program = Program(session, gateway)

        await _the_menus(program)
        await _a_picture(program)
        await _an_interrupted_one(program, slow)
        await _one_whose_client_goes_away(program, slow)
        await _what_cannot_be_had(program)
        assert gateway.process.text().count(gateway.key) == 1  # shown once, as it was made
        assert SMALL["prompt"] not in gateway.process.text()


async def _the_menus(program: Program) -> None:
    titles = {model["title"] for model in await program.ask("sd-models")}
    assert titles == {"slow", "shapes"}
    assert await program.ask("options", {"sd_model_checkpoint": "shapes"}) is None
    assert (await program.ask("options"))["sd_model_checkpoint"] == "shapes"


async def _a_picture(program: Program) -> None:
    """The real model, with the sampler that clients ask for unless they are told otherwise."""
    wish = {**SMALL, "seed": 5, "batch_size": 2, "sampler_name": "Euler a", "scheduler": "automatic", "cfg_scale": 2}
    first, again = await program.ask("txt2img", wish), await program.ask("txt2img", {**wish, "batch_size": 1})

    info = json.loads(first["info"])
    assert info["all_seeds"] == [5, 6]
    assert info["sd_model_name"] == "shapes"
    assert [image.size for image in pictures(first)] == [(32, 32), (32, 32)]
    assert [image.info["parameters"] for image in pictures(first)] == info["infotexts"]
    assert "Sampler: Euler a" in info["infotexts"][0]
    same, other = pictures(first)
    assert same.tobytes() == pictures(again)[0].tobytes()
    assert same.tobytes() != other.tobytes()


async def _an_interrupted_one(program: Program, slow: Process) -> None:
    asking = asyncio.create_task(program.ask("txt2img", LONG))
    found = await program.under_way()

    assert 0 < found["progress"] < 1
    assert found["state"]["sampling_steps"] == 50
    assert pictures({"images": [found["current_image"]]})[0].format == "PNG"
    assert await program.ask("interrupt", {}) == {}
    ended = await asking
    assert json.loads(ended["info"])["comments"] == "interrupted"
    [partly] = pictures(ended)
    assert partly.size == (64, 64)
    assert not any(partly.crop((0, 60, 64, 64)).tobytes()), "the lower part is painted last, and was not yet"
    await has_dropped(slow, 1)
    assert (await program.ask("progress"))["state"]["job_count"] == 0


async def _one_whose_client_goes_away(program: Program, slow: Process) -> None:
    asking = asyncio.create_task(program.ask("txt2img", LONG))
    await program.under_way()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await has_dropped(slow, 2)


async def _what_cannot_be_had(program: Program) -> None:
    unknown = await program.ask("txt2img", {"override_settings": {"sd_model_checkpoint": "nobody's"}}, 404)
    assert "nobody's" in unknown["detail"]
    # Its worker says so, and there is no other: the call does not wait for one.
    flowing = await program.ask("txt2img", {**SMALL, "sampler_name": "Euler FlowMatch"}, 422)
    assert "euler_flow" in flowing["detail"]
    odd = await program.ask("txt2img", {**SMALL, "width": 33}, 422)
    assert "33" in odd["detail"]
    assert "img2img" not in (await program.ask("img2img", {"init_images": []}, 422))["detail"]
