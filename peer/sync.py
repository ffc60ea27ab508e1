"""Asking a horde without `async`: for scripts and notebooks.

```python
with Horde(link) as horde:
    Path("circle.png").write_bytes(horde.picture("a red circle").content)
```

It is `peer.client.Client` in a thread of its own. So it works where an event loop runs already, as in a notebook's
cell, and between two calls the connection lives on. Ctrl+C cancels what is waited for.
"""

from __future__ import annotations

import atexit
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from peer.client import CONNECT_SECONDS, LEAVE_SECONDS, Client
from peer.events import Event, Picture
from peer.loop import LoopThread
from peer.results import Answer, AnswerOptions, ImageOptions, PictureOptions, TextOptions
from protocol.keys import SigningKey
from protocol.links import Link
from protocol.messages import Account, ActEntry, Appeals, Quote
from protocol.rules import Rules
from protocol.work import ImageWork, TextWork

if TYPE_CHECKING:
    from peer.home import Home

T = TypeVar("T")


class Horde:
    """One requester in one horde. Use it in a `with` block, or `open` and `close` it, as in cells of a notebook.

    Takes what `peer.client.Client` takes. Several threads may share one. What is open when the program ends is closed.
    """

    def __init__(
        self,
        link: Link | str,
        key: SigningKey | None = None,
        *,
        home: Home | None = None,
        insecure: bool = False,
        relays_only: bool = False,
        connect_seconds: float = CONNECT_SECONDS,
        leave_seconds: float = LEAVE_SECONDS,
    ) -> None:
        def make() -> Client:
            return Client(
                link,
                key,
                home=home,
                insecure=insecure,
                relays_only=relays_only,
                connect_seconds=connect_seconds,
                leave_seconds=leave_seconds,
            )

        make()  # so that a bad link is refused here
        self._make: Callable[[], Client] = make
        self._client: Client | None = None
        self._thread: LoopThread | None = None

    def open(self) -> Horde:
        """Connect; this horde itself. Raises `Unreachable` or `Refused`."""
        if self._thread is not None:
            raise RuntimeError("this horde is open already")
        thread = LoopThread("potluck")
        try:
            self._client = thread.run(self._make().__aenter__())
        except BaseException:
            thread.stop()
            raise
        self._thread = thread
        atexit.register(self.close)
        return self

    def close(self) -> None:
        """Cancel what is under way, wait a moment for what is being settled, and part. Does no harm a second time."""
        thread, client = self._thread, self._client
        self._thread = self._client = None
        atexit.unregister(self.close)
        if thread is None or client is None or not thread.runs:
            return
        try:
            thread.run(client.__aexit__(None, None, None))
        finally:
            thread.stop()

    def __enter__(self) -> Horde:
        return self if self._thread is not None else self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What is asked for

    def picture(self, prompt: str, **options: Unpack[PictureOptions]) -> Picture:
        """See `Client.picture`."""
        return self._run(lambda client: client.picture(prompt, **options))

    def answer(self, prompt: str | Sequence[tuple[str, str]], **options: Unpack[AnswerOptions]) -> Answer:
        """See `Client.answer`."""
        return self._run(lambda client: client.answer(prompt, **options))

    def image(self, prompt: str, **options: Unpack[ImageOptions]) -> Generator[Event, None, None]:
        """See `Client.image`. Leaving the loop early cancels what is not done, as soon as the generator is closed:
        Python does that when nobody holds it any more."""
        return self._each(lambda client: client.image(prompt, **options))

    def text(
        self, prompt: str | Sequence[tuple[str, str]], **options: Unpack[TextOptions]
    ) -> Generator[Event, None, None]:
        """See `Client.text`, and `image`."""
        return self._each(lambda client: client.text(prompt, **options))

    def quote(
        self, work: ImageWork | TextWork, *, models: Sequence[str] = (), n: int = 1, max_price: float = 0
    ) -> Quote:
        """See `Client.quote`."""
        return self._run(lambda client: client.quote(work, models=models, n=n, max_price=max_price))

    def why(self, job: bytes | None = None) -> dict[str, int]:
        """See `Client.why`."""
        return self._run(lambda client: client.why(job))

    # Who asks

    def account(self, worker: bytes | None = None) -> Account:
        """See `Client.account`."""
        return self._run(lambda client: client.account(worker))

    def register(self, invite: str = "") -> Account:
        """See `Client.register`."""
        return self._run(lambda client: client.register(invite))

    def acts(self) -> Sequence[ActEntry]:
        """See `Client.acts`."""
        return self._run(lambda client: client.acts())

    def appeals(self) -> Appeals:
        """See `Client.appeals`."""
        return self._run(lambda client: client.appeals())

    @property
    def account_number(self) -> int:
        """The number of our account, 0 for anonymous people."""
        return self._opened()[1].account_number

    @property
    def rules(self) -> Rules:
        """The horde's rules in force."""
        return self._opened()[1].rules

    @property
    def rules_news(self) -> str:
        """See `Client.rules_news`."""
        return self._opened()[1].rules_news

    # In the other thread

    def _opened(self) -> tuple[LoopThread, Client]:
        if self._thread is None or self._client is None:
            raise RuntimeError("this horde is not open: ask inside of `with Horde(link) as horde:`, or call open()")
        return self._thread, self._client

    def _run(self, ask: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        thread, client = self._opened()
        return thread.run(ask(client))

    def _each(self, ask: Callable[[Client], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
        thread, client = self._opened()

        async def begin() -> AsyncGenerator[T, None]:
            return ask(client)

        return _events(thread, thread.run(begin()))


def _events(thread: LoopThread, events: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    async def following() -> T | None:
        return await anext(events, None)

    try:
        while (event := thread.run(following())) is not None:
            yield event
    finally:
        thread.close(events)
