"""The `openai` package, as most programs use it: OPENAI_BASE_URL and OPENAI_API_KEY are all that differs."""

import base64
import io
import sys

import openai
import requests
from PIL import Image

from tests.clients.programs.report import say

QUESTION = [
    {"role": "developer", "content": "You are brief."},
    {"role": "user", "content": [{"type": "text", "text": "What is for"}, {"type": "text", "text": "dinner?"}]},
]


def models(client: openai.OpenAI, model: str) -> None:
    """What there is."""
    say("models", names=[found.id for found in client.models.list()])
    say("model", name=client.models.retrieve(model).id)


def chat(client: openai.OpenAI, model: str) -> None:
    """Whole answers."""
    for _ in range(2):
        answer = client.chat.completions.create(
            model=model, messages=QUESTION, max_completion_tokens=6, seed=7, temperature=0
        )
        [choice] = answer.choices
        say(
            "chat",
            model=answer.model,
            role=choice.message.role,
            text=choice.message.content,
            finish=choice.finish_reason,
            usage=answer.usage.to_dict(),
        )
    several = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=6, seed=7, n=3)
    say("several", texts=[choice.message.content for choice in several.choices])


def stream(client: openai.OpenAI, model: str) -> None:
    """An answer as it comes, and how it is counted."""
    pieces, usage, finish = [], None, ""
    for chunk in client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=6, seed=7, stream=True, stream_options={"include_usage": True}
    ):
        for choice in chunk.choices:
            pieces += [choice.delta.content] if choice.delta.content else []
            finish = choice.finish_reason or finish
        usage = chunk.usage.to_dict() if chunk.usage else usage
    say("stream", pieces=pieces, finish=finish, usage=usage)


def completions(client: openai.OpenAI, model: str) -> None:
    """The older way, and texts that end an answer."""
    whole = client.completions.create(model=model, prompt="Once upon a time", max_tokens=8, seed=3)
    say("completion", text=whole.choices[0].text, finish=whole.choices[0].finish_reason)
    word = whole.choices[0].text.split()[4]
    stopped = client.completions.create(model=model, prompt="Once upon a time", max_tokens=8, seed=3, stop=[word])
    say("stopped", at=word, text=stopped.choices[0].text, finish=stopped.choices[0].finish_reason)
    pieces = client.completions.create(model=model, prompt="Once upon a time", max_tokens=8, seed=3, stream=True)
    say("completion_stream", pieces=[piece.choices[0].text for piece in pieces if piece.choices])


def pictures(client: openai.OpenAI, model: str) -> None:
    """Pictures in the answer, and behind a link."""
    made = client.images.generate(model=model, prompt="a red circle", size="64x64", n=2, response_format="b64_json")
    found = [Image.open(io.BytesIO(base64.b64decode(picture.b64_json))) for picture in made.data]
    say("pictures", sizes=[picture.size for picture in found], formats=[picture.format for picture in found])
    linked = client.images.generate(
        model=model,
        prompt="a red circle",
        size="64x64",
        response_format="url",
        extra_body={"steps": 3, "seed": 5, "output_format": "webp"},
    )
    content = requests.get(linked.data[0].url, timeout=60).content
    picture = Image.open(io.BytesIO(content))
    say("linked", size=picture.size, format=picture.format)


def errors(client: openai.OpenAI, model: str) -> None:
    """What the library makes of our refusals; it raises a class of its own for each status."""
    wrong = client.with_options(api_key="not-the-key-at-all-000", max_retries=0)
    tries = {
        "key": wrong.models.list,
        "model": lambda: client.chat.completions.create(model="nobody-has-it", messages=QUESTION),
        "retrieve": lambda: client.models.retrieve("nobody-has-it"),
        "size": lambda: client.images.generate(model="paint", prompt="a circle", size="63x64"),
        "messages": lambda: client.chat.completions.create(model=model, messages=[]),
        "temperature": lambda: client.chat.completions.create(model=model, messages=QUESTION, temperature=-1),
    }
    for name, attempt in tries.items():
        try:
            attempt()
        except openai.APIStatusError as error:
            body = error.body if isinstance(error.body, dict) else {}
            found = {field: body.get(field) for field in ("message", "type", "param", "code")}
            say("error", name=name, kind=type(error).__name__, status=error.status_code, **found)
        else:
            say("error", name=name, kind="", status=200)


def main(part: str, text: str, image: str) -> None:
    """What is there to use, or what goes wrong."""
    client = openai.OpenAI(max_retries=0, timeout=60)
    if part == "errors":
        errors(client, text)
        return
    models(client, text)
    chat(client, text)
    stream(client, text)
    completions(client, text)
    pictures(client, image)


if __name__ == "__main__":
    main(*sys.argv[1:])
