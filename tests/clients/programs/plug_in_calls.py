"""The calls that the AI Horde plug-ins for Krita, GIMP and LibreOffice make, in their order and with their fields.

They run inside another program, so their sequence is here: only what Python brings, a certificate that nobody checks,
and a picture is fetched only from a link that begins with https.
"""

import io
import json
import os
import ssl
import sys
import time
import urllib.request
from typing import Any

from PIL import Image

from tests.clients.programs.report import say

#: Between two looks; the originals wait 5 s.
PAUSE_S = 0.5


def fetched(address: str, data: Any = None, headers: dict[str, str] | None = None) -> bytes:
    """What is at an address."""
    body = json.dumps(data).encode() if data else None
    request = urllib.request.Request(address, data=body, headers=headers or {})  # noqa: S310 (this test's gateway)
    with urllib.request.urlopen(request, context=ssl._create_unverified_context(), timeout=60) as answer:  # noqa: S310, S323
        content: bytes = answer.read()
        return content


def main(model: str) -> None:
    """One picture into a layer."""
    root = os.environ["HORDE_URL"] + "/api/v2/"
    params = {
        "sampler_name": "k_euler",
        "cfg_scale": 7.0,
        "steps": 4,
        "seed": "",
        "hires_fix": False,
        "karras": True,
        "post_processing": [],
        "facefixer_strength": 0.75,
        "clip_skip": 1,
        "width": 64,
        "height": 64,
    }
    wanted = {
        "prompt": "a red circle ### blue",
        "params": params,
        "nsfw": False,
        "censor_nsfw": False,
        "r2": True,
        "models": [model],
    }
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "apikey": os.environ["HORDE_KEY"],
        "Client-Agent": "a plug-in",
    }
    asked = json.loads(fetched(root + "generate/async", wanted, headers))
    while not (state := json.loads(fetched(root + "generate/check/" + asked["id"])))["done"]:
        assert state["is_possible"] is True
        assert isinstance(state["processing"] + state["queue_position"] + state["wait_time"], int)
        time.sleep(PAUSE_S)
    for made in json.loads(fetched(root + "generate/status/" + asked["id"]))["generations"]:
        linked = made["img"].startswith("https")
        picture = Image.open(io.BytesIO(fetched(made["img"]))) if linked else None
        say("layer", seed=made["seed"], linked=linked, format=picture and picture.format, size=picture and picture.size)


if __name__ == "__main__":
    main(*sys.argv[1:])
