"""The `horde-sdk` package, which its own front-ends and workers are written with; AI_HORDE_URL is all that differs.

Its models check every answer, so what it takes has the right fields.
"""

import asyncio
import os
import sys
from typing import Any

import aiohttp
from horde_sdk.ai_horde_api.ai_horde_clients import (
    AIHordeAPIAsyncSimpleClient,
    AIHordeAPIClientSession,
    AIHordeAPISimpleClient,
)
from horde_sdk.ai_horde_api.apimodels import (
    DeleteImageGenerateRequest,
    FindUserRequest,
    HordePerformanceRequest,
    HordeStatusModelsAllRequest,
    ImageGenerateAsyncRequest,
    ImageGenerateCheckRequest,
    ImageGenerationInputPayload,
    ModelGenerationInputKobold,
    TextGenerateAsyncRequest,
)
from horde_sdk.ai_horde_api.exceptions import AIHordePayloadValidationError, AIHordeRequestError
from horde_sdk.generic_api.apimodels import RequestErrorResponse

from tests.clients.programs.report import say


def image(
    key: str, model: str, *, n: int = 1, steps: int = 3, cfg_scale: float = 7.5, **more: Any
) -> ImageGenerateAsyncRequest:
    """A small picture."""
    params = ImageGenerationInputPayload(width=64, height=64, steps=steps, n=n, seed="12", cfg_scale=cfg_scale)
    return ImageGenerateAsyncRequest(apikey=key, prompt="a red circle ### blue", models=[model], params=params, **more)


def text(key: str, models: list[str], **more: Any) -> TextGenerateAsyncRequest:
    """A short text."""
    params = ModelGenerationInputKobold(max_length=16, max_context_length=1024)
    return TextGenerateAsyncRequest(apikey=key, prompt="Once upon a time", models=models, params=params, **more)


def lists(client: AIHordeAPISimpleClient, key: str) -> None:
    """What is shown to people before they ask."""
    say("heartbeat", version=client.heartbeat_request().version)
    say("news", count=len(client.get_news().root))
    workers = client.workers_all_details(api_key=key)
    say("workers", names=[worker.name for worker in workers], kinds=[str(worker.type_) for worker in workers])
    one = client.worker_details(workers[0].id_)
    say("worker", name=one.name, models=one.models)
    client.image_stats_totals()
    client.text_stats_totals()
    with AIHordeAPIClientSession() as session:
        for kind in ("image", "text"):
            found = answered(session, HordeStatusModelsAllRequest(type=kind))
            say("models", kind=kind, names=[model.name for model in found], counts=[model.count for model in found])
        say("performance", workers=answered(session, HordePerformanceRequest()).worker_count)
        user = answered(session, FindUserRequest(apikey=key))
        say("user", name=user.username, kudos=user.kudos)


def answered(session: AIHordeAPIClientSession, request: Any) -> Any:
    """The answer, checked by the library."""
    found = session.submit_request(request, request.get_default_success_response_type())
    if isinstance(found, RequestErrorResponse):
        raise AIHordeRequestError(found)
    return found


def pictures(client: AIHordeAPISimpleClient, key: str, model: str) -> None:
    """From a link; prices before and after."""
    price = client.image_generate_request_dry_run(image(key, model, n=2, dry_run=True))
    status, _ = client.image_generate_request(image(key, model, n=2))
    found = [client.download_image_from_generation(made) for made in status.generations]
    say(
        "pictures",
        price=price.kudos,
        kudos=status.kudos,
        done=status.done,
        faulted=status.faulted,
        sizes=[picture.size for picture in found],
        formats=[picture.format for picture in found],
        seeds=[made.seed for made in status.generations],
        states=[str(made.state) for made in status.generations],
        censored=[made.censored for made in status.generations],
    )


async def together(key: str, model: str, words: str) -> None:
    """Side by side, with an event loop: a picture within the answer, a text of any model, a text of somebody without
    a key."""
    async with aiohttp.ClientSession() as http:
        client = AIHordeAPIAsyncSimpleClient(http, apikey=key)
        (drawn, _), (written, _), (anonymous, _) = await asyncio.gather(
            client.image_generate_request(image(key, model, r2=False)),
            client.text_generate_request(text(key, [])),
            client.text_generate_request(text("0000000000", [words])),
        )
        picture, _ = await client.download_image_from_generation(drawn.generations[0])
    say("within", format=picture.format, size=picture.size, bare="://" not in drawn.generations[0].img[:12])
    for name, status in (("text", written), ("anonymous", anonymous)):
        made = status.generations[0]
        say(name, text=made.text, model=made.model, worker=made.worker_name, done=status.done, kudos=status.kudos)


def left(key: str, slow: str) -> None:
    """What nobody waits for any more is deleted."""
    with AIHordeAPIClientSession() as session:
        asked = answered(session, image(key, slow, steps=149))
        check = ImageGenerateCheckRequest(id=asked.id_)
        while not answered(session, check).processing:
            pass
        gone = answered(session, DeleteImageGenerateRequest(id=asked.id_))
        say("deleted", done=gone.done, count=len(gone.generations))


def refused(client: AIHordeAPISimpleClient, key: str, model: str) -> None:
    """What the library makes of our refusals."""
    tries = {
        "key": image("x" * 22, model),
        "steps": image(key, model, steps=400),
        "payload": image(key, model, cfg_scale=-1e9),
        "prompt": image(key, model).model_copy(update={"prompt": ""}),
    }
    for name, request in tries.items():
        try:
            with AIHordeAPIClientSession() as session:
                found = session.submit_request(request, request.get_default_success_response_type())
        except AIHordePayloadValidationError as error:
            say("refused", name=name, rc="", message=str(error))
        else:
            assert isinstance(found, RequestErrorResponse)
            say("refused", name=name, rc=str(found.rc), message=found.message)


def main(model: str, words: str, slow: str) -> None:
    """All of it."""
    key = os.environ["HORDE_KEY"]
    client = AIHordeAPISimpleClient()
    lists(client, key)
    pictures(client, key, model)
    asyncio.run(together(key, model, words))
    left(key, slow)
    refused(client, key, model)


if __name__ == "__main__":
    main(*sys.argv[1:])
