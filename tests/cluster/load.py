"""Clients of a service under test: an open-loop Poisson load over HTTP, and what became of each request."""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

_WORDS = (
    ("a small", "a large"),
    ("red", "blue", "green", "yellow"),
    ("star", "ring", "square", "circle"),
    ("above", "left of"),
    ("a small", "a large"),
    ("blue", "purple", "white"),
    ("ring", "triangle", "circle"),
)


@dataclass(frozen=True)
class Answer:
    """`outcome`: served, refused (429 or 503, with words), or lost; `tries`: 2 where the client tried again."""

    at_s: float
    outcome: str
    seconds: float
    tries: int = 1
    told: str = ""


def ask(host: str, prompt: str, timeout: float = 60.0) -> tuple[int, dict[str, Any]]:
    """One image by OpenAI's API: status and body. Raises OSError or HTTPException where the line breaks."""
    connection = http.client.HTTPConnection(host, 80, timeout=timeout)
    try:
        body = json.dumps({"prompt": prompt, "size": "64x64"})
        connection.request(
            "POST", "/v1/images/generations", body, {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"{}")
    finally:
        connection.close()


def png(body: dict[str, Any]) -> bytes:
    """The image of an answer."""
    return base64.b64decode(body["data"][0]["b64_json"])


class Load:
    """Requests as they come, whether answered or not, until `stop`; `rate` may change meanwhile."""

    def __init__(self, host: str, rate: float, seed: int = 0) -> None:
        """`rate` in images/s."""
        self.host, self.rate = host, rate
        self.answers: list[Answer] = []
        self._random = random.Random(seed)
        self._prompts = [" ".join(words) for words in itertools.product(*_WORDS)]
        self._random.shuffle(self._prompts)
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(96)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._began = time.monotonic()

    def __enter__(self) -> Load:
        """Begins."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends, and waits for what is under way."""
        self._stop.set()
        self._thread.join()
        self._pool.shutdown(wait=True)

    @property
    def now_s(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    def counts(self, since_s: float = 0.0) -> Counter[str]:
        """Answers by outcome, of requests made since."""
        return Counter(a.outcome for a in self.answers if a.at_s >= since_s)

    def lost(self) -> list[str]:
        """What was told of each request that got neither an image nor a refusal."""
        return [a.told for a in self.answers if a.outcome == "lost"]

    def _run(self) -> None:
        while not self._stop.is_set():
            self._pool.submit(self._one, self._random.choice(self._prompts))
            self._stop.wait(self._random.expovariate(self.rate))

    def _one(self, prompt: str) -> None:
        began, told = self.now_s, ""
        for tries in (1, 2):
            try:
                status, body = ask(self.host, prompt)
            except (OSError, http.client.HTTPException, ValueError) as error:
                # What any client of a replicated service does when a line breaks.
                told = repr(error)
                continue
            seconds = self.now_s - began
            if status == 200:
                self.answers.append(Answer(began, "served", seconds, tries))
                return
            told = json.dumps(body)[:200]
            if status in (429, 503):
                self.answers.append(Answer(began, "refused", seconds, tries, told))
                return
            told = f"{status}: {told}"
        self.answers.append(Answer(began, "lost", self.now_s - began, 2, told))
