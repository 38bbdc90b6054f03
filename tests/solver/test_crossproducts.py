"""Cross-products against plain matrix products."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mixedmodels.covariance import make_covariance
from mixedmodels.design import Design, RandomTerm
from mixedmodels.errors import SolverError
from mixedmodels.solver.crossproducts import amalgamate, cross_products
from mixedmodels.solver.scaling import standardise
from mixedmodels.testing.designs import DESIGN_KINDS, random_design


def dense_factor(design, std, factor):
    """Z of one factor, shape (n, m k), levels slowest."""
    n = design.n
    codes = design.terms[factor.terms[0]].codes
    rows = np.hstack([std.Z(t) for t in factor.terms])
    out = np.zeros((n, factor.m, factor.k))
    out[np.arange(n), codes] = rows
    return out.reshape(n, -1)


def check(design):
    std = standardise(design)
    pack = cross_products(design, std)
    X, y = std.X, std.y
    np.testing.assert_allclose(pack.XX, X.T @ X, atol=1e-10)
    np.testing.assert_allclose(pack.Xy, X.T @ y, atol=1e-10)
    assert pack.yy == pytest.approx(y @ y, rel=1e-13)
    assert (pack.n, pack.p) == (design.n, design.p)
    dense = [dense_factor(design, std, factor) for factor in pack.factors]
    assert sorted(t for factor in pack.factors for t in factor.terms) == list(range(len(design.terms)))
    assert [f.m for f in pack.factors] == sorted((f.m for f in pack.factors), reverse=True)
    for factor, Z in zip(pack.factors, dense, strict=True):
        m, k = factor.m, factor.k
        full = (Z.T @ Z).reshape(m, k, m, k)
        np.testing.assert_allclose(factor.A, full[np.arange(m), :, np.arange(m)], atol=1e-10)
        np.testing.assert_array_equal(factor.A, factor.A.transpose(0, 2, 1))
        np.testing.assert_allclose(factor.ZX, (Z.T @ X).reshape(m, k, -1), atol=1e-10)
        np.testing.assert_allclose(factor.Zy, (Z.T @ y).reshape(m, k), atol=1e-10)
        assert factor.ZXy.shape == (m, k, design.p + 1)
    assert set(pack.pairs) == {(f, g) for f in range(len(dense)) for g in range(f + 1, len(dense))}
    for (f, g), table in pack.pairs.items():
        a, b = pack.factors[f], pack.factors[g]
        full = (dense[f].T @ dense[g]).reshape(a.m, a.k, b.m, b.k)
        out = np.zeros((a.m, a.k, b.m, b.k))
        for row in range(a.m):
            columns = table.indices[table.indptr[row] : table.indptr[row + 1]]
            assert np.all(np.diff(columns) > 0)
            for e, column in zip(range(table.indptr[row], table.indptr[row + 1]), columns, strict=True):
                out[row, :, column, :] = table.data[e]
        np.testing.assert_allclose(out, full, atol=1e-10)
        observed = set(
            zip(design.terms[a.terms[0]].codes.tolist(), design.terms[b.terms[0]].codes.tolist(), strict=True)
        )
        assert table.nnz == len(observed)
        indptr, rows, position = table.transpose_pattern()
        for column in range(b.m):
            part = slice(indptr[column], indptr[column + 1])
            assert np.all(np.diff(rows[part]) > 0)
            assert np.all(table.indices[position[part]] == column)
        assert sorted(position.tolist()) == list(range(table.nnz))
    return std, pack


@pytest.mark.parametrize("kind", DESIGN_KINDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_random_designs(kind, seed):
    check(random_design(seed, kind))


def test_known_answer_random_intercept():
    codes = np.array([1, 0, 1, 1], dtype=np.int32)
    term = RandomTerm("g", ("(Intercept)",), codes, ("a", "b"), None, make_covariance("us", 1))
    design = Design(np.array([1.0, 2.0, 4.0, 9.0]), np.ones((4, 1)), ("(Intercept)",), (term,))
    std, pack = check(design)
    assert pack.factors[0].A.ravel().tolist() == [1.0, 3.0]
    # residuals from the mean 4: -3, -2, 0, 5; root mean square sqrt(38 / 4)
    np.testing.assert_allclose(pack.factors[0].Zy.ravel() * std.y_scale, [-2.0, 2.0], rtol=1e-14)


@pytest.mark.parametrize(
    "kind", ["one_slope", "crossed_slopes", "three_nested", "weights", "three_terms_one_group"]
)
def test_packs_of_disjoint_rows_add(kind):
    design = random_design(4, kind)
    std = standardise(design)
    whole = cross_products(design, std)
    total = None
    for rows in (slice(0, 31), slice(31, 32), slice(32, None)):
        codes = {id(t.codes): t.codes[rows].copy() for t in design.terms}
        part = Design(
            design.y[rows],
            design.X[rows],
            design.x_names,
            tuple(
                replace(t, codes=codes[id(t.codes)], Z=None if t.Z is None else t.Z[rows])
                for t in design.terms
            ),
        )
        columns = tuple((None if Z is None else Z[rows], mu, D) for Z, mu, D in std.columns)
        coordinates = replace(
            std,
            y=std.y[rows],
            X=std.X[rows],
            sqrt_weights=None if std.sqrt_weights is None else std.sqrt_weights[rows],
            columns=columns,
        )
        pack = cross_products(part, coordinates)
        total = pack if total is None else total + pack
    assert total.n == whole.n
    np.testing.assert_allclose(total.G, whole.G, atol=1e-11)
    for a, b in zip(total.factors, whole.factors, strict=True):
        np.testing.assert_allclose(a.A, b.A, atol=1e-11)
        np.testing.assert_allclose(a.ZXy, b.ZXy, atol=1e-11)
    for key, table in whole.pairs.items():
        np.testing.assert_array_equal(total.pairs[key].indptr, table.indptr)
        np.testing.assert_array_equal(total.pairs[key].indices, table.indices)
        np.testing.assert_allclose(total.pairs[key].data, table.data, atol=1e-11)


def test_packs_of_different_models_do_not_add():
    packs = []
    for kind in ("one_slope", "one_scalar"):
        design = random_design(0, kind)
        packs.append(cross_products(design, standardise(design)))
    with pytest.raises(SolverError, match="same terms and levels"):
        packs[0] + packs[1]


def test_terms_on_one_factor_are_amalgamated_by_codes_not_by_identity():
    design = random_design(0, "three_terms_one_group")
    assert amalgamate(design) == [(0, 1, 2)]
    copied = replace(design, terms=tuple(replace(t, codes=t.codes.copy()) for t in design.terms))
    assert amalgamate(copied) == [(0, 1, 2)]
    other = design.terms[1].codes.copy()
    other[0] = (other[0] + 1) % design.terms[1].m
    changed = replace(design, terms=(design.terms[0], replace(design.terms[1], codes=other), design.terms[2]))
    assert amalgamate(changed) == [(0, 2), (1,)]


@pytest.mark.parametrize("p", [0, 2, 20])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_shapes_of_the_fast_paths(p, k):
    rng = np.random.default_rng(k * 100 + p)
    n, m = 3000, 400
    X = np.column_stack([np.ones(n), rng.normal(size=(n, 20))])[:, :p]
    codes = rng.integers(0, m, n).astype(np.int32)
    Z = rng.normal(size=(n, k)) if k > 1 else None
    term = RandomTerm("g", tuple("abc"[:k]), codes, range(m), Z, make_covariance("us", k))
    other = RandomTerm("h", ("i",), (codes % 37).astype(np.int32), range(37), None, make_covariance("us", 1))
    check(Design(rng.normal(size=n), X, tuple(f"x{j}" for j in range(p)), (other, term)))
