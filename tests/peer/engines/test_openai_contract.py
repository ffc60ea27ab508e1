"""The contract of engines, kept by one that leans on llama.cpp's own server in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from peer.engines.spec import SMOLLM2_MODEL, EngineSpec
from tests.peer.engines.contract import EngineContract, text, with_our_packages

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class TestOpenAI(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineSpec]:
        log = tmp_path_factory.mktemp("server") / "log"
        words = [sys.executable, "-m", "tests.support.llama_server"]
        with (
            log.open("wb") as errors,
            subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=with_our_packages()
            ) as server,
        ):
            assert server.stdout is not None
            url = json.loads(server.stdout.readline() or log.read_bytes())["url"]
            yield EngineSpec(engine="openai", model=SMOLLM2_MODEL, options={"url": url})
            server.kill()

    def a_task(self, spec, seed=1):
        return text(spec.model, seed=seed)

    def a_long_task(self, spec):
        return text(spec.model, tokens=1500, context=2000, temperature=1000)

    def too_large(self, spec):
        return [text(spec.model, context=2049), text(spec.model, tokens=2049, context=2048)]
