"""Kubernetes Events: what was decided and why, where `kubectl describe` shows it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from gesso_operator.cluster import names
from gesso_operator.cluster.api import Api, ApiError
from gesso_operator.cluster.objects.common import Owned
from gesso_operator.logs import Log
from gesso_operator.planning import Decision, Reason

_LONGEST_NOTE = 1000
#: Further prices come every few seconds under a swinging load: they are in the status.
_SILENT = frozenset({Reason.PRICE_UPDATED})


class EventSink:
    """Writes Events of one operator."""

    def __init__(self, api: Api, instance: str, log: Log) -> None:
        """`instance` names the operator's pod."""
        self._api, self._instance, self._log = api, instance, log

    async def decided(self, owned: Owned, decision: Decision, resizes: bool) -> None:
        """An Event for each plan that was approved, and for each change of the fleet's size."""
        planned = decision.changed and decision.reason not in _SILENT
        if not (planned or resizes):
            return
        await self.tell(owned, "Normal", decision.reason.value, "Plan", decision.message)

    async def tell(self, owned: Owned, kind: str, reason: str, action: str, note: str) -> None:
        """One Event about a service. That it could not be written is told in the log alone."""
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": f"{owned.name}.{uuid.uuid4().hex[:16]}",
                "namespace": owned.namespace,
            },
            "eventTime": now,
            "reportingController": f"{names.GROUP}/operator",
            "reportingInstance": self._instance[:128],
            "type": kind,
            "reason": reason,
            "action": action,
            "note": note[:_LONGEST_NOTE],
            "regarding": {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "namespace": owned.namespace,
                "name": owned.name,
                "uid": owned.uid,
            },
        }
        try:
            await self._api.create(body)
        except ApiError as error:
            self._log.warning("event_not_written", reason=reason, detail=str(error))
