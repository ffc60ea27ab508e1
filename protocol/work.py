"""What can be asked for: the two parts of a request, with unit, range and default of every parameter.

The *public part* holds every input of price and matching; the tracker keeps it. The *private part* (what is said in
the prompt and how it is drawn or told) is bound by its digest and kept by nobody but requester and worker. All
numbers are integers: what people write with a decimal point travels in thousandths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta

from protocol import codec
from protocol.codec import Body
from protocol.digests import SALT_BYTES, private_digest
from protocol.errors import BadValue, PrivatePartMismatch, TooLarge

Kind = Literal["image", "text"]

MAX_MODELS = 32
MAX_N = 64
MAX_PROMPT_CHARACTERS = 100_000
MAX_PRIVATE_BYTES = 256 * 1024
MAX_SEED = 2**53 - 1

ModelName = Annotated[str, Meta(min_length=1, max_length=120)]
#: A topic of the prompt filter, or a mark that a requester gives its request.
Topic = Annotated[str, Meta(min_length=1, max_length=40)]
#: By what a worker knows an account, and a horde the user of a service.
PSEUDONYM_BYTES = 16
Pseudonym = Annotated[bytes, Meta(min_length=PSEUDONYM_BYTES, max_length=PSEUDONYM_BYTES)]

Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
Key = Annotated[bytes, Meta(min_length=32, max_length=32)]
Handle = Annotated[bytes, Meta(min_length=16, max_length=16)]
Nonce = Annotated[bytes, Meta(min_length=16, max_length=16)]
Salt = Annotated[bytes, Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]
Prompt = Annotated[str, Meta(max_length=MAX_PROMPT_CHARACTERS)]
Thousandths = int
Milliseconds = int


class ImageWork(Body, frozen=True, tag_field="kind", tag="image", kw_only=True):
    """A picture's public measures.

    width, height: pixels, multiples of 8 from 16 to 4096. steps: denoising steps, 1 to 500. guidance_passes: 2 with
    classifier-free guidance, 1 without. extras: up to 16 names of priced extras that the rules
    know; none by default.
    """

    width: Annotated[int, Meta(ge=16, le=4096, multiple_of=8)] = 512
    height: Annotated[int, Meta(ge=16, le=4096, multiple_of=8)] = 512
    steps: Annotated[int, Meta(ge=1, le=500)] = 30
    guidance_passes: Annotated[int, Meta(ge=1, le=2)] = 2
    extras: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=40)], ...], Meta(max_length=16)] = ()


class TextWork(Body, frozen=True, tag_field="kind", tag="text", kw_only=True):
    """A text's public measures.

    max_tokens: tokens to make at most, 1 to 32768. context_tokens: room for prompt and answer together, 16 to
    1048576; a prompt that does not fit is declined, never cut.
    """

    max_tokens: Annotated[int, Meta(ge=1, le=32_768)] = 256
    context_tokens: Annotated[int, Meta(ge=16, le=1_048_576)] = 2048


Work = ImageWork | TextWork


class PublicPart(Body, frozen=True, kw_only=True):
    """Every input of price and matching.

    work: the measures of an image or a text. models: names, any of which will do; none means any of that kind.
    n: how many results, 1 to 64, each a job of its own. share: give the result to the open data set. flags: topics of
    the prompt filter by which the request marks itself, so that workers can decline it. max_price: thousandths of a
    kudo that one job may cost without tax; 0 means no bound.
    """

    work: Work
    models: Annotated[tuple[ModelName, ...], Meta(max_length=MAX_MODELS)] = ()
    n: Annotated[int, Meta(ge=1, le=MAX_N)] = 1
    share: bool = False
    flags: Annotated[tuple[Topic, ...], Meta(max_length=16)] = ()
    max_price: Annotated[Thousandths, Meta(ge=0)] = 0


class ImagePrivate(Body, frozen=True, tag_field="kind", tag="image", kw_only=True):
    """What a picture shows and how it is drawn.

    prompt, negative_prompt: up to 100,000 characters. seed: 0 to 2^53-1; job i of a request uses seed + i. guidance:
    scale in thousandths, 0 to 100000 (1000 and below: no guidance). sampler: the scheduler's name, empty for the
    model's own. salt: 32 random bytes.
    """

    prompt: Prompt
    negative_prompt: Prompt = ""
    seed: Annotated[int, Meta(ge=0, le=MAX_SEED)] = 0
    guidance: Annotated[Thousandths, Meta(ge=0, le=100_000)] = 7_500
    sampler: Annotated[str, Meta(max_length=40)] = ""
    salt: Salt


class ChatMessage(Body, frozen=True, kw_only=True):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Prompt


class TextPrivate(Body, frozen=True, tag_field="kind", tag="text", kw_only=True):
    """What is said, and how the next token is drawn.

    messages: a conversation, put into the model's own template; or prompt: raw text to continue; exactly one of them.
    stop: up to 16 texts of up to 200 characters that end the answer and are not part of it. seed: 0 to 2^53-1; job i
    uses seed + i. temperature: thousandths, 0 (always the likeliest) to 5000. top_p, min_p: thousandths of
    probability, 0 to 1000. top_k: 0 (off) to 1000. repeat_penalty: thousandths, 0 to 5000 (1000: none). salt: 32
    random bytes.
    """

    messages: Annotated[tuple[ChatMessage, ...], Meta(max_length=1000)] = ()
    prompt: Prompt = ""
    stop: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=200)], ...], Meta(max_length=16)] = ()
    seed: Annotated[int, Meta(ge=0, le=MAX_SEED)] = 0
    temperature: Annotated[Thousandths, Meta(ge=0, le=5_000)] = 800
    top_p: Annotated[Thousandths, Meta(ge=0, le=1_000)] = 950
    top_k: Annotated[int, Meta(ge=0, le=1_000)] = 40
    min_p: Annotated[Thousandths, Meta(ge=0, le=1_000)] = 50
    repeat_penalty: Annotated[Thousandths, Meta(ge=0, le=5_000)] = 1_000
    salt: Salt


PrivatePart = ImagePrivate | TextPrivate


def kind_of(work: Work) -> Kind:
    """`image` or `text`."""
    return "image" if isinstance(work, ImageWork) else "text"


def read_private(raw: bytes) -> PrivatePart:
    """The private part in `raw`, of whichever kind it is; raises `TooLarge`, `Malformed`, `BadBody` or `BadValue`."""
    _check_size(raw)
    if codec.decode(raw, _Tagged).kind == "text":
        return _read_text(raw)
    return codec.decode(raw, ImagePrivate)


class _Tagged(Body, frozen=True, kw_only=True):
    kind: Kind


def open_private(raw: bytes, digest: bytes, work: Work) -> PrivatePart:
    """The private part in `raw`, if it is the one that `digest` binds and it fits the public measures."""
    if private_digest(raw) != digest:
        raise PrivatePartMismatch("the private part is not the one whose digest was signed")
    return check_private(raw, work)


def check_private(raw: bytes, work: Work) -> PrivatePart:
    """The private part in `raw`; raises `PrivatePartMismatch` or `BadValue` if it does not fit the public measures."""
    _check_size(raw)
    if not isinstance(work, ImageWork):
        return _read_text(raw)
    private = codec.decode(raw, ImagePrivate)
    if (private.guidance > 1_000) != (work.guidance_passes == 2):
        raise PrivatePartMismatch(
            f"guidance {private.guidance} with {work.guidance_passes} guidance passes: above 1000 takes 2, else 1"
        )
    return private


def _check_size(raw: bytes) -> None:
    if len(raw) > MAX_PRIVATE_BYTES:
        raise TooLarge(f"a private part of {len(raw)} bytes: at most {MAX_PRIVATE_BYTES}")


def _read_text(raw: bytes) -> TextPrivate:
    private = codec.decode(raw, TextPrivate)
    if bool(private.messages) == bool(private.prompt):
        raise BadValue("a text request has either messages or a raw prompt, and not both")
    return private


def texts_of(private: PrivatePart) -> Sequence[str]:
    """Every field through which somebody's words can come."""
    if isinstance(private, ImagePrivate):
        return (private.prompt, private.negative_prompt)
    return (private.prompt, *(message.content for message in private.messages), *private.stop)
