"""The caller of an HTTP request, as a dependency of routes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from fastapi import Request

from gesso_router.access.callers import ANYBODY, Caller, Callers


class Authorize:
    """Lets only known callers through, and remembers who it was."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    async def __call__(self, request: Request) -> None:
        """Raises RequestError (UNKNOWN_CALLER)."""
        request.state.caller = self._callers.of(request.headers.get("authorization"))
        request.state.callers = self._callers


def caller_of(request: Request) -> Caller:
    """Who sent a request of a route that authorizes."""
    caller: Caller = getattr(request.state, "caller", ANYBODY)
    return caller


def spend(request: Request, images: int) -> None:
    """Takes so many images off the rate of who sent a request. Raises RequestError (SHED, INVALID)."""
    callers: Callers | None = getattr(request.state, "callers", None)
    if callers is not None:
        callers.spend(caller_of(request), images)


def refund(request: Request, images: int, error: Exception) -> None:
    """Gives back to who sent a request what was taken for images that were not made; see Callers."""
    callers: Callers | None = getattr(request.state, "callers", None)
    if callers is not None:
        callers.refund(caller_of(request), images, error)


def charged(request: Request, images: int) -> AbstractContextManager[None]:
    """Takes so many images off the rate of who sent a request, for the work of a block; see Callers."""
    callers: Callers | None = getattr(request.state, "callers", None)
    return nullcontext() if callers is None else callers.charged(caller_of(request), images)
