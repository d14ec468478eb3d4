"""Look-ups of one prompt, as tests ask and read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gesso.rpc.v1 import worker_pb2


def one_query(**fields: Any) -> worker_pb2.LookupRequest:
    """A request of one query with these fields."""
    return worker_pb2.LookupRequest(queries=[worker_pb2.LookupQuery(**fields)])


def only_answer(response: worker_pb2.LookupResponse) -> Sequence[worker_pb2.Match]:
    """The matches of its one query."""
    (answer,) = response.answers
    return answer.matches
