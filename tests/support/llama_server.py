"""llama.cpp's own server in a process of its own: `python -m tests.support.llama_server [PORT [KEY_FILE]]`.

It serves the small text model and says as JSON where; it ends when its standard input does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from peer.engines.spec import SMOLLM2_MODEL, find_smollm2


def main() -> None:
    """Serve until standard input ends."""
    import xllamacpp

    words = sys.argv[1:]
    parameters: Any = xllamacpp.CommonParams()
    parameters.model.path = str(find_smollm2())
    parameters.model_alias = {SMOLLM2_MODEL}
    parameters.n_ctx = 2048
    parameters.n_batch = parameters.n_ubatch = 256
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.n_parallel = 1
    parameters.warmup = False
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = int(words[0]) if words else 0
    if words[1:]:
        parameters.api_keys = [Path(words[1]).read_text("ascii").strip()]
    server = xllamacpp.Server(parameters)
    sys.stdout.write(json.dumps({"event": "serving", "url": server.listening_address}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
