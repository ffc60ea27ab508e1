"""The `webuiapi` package, which was written for the API of AUTOMATIC1111's web interface."""

import os
import sys
import threading
from urllib.parse import urlsplit

import webuiapi

from tests.clients.programs.report import say


def opened(password: str) -> webuiapi.WebUIApi:
    """The API, asked for with a user name and a password, as that interface's --api-auth has it."""
    where = urlsplit(os.environ["WEBUI_URL"])
    return webuiapi.WebUIApi(host=where.hostname, port=where.port, username="anybody", password=password)


def lists(api: webuiapi.WebUIApi) -> None:
    """What a user interface fills its menus with."""
    say("models", names=api.util_get_model_names(), titles=[model["title"] for model in api.get_sd_models()])
    say("samplers", names=api.util_get_sampler_names())
    say("schedulers", names=api.util_get_scheduler_names())
    say("upscalers", names=[found["name"] for found in api.get_upscalers()])
    rest = [
        api.get_sd_vae,
        api.get_loras,
        api.get_hypernetworks,
        api.get_face_restorers,
        api.get_prompt_styles,
        api.get_embeddings,
        api.get_scripts,
        api.get_memory,
        api.get_cmd_flags,
        api.get_latent_upscale_modes,
        api.get_realesrgan_models,
    ]
    for ask in rest:
        found = ask()
        say("list", name=ask.__name__, kind=type(found).__name__, error="detail" in found and "error" in found)


def chosen(api: webuiapi.WebUIApi, model: str) -> None:
    """The model is a setting of the server's there."""
    api.util_set_model(model)
    say("chosen", name=api.util_get_current_model())


def pictures(api: webuiapi.WebUIApi) -> None:
    """Several at once, with what was drawn from."""
    made = api.txt2img(
        prompt="a red circle", negative_prompt="blue", seed=11, width=64, height=64, steps=3, batch_size=2, n_iter=1
    )
    say(
        "pictures",
        sizes=[picture.size for picture in made.images],
        formats=[picture.format for picture in made.images],
        texts=[picture.info.get("parameters", "") for picture in made.images],
        seeds=made.info["all_seeds"],
        steps=made.parameters["steps"],
    )


def watched(api: webuiapi.WebUIApi, other: webuiapi.WebUIApi, model: str) -> None:
    """One that takes long: how far it is, how it looks so far, and that it can be stopped."""
    ended: list[str] = []

    def ask() -> None:
        try:
            made = api.txt2img(
                prompt="a red circle",
                width=64,
                height=64,
                steps=148,
                override_settings={"sd_model_checkpoint": model},
            )
            ended.append(f"{len(made.images)} pictures")
        except RuntimeError as error:
            ended.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    seen = {"progress": 0.0, "steps": 0, "picture": False}
    while asking.is_alive() and not (seen["steps"] >= 2 and seen["picture"]):
        now = other.get_progress()
        seen["progress"] = max(seen["progress"], now["progress"])
        seen["steps"] = max(seen["steps"], now["state"]["sampling_step"])
        seen["picture"] = seen["picture"] or bool(now["current_image"])
    say("progress", **seen)
    other.interrupt()
    asking.join()
    say("interrupted", ended=ended)
    other.util_wait_for_ready(check_interval=0.1)
    say("ready")


def refused(model: str) -> None:
    """Somebody who does not know the password."""
    try:
        opened("not-the-key-at-all-000").txt2img(prompt=model)
    except RuntimeError as error:
        say("refused", status=error.args[0])


def main(quick: str, slow: str) -> None:
    """All of it."""
    api, other = opened(os.environ["WEBUI_PASSWORD"]), opened(os.environ["WEBUI_PASSWORD"])
    lists(api)
    chosen(api, quick)
    pictures(api)
    watched(api, other, slow)
    refused(quick)


if __name__ == "__main__":
    main(*sys.argv[1:])
