"""Known covariances in whatever form, and what can be asked of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.sparse import csc_array

from mixedmodels.errors import DataError, OptionError, SolverError
from mixedmodels.genetics import Pedigree, Relationship, as_relationship

K = np.array([[1.0, 0.5, 0.25], [0.5, 1.0, 0.25], [0.25, 0.25, 1.5]])
IDS = np.array(["a", "b", "c"], dtype=object)


def forms():
    named = pd.DataFrame(K, columns=IDS, index=IDS)
    plain = pd.DataFrame(K, columns=IDS)
    first = plain.copy()
    first.insert(0, "id", IDS)
    return {
        "relationship": Relationship(ids=IDS, matrix=K),
        "pair": (K, IDS),
        "sparse pair": (csc_array(K), ["a", "b", "c"]),
        "named frame": named,
        "frame": plain,
        "frame with ids first": first,
        "polars": pl.from_pandas(first),
        "dict": {name: K[:, j] for j, name in enumerate(IDS)},
    }


@pytest.mark.parametrize("form", forms())
def test_every_form_gives_the_same(form):
    rel = as_relationship(forms()[form])
    assert [str(i) for i in rel.ids] == ["a", "b", "c"]
    np.testing.assert_array_equal(rel.toarray(), K)
    precision, logdet = rel.as_precision()
    np.testing.assert_allclose(precision.toarray(), np.linalg.inv(K), atol=1e-14)
    assert logdet == pytest.approx(np.log(np.linalg.det(K)))


def test_a_pedigree_means_its_additive_relationships(inbred):
    rel = as_relationship(inbred)
    assert rel.name == "additive" and rel.precision is not None
    np.testing.assert_allclose(np.asarray(rel), inbred.additive().toarray())


def test_labels_are_found_as_numbers_and_as_texts():
    rel = Relationship(ids=np.array([10, 20, 30]), matrix=K)
    assert rel.index([30, 10, 99]).tolist() == [2, 0, -1]
    assert rel.index(["20", "x"]).tolist() == [1, -1]
    texts = Relationship(ids=np.array(["10", "20", "30"], dtype=object), matrix=K)
    assert texts.index(np.array([30, 40])).tolist() == [2, -1]


@pytest.mark.parametrize("given", ["matrix", "sparse matrix", "precision", "sparse precision"])
def test_a_subset_is_the_marginal_covariance(given):
    form = csc_array if "sparse" in given else np.asarray
    if "precision" in given:
        rel = Relationship(ids=IDS, precision=form(np.linalg.inv(K)))
    else:
        rel = Relationship(ids=IDS, matrix=form(K))
    part = rel.subset(["c", "a"])
    assert part.ids.tolist() == ["c", "a"]
    np.testing.assert_allclose(part.toarray(), K[np.ix_([2, 0], [2, 0])], atol=1e-14)
    assert rel.as_precision()[1] == pytest.approx(np.log(np.linalg.det(K)))
    with pytest.raises(DataError, match="has no individual 'z'"):
        rel.subset(["a", "z"])


def test_a_subset_of_a_pedigree(inbred):
    A = inbred.additive()
    ids = inbred.ids[[130, 2, 77]]
    np.testing.assert_allclose(A.subset(ids).toarray(), A.toarray()[np.ix_([130, 2, 77], [130, 2, 77])])


def test_products_entry_by_entry(inbred):
    A = inbred.additive()
    dense = A.toarray()
    np.testing.assert_allclose(A.hadamard().toarray(), dense**2)
    ids = inbred.ids[::-1]
    D = inbred.dominance(ids)
    AD = A.hadamard(D)
    assert AD.name == "additive x dominance"
    np.testing.assert_allclose(AD.toarray(), dense * np.asarray(D)[::-1, ::-1])
    np.testing.assert_allclose(D.hadamard(A).toarray(), (dense * np.asarray(D)[::-1, ::-1])[::-1, ::-1])
    with pytest.raises(DataError, match="not of the same individuals"):
        A.hadamard(inbred.dominance(ids[:5]))


def test_families_of_many_sizes_are_inverted_together():
    rng = np.random.default_rng(0)
    blocks = [(lambda L: L @ L.T + np.eye(k))(rng.standard_normal((k, k))) for k in (1, 3, 2, 3, 1, 5, 2, 2)]
    from scipy.sparse import block_diag

    A = block_diag(blocks).toarray()
    order = rng.permutation(len(A))
    A = A[np.ix_(order, order)]
    precision, logdet = Relationship(ids=np.arange(len(A)), matrix=csc_array(A)).as_precision()
    np.testing.assert_allclose(precision.toarray(), np.linalg.inv(A), atol=1e-13)
    assert logdet == pytest.approx(np.linalg.slogdet(A)[1])
    A[4] = 0.0
    A[:, 4] = 0.0
    with pytest.raises(SolverError, match="not positive definite"):
        Relationship(ids=np.arange(len(A)), matrix=csc_array(A)).as_precision()


def test_bending_makes_a_singular_matrix_definite():
    twins = Relationship(ids=IDS, matrix=np.array([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]]), name="twins")
    with pytest.raises(SolverError, match=r"'twins' is not positive definite .* \.bend\(\)"):
        twins.as_precision()
    bent = twins.bend(0.01)
    assert "1 of 3 eigenvalues" in bent.notes[0]
    assert np.linalg.eigvalsh(bent.toarray())[0] == pytest.approx(0.02)
    bent.as_precision()
    good = Relationship(ids=IDS, matrix=K)
    assert good.bend() is good
    with pytest.raises(OptionError, match="positive ratio"):
        good.bend(0)


def test_a_sparse_precision_that_is_not_definite():
    bad = csc_array(np.array([[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(SolverError, match="not positive definite"):
        Relationship(ids=IDS[:2], precision=bad).as_precision()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Relationship(ids=IDS), OptionError, "needs a matrix or a precision"),
        (lambda: Relationship(ids=IDS, matrix=K[:2]), DataError, "is 2 x 3; it must be square"),
        (lambda: Relationship(ids=IDS[:2], matrix=K), DataError, "2 ids and a matrix of 3 rows"),
        (lambda: Relationship(ids=np.array(["a", "b", "a"]), matrix=K), DataError, "'a' stands twice"),
        (lambda: Relationship(ids=IDS, matrix=K * np.nan), DataError, "NaN or infinite"),
        (lambda: Relationship(ids=IDS, matrix=K + np.triu(K, 1)), DataError, "not symmetric"),
        (lambda: as_relationship(K), OptionError, "not ndarray"),
        (lambda: as_relationship(None, "known['animal']"), OptionError, r"known\['animal'\]: a known cov"),
        (lambda: as_relationship("A"), OptionError, "not str"),
        (lambda: as_relationship(pd.DataFrame(K[:2], columns=IDS)), DataError, "2 rows and 3 columns"),
        (
            lambda: as_relationship(pd.DataFrame(K, columns=IDS, index=IDS[::-1])),
            DataError,
            "rows and columns of the matrix have different ids",
        ),
        (
            lambda: as_relationship({"id": IDS[::-1], **{n: K[:, j] for j, n in enumerate(IDS)}}),
            DataError,
            "first column of the matrix and its column names differ",
        ),
        (
            lambda: as_relationship({"a": ["x", "y"], "b": [1, 2]}),
            DataError,
            "column 'a' of the matrix holds",
        ),
    ],
)
def test_what_is_no_covariance_is_said(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_the_shown_form():
    ped = Pedigree.from_frame({"id": [1, 2], "sire": [0, 1], "dam": [0, 0]})
    assert repr(ped.additive()) == "<Relationship 'additive': 2 individuals, sparse precision>"
    assert repr(as_relationship((K, IDS), "K")) == "<Relationship 'K': 3 individuals, dense matrix>"
