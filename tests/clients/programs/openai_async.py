"""The `openai` package in a program with an event loop: answers side by side, and one that is left half-way."""

import asyncio
import sys

import openai

from tests.clients.programs.report import say

QUESTION = [{"role": "user", "content": "What is for dinner?"}]


async def whole(client: openai.AsyncOpenAI, model: str, seed: int) -> str:
    """One answer."""
    answer = await client.chat.completions.create(model=model, messages=QUESTION, max_tokens=5, seed=seed)
    return str(answer.choices[0].message.content)


async def half(client: openai.AsyncOpenAI, model: str, enough: int) -> None:
    """Some pieces of an answer that would go on for a long time; then nobody wants it any more."""
    pieces = await client.chat.completions.create(model=model, messages=QUESTION, max_tokens=3_000, stream=True)
    count = 0
    async with pieces:
        async for piece in pieces:
            if piece.choices and piece.choices[0].delta.content:
                count += 1
                say("piece", number=count)
            if count == enough:
                break
    say("left")


async def main(quick: str, slow: str) -> None:
    """All of it."""
    async with openai.AsyncOpenAI(max_retries=0, timeout=60) as client:
        say("together", texts=await asyncio.gather(*(whole(client, quick, seed) for seed in (1, 2, 1))))
        await half(client, slow, 3)
        say("after", text=await whole(client, quick, 1))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
