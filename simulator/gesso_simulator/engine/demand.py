"""What routers and planners are told of the prompts: options to serve one, counts by class and by optimal K."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gesso_operator.planning import ClassCount
from gesso_router.routing.baselines.nirvana import optimal_k
from gesso_router.routing.quality import Match, Option, planning_curve, serving_options
from gesso_simulator.scenarios.spec import CacheModel, ScenarioRun


class Demand:
    """Prompts of one run as the router sees them; predicted quality only.

    Counts of arrivals go up to the request that `arrived` was last told of. A request whose prompt is looked up
    in the cache counts by what its first look-up found; one that was refused before it does not count.
    """

    def __init__(self, run: ScenarioRun, cache: CacheModel | None = None) -> None:
        work = run.workload
        self._run = run
        self._cache = cache
        self._options: dict[int, tuple[Option, ...]] = {}
        self._prompt: list[int] = work.prompt.tolist()
        self._similarity: list[float] = work.similarity.tolist()
        self._predicted: list[list[float]] = work.predicted.tolist()
        self._variants = [(v.skipped_steps, v.model) for v in run.variants]
        self._levels_held = tuple(k for k in run.ladder if k)
        names = list(dict.fromkeys(run.prompt_classes))
        if cache is not None:
            names += [name for name in run.predictor.class_names if name not in names]
        number = {name: i for i, name in enumerate(names)}
        self._names = names
        self._number = number
        self._class_of = np.array([number[name] for name in run.prompt_classes], dtype=np.int64)
        best = [optimal_k(s, run.ladder, run.steps) for s in self._similarity]
        self._optimal: NDArray[np.int64] = np.array(best, dtype=np.int64)
        self._optimal_index = np.searchsorted(np.array(run.ladder), self._optimal)
        self._arrivals = np.zeros(len(names), dtype=np.int64)
        self._quality = np.zeros((len(names), len(run.variants)))
        self._levels = np.zeros(len(run.ladder), dtype=np.int64)
        self._counted = 0
        known = ~np.isnan(work.similarity)
        #: Prompts whose similarity only a look-up tells.
        self._unknown = ~known if cache is not None else np.zeros(len(known), dtype=np.bool_)
        self._found_k: dict[int, int] = {}
        told = known | self._unknown
        mean = work.predicted[told].mean(0) if told.any() else np.ones(len(run.variants))
        #: Mean predicted quality by (model, K): all that a prompt-agnostic policy knows.
        self.mean_quality = {
            (v.model, v.skipped_steps): float(q) for v, q in zip(run.variants, mean, strict=True)
        }

    def options(self, request: int, now_s: float) -> tuple[Option, ...]:
        """How the prompt of a request may be served."""
        prompt = self._prompt[request]
        found = self._options.get(prompt)
        if found is None:
            similarity = self._similarity[prompt]
            if math.isnan(similarity):
                return self._looked_up(request, prompt, now_s)
            found = self._options[prompt] = self._given(prompt, similarity)
        return found

    def arrived(self, requests: int) -> None:
        """So many requests have come in all."""
        prompts = self._run.workload.prompt[self._counted : requests]
        self._counted = requests
        prompts = prompts[~self._unknown[prompts]]
        if not len(prompts):
            return
        classes = self._class_of[prompts]
        np.add.at(self._arrivals, classes, 1)
        np.add.at(self._quality, classes, self._run.workload.predicted[prompts])
        np.add.at(self._levels, self._optimal_index[prompts], 1)

    @property
    def classes(self) -> tuple[ClassCount, ...]:
        """Arrivals and mean predicted quality by class, as the router reports them."""
        return tuple(
            ClassCount(name, int(n), tuple((quality / n).tolist()))
            for name, n, quality in zip(self._names, self._arrivals, self._quality, strict=True)
            if n
        )

    @property
    def optimal_levels(self) -> tuple[tuple[int, int], ...]:
        """Arrivals by optimal K."""
        return tuple(zip(self._run.ladder, self._levels.tolist(), strict=True))

    @property
    def predicted_k(self) -> NDArray[np.int64]:
        """Optimal K of each request (n,); -1 of one that was never looked up."""
        prompts = self._run.workload.prompt
        found = np.where(self._unknown[prompts], -1, self._optimal[prompts])
        for request, k in self._found_k.items():
            found[request] = k
        return found

    def _given(self, prompt: int, similarity: float) -> tuple[Option, ...]:
        """All levels of the one entry whose similarity is given; where it lies is not known, nor a cost."""
        match = Match(str(prompt), "", similarity, self._levels_held)
        return tuple(
            [
                Option(k, q, match if k and not model else None, model)
                for (k, model), q in zip(self._variants, self._predicted[prompt], strict=True)
                if q > 0
            ]
        )

    def _looked_up(self, request: int, prompt: int, now_s: float) -> tuple[Option, ...]:
        """What the simulated cache holds now."""
        matches = self._cache.lookup(prompt, now_s) if self._cache is not None else ()
        own = serving_options(self._run.predictor, matches)
        if self._cache is not None and request not in self._found_k:
            self._classify(request, prompt, matches, own)
        others = tuple(
            Option(k, q, None, model)
            for (k, model), q in zip(self._variants, self._predicted[prompt], strict=True)
            if model and q > 0
        )
        return own + others

    def _classify(
        self, request: int, prompt: int, matches: Sequence[Match], own: Sequence[Option]
    ) -> None:
        """Counts a request as the live router's ledger does: by its nearest entry and what is really held."""
        run = self._run
        similarity = matches[0].similarity if matches else None
        number = self._number[run.predictor.prompt_class(similarity)]
        self._arrivals[number] += 1
        held = planning_curve(own, run.ladder).quality
        others = run.workload.predicted[prompt, len(held) :]
        self._quality[number] += np.concatenate([held, others])
        best = optimal_k(math.nan if similarity is None else similarity, run.ladder, run.steps)
        self._found_k[request] = best
        self._levels[run.ladder.index(best)] += 1
