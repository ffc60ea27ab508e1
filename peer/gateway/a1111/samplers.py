"""Samplers and schedulers by the names that AUTOMATIC1111 gave them, and what a request of ours calls them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from peer.gateway.errors import Troubled

#: The model's own sampler, which is the best that one can ask for without knowing the model.
OWN = "Automatic"
KARRAS = "karras"


@dataclass(frozen=True)
class Sampler:
    """One sampler. name: in menus. ours: in a request. aliases: other names that clients send; ours is one besides."""

    name: str
    ours: str
    aliases: tuple[str, ...] = ()


SAMPLERS = (
    Sampler(OWN, ""),
    Sampler("DPM++ 2M", "dpmpp_2m", ("k_dpmpp_2m",)),
    Sampler("DPM++ 2M Karras", "dpmpp_2m_karras", ("k_dpmpp_2m_ka",)),
    Sampler("DPM++ 2M SDE", "dpmpp_2m_sde", ("k_dpmpp_2m_sde",)),
    Sampler("DPM++ 2S", "dpmpp_2s"),
    Sampler("Euler a", "euler_a", ("k_euler_a", "k_euler_ancestral")),
    Sampler("Euler", "euler", ("k_euler",)),
    Sampler("Heun", "heun", ("k_heun",)),
    Sampler("DPM2", "dpm2", ("k_dpm_2",)),
    Sampler("DPM2 a", "dpm2_a", ("k_dpm_2_a",)),
    Sampler("DDIM", "ddim"),
    Sampler("DDPM", "ddpm"),
    Sampler("DEIS", "deis"),
    Sampler("LCM", "lcm"),
    Sampler("PLMS", "pndm"),
    Sampler("UniPC", "unipc"),
    Sampler("Euler FlowMatch", "euler_flow"),
    Sampler("Heun FlowMatch", "heun_flow"),
)
#: What a scheduler makes of a sampler, where a request of ours has a name for the two together.
TOGETHER = {("dpmpp_2m", KARRAS): "dpmpp_2m_karras", ("dpmpp_2m_karras", KARRAS): "dpmpp_2m_karras"}

_BY_NAME = {
    name.lower(): sampler for sampler in SAMPLERS for name in (sampler.name, sampler.ours, *sampler.aliases) if name
}


def find(sampler: str, scheduler: str) -> Sampler:
    """The sampler of this name, with this scheduler; upper and lower case are one. Empty means the model's own.

    Raises `Troubled`, which names those that there are.
    """
    found = _BY_NAME.get((sampler or OWN).lower())
    if found is None:
        there = ", ".join(one.name for one in SAMPLERS)
        raise Troubled("not_found", f"no sampler {sampler[:40]!r}: there are {there}", "sampler_name")
    if (scheduler or OWN).lower() == OWN.lower():
        return found
    together = TOGETHER.get((found.ours, scheduler.lower()))
    if together is None:
        raise Troubled(
            "unsupported",
            f"no scheduler {scheduler[:40]!r} for the sampler {found.name}: ask for {OWN}, or for Karras with DPM++ 2M",
            "scheduler",
        )
    return _BY_NAME[together]


def sampler_items() -> list[dict[str, Any]]:
    """As `/samplers` lists them."""
    return [
        {"name": one.name, "aliases": [alias for alias in (*one.aliases, one.ours) if alias], "options": {}}
        for one in SAMPLERS
    ]


def scheduler_items() -> list[dict[str, Any]]:
    """As `/schedulers` lists them."""
    return [
        {"name": OWN.lower(), "label": OWN, "aliases": None, "default_rho": -1.0, "need_inner_model": False},
        {"name": KARRAS, "label": "Karras", "aliases": None, "default_rho": 7.0, "need_inner_model": False},
    ]
