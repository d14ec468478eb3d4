"""Kubernetes resource quantities of bytes: `256Mi`, `1.5G`, `1e9`, `1073741824`."""

from __future__ import annotations

import re
from decimal import Decimal

_SUFFIXES = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "Pi": 2**50,
}
_PATTERN = re.compile(r"(?P<number>\d{1,19}(\.\d{1,9})?)(?P<suffix>[A-Za-z]*|[eE][+-]?\d{1,2})")
LARGEST_BYTES = 2**60
#: What `parse_bytes` reads, as a pattern for the CRD, and in words.
PATTERN = (
    rf"^[0-9]{{1,19}}([.][0-9]{{1,9}})?({'|'.join(_SUFFIXES).strip('|')}|[eE][+-]?[0-9]{{1,2}})?$"
)
ALLOWED = "a quantity of bytes above 0, such as 256Mi, 1.5Gi or 1073741824, at most 1024Pi"


def parse_bytes(text: str) -> int:
    """The bytes a quantity stands for, rounded up to a whole byte.

    Follows https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/ without the
    suffix `m` (thousandths), which means nothing for bytes. Raises ValueError, naming what is allowed.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(ALLOWED)
    suffix = match["suffix"]
    if suffix in _SUFFIXES:
        scale = Decimal(_SUFFIXES[suffix])
    elif suffix[0] in "eE" and len(suffix) > 1 and suffix[1:].lstrip("+-").isdigit():
        scale = Decimal(10) ** int(suffix[1:])
    else:
        raise ValueError(f"{ALLOWED}; the suffixes are {', '.join(s for s in _SUFFIXES if s)}")
    size = Decimal(match["number"]) * scale
    whole = int(size.to_integral_value(rounding="ROUND_CEILING"))
    if not 0 < whole <= LARGEST_BYTES:
        raise ValueError(ALLOWED)
    return whole


def format_bytes(size: int) -> str:
    """The shortest exact binary quantity of `size` bytes: 134217728 gives `128Mi`."""
    for suffix in ("Pi", "Ti", "Gi", "Mi", "Ki"):
        if size and size % _SUFFIXES[suffix] == 0:
            return f"{size // _SUFFIXES[suffix]}{suffix}"
    return str(size)
