"""Every door through which somebody's words come to a model, and how the filter reads what comes through each."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.work import ImagePrivate, PrivatePart


@dataclass(frozen=True)
class Words:
    """All words of one job. wanted: what shall be made, as one text, in the order in which it is said. unwanted: what
    shall not be seen in it."""

    wanted: str
    unwanted: str = ""


def words_of(private: PrivatePart, prefix: str = "") -> Words:
    """The words of a private part, and of the text already shown that a continuation begins with."""
    if isinstance(private, ImagePrivate):
        if private.guidance > 1_000:
            return Words(_lines(private.prompt, private.sampler), private.negative_prompt)
        # Without guidance nothing is held off: an engine that reads these words at all is given them as a prompt.
        return Words(_lines(private.prompt, private.negative_prompt, private.sampler))
    said = [message.content for message in private.messages]
    if prefix and private.messages and private.messages[-1].role == "assistant":
        # Engines differ in whether they go on in that turn or in one of its own.
        said.append(said[-1] + prefix)
    return Words(_lines(*said, private.prompt + prefix, *private.stop))


def _lines(*texts: str) -> str:
    return "\n".join(text for text in texts if text)
