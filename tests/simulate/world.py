"""What the world is like: every figure that is assumed, with its unit and its reason, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field

from protocol.prices import price
from protocol.rules import Rules
from protocol.work import ImageWork, PublicPart, TextWork

PICTURES = "pictures"
TEXTS = "texts"
GROUPS = ("casual", "heavy", "contributors", "services", "anonymous")


def _picture(side: int, steps: int) -> PublicPart:
    return PublicPart(work=ImageWork(width=side, height=side, steps=steps), models=(PICTURES,))


def _text(tokens: int) -> PublicPart:
    return PublicPart(work=TextWork(max_tokens=tokens, context_tokens=2048), models=(TEXTS,))


#: What people ask for, and how often of a thousand. All of it is open to people without an account.
MIX: tuple[tuple[int, PublicPart], ...] = (
    (150, _picture(512, 20)),
    (250, _picture(512, 30)),
    (150, _picture(768, 30)),
    (100, _picture(1024, 30)),
    (150, _text(128)),
    (150, _text(256)),
    (50, _text(512)),
)


@dataclass(frozen=True)
class World:
    """A small public horde.

    days: virtual days in which people ask. Afterwards what is under way comes to its end.
    load: work offered, of what all machines can do; the wanted figures speak of 0.9.
    swing: how much more than on average is asked for at the busiest hour, and less at the quietest. Small, since
    machines of volunteers follow the day as their requests do, and load is what is asked for over what there is.
    speeds: of the machines of owners who ask as well, one each; 1 works a kudo's worth in `seconds_a_kudo`. Home GPUs
    of three generations differ by about as much.
    givers: owners who ask for nothing, with machines of speed 1, as the attacker's is: what it gets is held against
    what they get.
    seconds_a_kudo: chosen so that a job takes a minute on average at speed 1. Prices are taken to be right: a second of
    a machine is worth the same whatever it works on. Where they are not, who picks what is dear gains that much.
    noise: spread (sigma of the logarithm) of what a job takes about that.
    batches: how many results a request wants, drawn evenly.
    shares: of the work offered, in thousandths, by group.
    casual, heavy, services, blocks: how many accounts, and address blocks of anonymous people, there are.
    gift: kudos that a casual account has in the beginning, on average; so that some of their jobs are paid.
    savings: kudos that each owner who asks has in the beginning: they have been here for weeks.
    ahead: leases that a worker takes while it works, as `potluck worker` does.
    accept, open: milliseconds from lease to acceptance, and to the opening of the stream.
    checks: how often, of a thousand, a requester sees that a result is rubbish and denies it.
    """

    days: float = 7.0
    load: float = 0.9
    swing: float = 0.1
    speeds: tuple[float, ...] = (0.6, 0.8, 0.9, 1.2, 1.5)
    givers: int = 5
    seconds_a_kudo: float = 5.1
    noise: float = 0.2
    batches: tuple[int, ...] = (1, 1, 1, 1, 1, 1, 2, 3)
    shares: dict[str, int] = field(
        default_factory=lambda: {
            "casual": 200,
            "heavy": 200,
            "contributors": 200,
            "services": 150,
            "anonymous": 250,
        }
    )
    casual: int = 1_800
    heavy: int = 40
    services: int = 3
    blocks: int = 400
    gift: int = 20
    savings: int = 20_000
    ahead: int = 1
    accept: int = 200
    open: int = 300
    checks: int = 700

    def seconds(self, public: PublicPart) -> float:
        """What a machine of speed 1 takes for one of these, on average."""
        model = public.models[0]
        return price(_USUAL, public.work, model) / 1000 * self.seconds_a_kudo

    @property
    def capacity(self) -> float:
        """The speeds of all honest machines together."""
        return sum(self.speeds) + self.givers

    @property
    def mean_seconds(self) -> float:
        """The same for one job of the mix."""
        return sum(weight * self.seconds(public) for weight, public in MIX) / sum(weight for weight, _ in MIX)


#: What work is worth is what the usual prices say, whatever rules are tried.
_USUAL = Rules()
