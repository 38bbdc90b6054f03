"""Minimum-degree order: exact elimination structure, and fill no worse than simple references."""

from __future__ import annotations

import numpy as np
import pytest
from mixedmodels.solver._kernels.ordering import minimum_degree


def graph(n, edges, elements):
    """Adjacency sets with the elements' cliques filled in, and the arguments of minimum_degree."""
    plain = [set() for _ in range(n)]
    for a, b in edges:
        plain[a].add(b)
        plain[b].add(a)
    full = [set(s) for s in plain]
    for element in elements:
        for a in element:
            full[a] |= set(element) - {a}
    indptr = np.cumsum([0] + [len(s) for s in plain])
    indices = [j for s in plain for j in sorted(s)]
    eptr = np.cumsum([0] + [len(e) for e in elements])
    return full, (indptr, indices, eptr, [j for e in elements for j in e])


def eliminate(adjacency, order):
    """Neighbours below each vertex when eliminated in this order."""
    adjacency = [set(s) for s in adjacency]
    below, done = [], set()
    for v in order:
        rest = adjacency[v] - done
        below.append(rest)
        for a in rest:
            adjacency[a] |= rest
            adjacency[a].discard(a)
        done.add(v)
    return below


def fill(adjacency, order):
    return sum(len(s) for s in eliminate(adjacency, order))


def greedy_minimum_degree(adjacency):
    """Exact minimum degree, quadratic: the reference for quality."""
    adjacency = [set(s) for s in adjacency]
    left, order = set(range(len(adjacency))), []
    while left:
        v = min(left, key=lambda i: (len(adjacency[i] & left), i))
        rest = (adjacency[v] & left) - {v}
        for a in rest:
            adjacency[a] |= rest - {a}
        left.discard(v)
        order.append(v)
    return order


def random_case(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 60))
    edges = {tuple(sorted(rng.choice(n, 2, replace=False))) for _ in range(int(rng.integers(0, 2 * n)))}
    elements = [
        sorted(rng.choice(n, int(rng.integers(1, min(6, n + 1))), replace=False).tolist())
        for _ in range(int(rng.integers(0, n)))
    ]
    return n, edges, elements


def test_star_and_path_have_no_fill():
    n = 50
    for edges in ({(0, i) for i in range(1, n)}, {(i, i + 1) for i in range(n - 1)}):
        full, args = graph(n, edges, [])
        order, _ = minimum_degree(*args)
        assert fill(full, order) == n - 1


def test_empty_graph():
    order, pivots = minimum_degree([0, 0, 0, 0], [])
    assert sorted(order) == [0, 1, 2]
    assert all(len(below) == 0 for _, below in pivots)


@pytest.mark.parametrize("seed", range(40))
def test_structure_is_that_of_elimination(seed):
    n, edges, elements = random_case(seed)
    full, args = graph(n, edges, elements)
    order, pivots = minimum_degree(*args)
    assert sorted(order) == list(range(n))
    exact = dict(zip(order.tolist(), eliminate(full, order.tolist()), strict=True))
    for columns, below in pivots:
        for i, v in enumerate(columns.tolist()):
            assert exact[v] == set(columns.tolist()[i + 1 :]) | set(below.tolist())


@pytest.mark.parametrize("seed", range(12))
def test_dense_remainder_contains_the_structure(seed):
    n, edges, elements = random_case(100 + seed)
    full, args = graph(n, edges, elements)
    order, pivots = minimum_degree(*args, stop=0.7)
    exact = dict(zip(order.tolist(), eliminate(full, order.tolist()), strict=True))
    for columns, below in pivots:
        for i, v in enumerate(columns.tolist()):
            assert exact[v] <= set(columns.tolist()[i + 1 :]) | set(below.tolist())


def test_fill_close_to_exact_minimum_degree():
    ours = reference = natural = 0
    for seed in range(40):
        n, edges, elements = random_case(seed)
        full, args = graph(n, edges, elements)
        ours += fill(full, minimum_degree(*args)[0].tolist())
        reference += fill(full, greedy_minimum_degree(full))
        natural += fill(full, range(n))
    assert ours <= 1.05 * reference
    assert ours < natural


def test_grid_beats_natural_order():
    side = 24
    index = np.arange(side * side).reshape(side, side)
    edges = set(zip(index[:, :-1].ravel().tolist(), index[:, 1:].ravel().tolist(), strict=True))
    edges |= set(zip(index[:-1].ravel().tolist(), index[1:].ravel().tolist(), strict=True))
    full, args = graph(side * side, edges, [])
    ours = fill(full, minimum_degree(*args)[0].tolist())
    assert ours < 0.55 * fill(full, range(side * side))
    assert ours <= 1.15 * fill(full, greedy_minimum_degree(full))


def test_elements_equal_their_cliques():
    rng = np.random.default_rng(5)
    n = 80
    elements = [sorted(rng.choice(n, 3, replace=False).tolist()) for _ in range(60)]
    full, args = graph(n, set(), elements)
    cliques, explicit = graph(n, {(a, b) for a in range(n) for b in full[a] if a < b}, [])
    assert full == cliques
    by_elements = fill(full, minimum_degree(*args)[0].tolist())
    by_edges = fill(full, minimum_degree(*explicit)[0].tolist())
    assert by_elements <= 1.3 * by_edges
