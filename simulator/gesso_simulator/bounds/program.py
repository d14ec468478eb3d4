"""A small builder of sparse linear programmes over blocks of variables, solved by HiGHS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_array

from .instance import Floats, Ints

#: (variables, coefficients).
Terms = Sequence[tuple[Ints, Floats | float]]


@dataclass(frozen=True)
class Solution:
    """Least cost and the variables."""

    cost: float
    x: Floats


@dataclass
class Program:
    """Minimise cost over blocks of variables; rows `sum of terms <= or == right side`.

    A term is (variables, coefficients): row r of a batch takes variable r of each term's array.
    """

    _lower: list[Floats] = field(default_factory=list)
    _upper: list[Floats] = field(default_factory=list)
    _cost: list[Floats] = field(default_factory=list)
    _size: int = 0
    _rows: dict[bool, _Rows] = field(default_factory=lambda: {False: _Rows(), True: _Rows()})

    def variables(
        self,
        count: int,
        *,
        lower: Floats | float = 0.0,
        upper: Floats | float = np.inf,
        cost: Floats | float = 0.0,
    ) -> Ints:
        """A block of new variables; their numbers."""
        for store, value in ((self._lower, lower), (self._upper, upper), (self._cost, cost)):
            store.append(np.broadcast_to(np.asarray(value, dtype=np.float64), count))
        self._size += count
        return np.arange(self._size - count, self._size)

    def rows(self, terms: Terms, right: Floats | float, *, equal: bool = False) -> Ints:
        """A batch of rows, one per entry of the first term; their numbers among those of their kind."""
        return self._rows[equal].add(terms, right)

    def also(self, rows: Ints, variables: Ints, factor: Floats | float) -> None:
        """Adds a variable each to rows that are there already, of the `==` kind."""
        self._rows[True].put(rows, variables, factor)

    def aim(self, terms: Terms) -> None:
        """Sets the cost of these variables."""
        cost = np.concatenate(self._cost)
        for variables, factor in terms:
            cost[variables] = factor
        self._cost = [cost]

    def total(self, terms: Terms, right: float) -> None:
        """One row: the sum of all entries of all terms is at most `right`."""
        store = self._rows[False]
        for variables, factor in terms:
            store.put(np.full(variables.size, store.count), variables, factor)
        store.right.append(np.array([right]))
        store.count += 1

    def solve(self) -> Solution:
        """The optimum, by HiGHS's interior point method with crossover.

        (Its simplex takes ten times as long on these programmes, and is what is tried where the other one
        stops early.) Infinite cost where there is no solution. Raises RuntimeError where HiGHS gives up.
        """
        # The stubs know no sparse matrices here.
        run: Any = linprog
        rows, sums = self._rows[False], self._rows[True]
        for method in ("highs-ipm", "highs"):
            result = run(
                np.concatenate(self._cost),
                A_ub=rows.matrix(self._size) if rows.count else None,
                b_ub=np.concatenate(rows.right) if rows.count else None,
                A_eq=sums.matrix(self._size) if sums.count else None,
                b_eq=np.concatenate(sums.right) if sums.count else None,
                bounds=np.column_stack((np.concatenate(self._lower), np.concatenate(self._upper))),
                method=method,
            )
            if result.status == 0:
                return Solution(float(result.fun), result.x)
            if result.status == 2:
                return Solution(np.inf, np.zeros(self._size))
        raise RuntimeError(f"HiGHS: {result.message}")


@dataclass
class _Rows:
    row: list[Ints] = field(default_factory=list)
    column: list[Ints] = field(default_factory=list)
    value: list[Floats] = field(default_factory=list)
    right: list[Floats] = field(default_factory=list)
    count: int = 0

    def put(self, row: Ints, column: Ints, factor: Floats | float) -> None:
        self.row.append(row)
        self.column.append(column)
        self.value.append(np.broadcast_to(np.asarray(factor, dtype=np.float64), column.size))

    def add(self, terms: Terms, right: Floats | float) -> Ints:
        size = terms[0][0].size
        numbers = np.arange(self.count, self.count + size)
        for variables, factor in terms:
            self.put(numbers, variables, factor)
        self.right.append(np.broadcast_to(np.asarray(right, dtype=np.float64), size))
        self.count += size
        return numbers

    def matrix(self, columns: int) -> Any:
        entries = (np.concatenate(self.row), np.concatenate(self.column))
        return coo_array((np.concatenate(self.value), entries), shape=(self.count, columns))
