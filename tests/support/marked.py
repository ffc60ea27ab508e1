"""Processes known by a mark in their environment, which children inherit from whoever started them."""

from __future__ import annotations

import secrets

import psutil

NAME = "POTLUCK_TEST_MARK"


def new_mark() -> dict[str, str]:
    """For the environment of a process; its descendants have it too, whatever session or group they are in."""
    return {NAME: secrets.token_hex(16)}


def marked(mark: dict[str, str]) -> list[psutil.Process]:
    """All processes with this mark that have not ended."""
    return [process for process in psutil.process_iter() if _has(process, mark)]


def _has(process: psutil.Process, mark: dict[str, str]) -> bool:
    try:
        ended = process.status() == psutil.STATUS_ZOMBIE
        return not ended and process.environ().get(NAME) == mark[NAME]
    except psutil.Error:  # it has just ended, or is somebody else's
        return False
