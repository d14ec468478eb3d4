"""The figures of a service, as its metrics show them."""

from types import SimpleNamespace

import pytest

from gesso.api import ServiceStatus
from gesso_operator.cluster.manager import _gauges
from gesso_operator.planning.explain import Decision, Reason


@pytest.mark.parametrize("reason", [Reason.NO_REPORT, Reason.RECOMMENDED, Reason.FLEET_CHANGED])
@pytest.mark.parametrize("missing", [True, False])
def test_data_is_fresh_unless_it_is_missing_whatever_the_reason(reason, missing):
    decision = Decision(None, None, False, reason, "", data_missing=missing)
    control = SimpleNamespace(status=ServiceStatus(), decision=decision)
    assert _gauges(control)["data_fresh"] == (not missing)
