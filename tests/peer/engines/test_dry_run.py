"""The engine without a model, and through it what all engines' processes have in common."""

import pytest

from peer.engines.spec import EngineSpec
from tests.peer.engines.contract import EngineContract, picture, text


def a_spec(**options) -> EngineSpec:
    return EngineSpec(engine="dry-run", model="nothing", options=options)


class TestPictures(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls):
        return a_spec(kind="image", step_ms=2, max_pixels=64 * 64, max_steps=500)

    def a_task(self, spec, seed=1):
        return picture(spec.model, seed=seed)

    def a_long_task(self, spec):
        return picture(spec.model, steps=500)

    def too_large(self, spec):
        return [picture(spec.model, side=72), picture("nothing", steps=501)]


class TestTexts(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls):
        return a_spec(kind="text", step_ms=2, max_tokens=1000, max_context=2000)

    def a_task(self, spec, seed=1):
        return text(spec.model, seed=seed)

    def a_long_task(self, spec):
        return text(spec.model, tokens=1000, context=2000)

    def too_large(self, spec):
        return [text(spec.model, tokens=1001, context=2000), text(spec.model, context=2001)]


class TestTextsThatCannotBeContinued(TestTexts):
    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls):
        return a_spec(kind="text", step_ms=2, max_tokens=1000, max_context=2000, continues=False)
