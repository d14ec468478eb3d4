"""Writes the status of services, each only when it says something else than before."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from gesso.api import ServiceStatus
from gesso_operator.cluster import names
from gesso_operator.cluster.api import Api, ApiError
from gesso_operator.cluster.names import Key
from gesso_operator.logs import Log


class StatusWriter:
    """Remembers what was written last."""

    def __init__(self, api: Api, log: Log) -> None:
        """Nothing written yet."""
        self._api, self._log = api, log
        self._written: dict[Key, dict[str, Any]] = {}
        self.writes = 0

    async def write(self, key: Key, status: ServiceStatus) -> None:
        """Writes the status if it changed. Passing trouble is told, and tried again at the next call."""
        # A time of observation would be a write at each round.
        body = json.loads(status.model_dump_json(exclude={"observed_at"}))
        if self._written.get(key) == body:
            return
        try:
            await self._api.patch(
                names.API_VERSION, names.KIND, *key, {"status": body}, sub="status"
            )
        except ApiError as error:
            if error.status != 404:
                self._log.warning("status_not_written", service=str(key), detail=str(error))
            return
        self._written[key] = body
        self.writes += 1

    def forget(self, key: Key) -> None:
        """A service is gone, or somebody else may have written."""
        self._written.pop(key, None)


def status_of(body: object) -> ServiceStatus:
    """The status that an object carries, to go on from; a fresh one where it makes no sense."""
    raw = body.get("status") if isinstance(body, dict) else None
    try:
        return ServiceStatus.model_validate_json(json.dumps(raw or {}))
    except ValidationError:
        return ServiceStatus()
