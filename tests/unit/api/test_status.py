"""The typed status: transition times move only when the status flips."""

from datetime import UTC, datetime, timedelta

from gesso.api import ServiceStatus, transition

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=1)


def test_transition_time_stays_while_the_status_does():
    first = transition((), "Ready", "True", "Serving", "", NOON)
    again = transition((first,), "Ready", "True", "Other", "new words", LATER)
    assert (again.last_transition_time, again.reason) == (NOON, "Other")


def test_transition_time_moves_with_the_status():
    first = transition((), "Ready", "True", "Serving", "", NOON)
    assert transition((first,), "Ready", "False", "Down", "", LATER).last_transition_time == LATER


def test_status_is_camel_case_on_the_wire_and_reads_back():
    ready = transition((), "Ready", "True", "Serving", "", NOON)
    status = ServiceStatus(conditions=(ready,), mix="0:1,10:1", observed_at=NOON)
    text = status.model_dump_json()
    assert "lastTransitionTime" in text
    assert "planHistory" in text
    assert ServiceStatus.model_validate_json(text) == status
    assert status.condition("Ready") == ready
    assert status.condition("SLOMet") is None
