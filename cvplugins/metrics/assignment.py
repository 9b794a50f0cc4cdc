"""Choose pairs of rows and columns that together score most, each row and each column at most once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["assign"]

Floats = NDArray[np.floating]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


def assign(row: Integers, column: Integers, score: Floats) -> Integers:
    """Return the places of the chosen pairs: a one-to-one matching of the greatest total score.

    Rows and columns that no chain of pairs connects do not compete, so each connected part is solved by itself. If in
    a part each row has one best pair and no two of these share a column, they are the solution, since no row could do
    better; the same holds with rows and columns exchanged. Only other parts need scipy's ``linear_sum_assignment``.

    Args:
        row: Row of each possible pair, from 0, ``(P,)``.
        column: Its column, from 0, ``(P,)``.
        score: What it is worth, above 0, ``(P,)``.

    Returns:
        Rising places in ``row``, at most as many as there are rows or columns.

    Example:
        >>> assign(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([0.9, 0.8, 0.7])).tolist()  # 0.8 + 0.7 > 0.9
        [1, 2]
    """
    from scipy.optimize import linear_sum_assignment  # here, because it takes long to import
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if len(row) == 0:
        return np.zeros(0, np.int64)
    rows, columns = int(row.max()) + 1, int(column.max()) + 1
    size = rows + columns
    graph = coo_matrix((np.ones(len(row), np.int8), (row, rows + column)), shape=(size, size))
    part = connected_components(graph, directed=False)[1][row]
    by_row, by_column = _best(row, score), _best(column, score)
    solved_by_row = _solves(by_row, row, column, part)
    solved_by_column = _solves(by_column, row, column, part) & ~solved_by_row
    chosen = (by_row & solved_by_row[part]) | (by_column & solved_by_column[part])
    left = np.flatnonzero(~(solved_by_row | solved_by_column)[part])
    left = left[np.argsort(part[left], kind="stable")]
    starts = np.flatnonzero(np.diff(part[left], prepend=-1))
    for some in np.split(left, starts[1:]) if len(left) else []:
        own_rows, own_row = np.unique(row[some], return_inverse=True)
        own_columns, own_column = np.unique(column[some], return_inverse=True)
        table = np.zeros((len(own_rows), len(own_columns)))
        table[own_row, own_column] = score[some]
        match = linear_sum_assignment(table, maximize=True)
        is_chosen = np.zeros(table.shape, bool)
        is_chosen[match] = True
        chosen[some] = is_chosen[own_row, own_column]
    return np.flatnonzero(chosen)


def _best(key: Integers, score: Floats) -> Flags:
    """Return which pairs have the best score of all with their key; equals are all best."""
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    best = np.repeat(np.maximum.reduceat(score[order], starts), np.diff(np.append(starts, len(key))))
    is_best = np.zeros(len(key), bool)
    is_best[order] = score[order] == best
    return is_best


def _solves(best: Flags, row: Integers, column: Integers, part: Integers) -> Flags:
    """Return for each part whether its best pairs share neither a row nor a column."""
    shared = (np.bincount(row[best])[row[best]] > 1) | (np.bincount(column[best])[column[best]] > 1)
    solved = np.ones(int(part.max()) + 1, bool)
    solved[part[best][shared]] = False
    return solved
