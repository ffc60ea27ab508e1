"""The calls that AI-Horde-CLI makes, in its order and with its fields: `cli_request_dream` and `cli_request_scribe`.

It is no package that could be installed, so its sequences are here: an anonymous key unless one is given, a request, a
check about every second without any key, the results, the pictures from the links in them.
"""

import io
import os
import sys
import time
from typing import Any

import requests
from PIL import Image

from tests.clients.programs.report import say

#: Between two looks; the original waits 0.8 s.
PAUSE_S = 0.8


def finished(where: str, look: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Look until it is done."""
    while True:
        found = requests.get(f"{where}{look}/{asked['id']}", timeout=60)
        found.raise_for_status()
        state: dict[str, Any] = found.json()
        if state["done"]:
            return state
        time.sleep(PAUSE_S)


def dream(where: str, headers: dict[str, str], model: str) -> None:
    """Pictures."""
    params = {
        "n": 2,
        "width": 64,
        "height": 64,
        "steps": 3,
        "sampler_name": "k_euler_a",
        "cfg_scale": 7.5,
        "denoising_strength": 0.6,
    }
    wanted: dict[str, Any] = {
        "prompt": "a horde of small robots ### blue",
        "nsfw": False,
        "censor_nsfw": False,
        "trusted_workers": False,
        "models": [model],
        "r2": True,
        "dry_run": False,
        "params": params,
        "source_processing": "img2img",
    }
    price = requests.post(f"{where}/generate/async", json=wanted | {"dry_run": True}, headers=headers, timeout=60)
    say("price", status=price.status_code, **price.json())
    answer = requests.post(f"{where}/generate/async", json=wanted, headers=headers, timeout=60)
    say("asked", status=answer.status_code)
    state = finished(where, "/generate/check", answer.json())
    say("checked", **state)
    results = requests.get(f"{where}/generate/status/{answer.json()['id']}", timeout=60).json()
    pictures = [
        Image.open(io.BytesIO(requests.get(made["img"], timeout=60).content)) for made in results["generations"]
    ]
    say(
        "dreamt",
        faulted=results["faulted"],
        kudos=results["kudos"],
        fields=[sorted(made) for made in results["generations"]],
        links=[made["img"] for made in results["generations"]],
        seeds=[made["seed"] for made in results["generations"]],
        formats=[picture.format for picture in pictures],
        sizes=[picture.size for picture in pictures],
    )


def scribe(where: str, headers: dict[str, str]) -> None:
    """A text; no model named, which means any."""
    wanted: dict[str, Any] = {
        "prompt": "a horde of small kobolds at their typewriters",
        "trusted_workers": False,
        "models": [],
        "dry_run": False,
        "params": {"n": 1, "max_context_length": 1024, "max_length": 40},
    }
    answer = requests.post(f"{where}/generate/text/async", json=wanted, headers=headers, timeout=60)
    state = finished(where, "/generate/text/status", answer.json())
    say("written", faulted=state["faulted"], texts=[made["text"] for made in state["generations"]])


def left(where: str, headers: dict[str, str], slow: str) -> None:
    """Ctrl+C, there: the request is deleted."""
    wanted: dict[str, Any] = {
        "prompt": "a long night",
        "models": [slow],
        "params": {"width": 64, "height": 64, "steps": 50},
    }
    answer = requests.post(f"{where}/generate/async", json=wanted, headers=headers, timeout=60)
    asked = answer.json()
    say("begun", status=answer.status_code, **asked)
    while not requests.get(f"{where}/generate/check/{asked['id']}", timeout=60).json()["processing"]:
        time.sleep(PAUSE_S)
    gone = requests.delete(f"{where}/generate/status/{asked['id']}", timeout=60)
    say("deleted", status=gone.status_code, faulted=gone.json()["faulted"], done=gone.json()["done"])


def main(image: str, slow: str) -> None:
    """All of it; with the key of the environment, or anonymous."""
    headers = {
        "apikey": os.environ.get("HORDE_KEY", "0000000000"),
        "Client-Agent": "cli_request_dream.py:1.1.0:unknown",
    }
    where = os.environ["HORDE_URL"] + "/api/v2"
    dream(where, headers, image)
    scribe(where, headers)
    left(where, headers, slow)


if __name__ == "__main__":
    main(*sys.argv[1:])
