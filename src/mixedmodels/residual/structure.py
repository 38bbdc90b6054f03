"""What the user writes: correlations, variance functions and their products, without data.

``AR1("time", "subject") * VarIdent("sex")`` says the same as the text ``"ar1(time | subject) *
varident(sex)"``. A structure names the columns it needs (`Structure.needs`), meets them in
`Structure.bind`, and becomes a `mixedmodels.residual.base.BoundResidual`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.residual.data import Need, ResidualData

__all__ = [
    "FARTHEST_Z",
    "BoundCorrelation",
    "BoundVariance",
    "CorrelationStructure",
    "Product",
    "Structure",
    "VarianceFunction",
]


class Structure:
    """A residual structure before it meets the data.

    Attributes
    ----------
    tag : str
        Its name in text.
    fixed : dict
        Values of parameters that are held, by natural name.
    """

    tag: ClassVar[str] = ""
    fixed: Mapping[str, float]

    def needs(self) -> tuple[Need, ...]:
        """Columns that `bind` will ask for."""
        raise NotImplementedError

    def parts(self) -> tuple[Structure, ...]:
        """The factors of the product; a single structure is its own only factor."""
        return (self,)

    def held(self, bound: BoundCorrelation | BoundVariance) -> dict[str, float]:
        """Parameters that are held, by the natural names of `bound`."""
        return dict(self.fixed)

    def __mul__(self, other: Structure) -> Product:
        if not isinstance(other, Structure):
            return NotImplemented
        return Product((*self.parts(), *other.parts()))

    def bind(self, data: ResidualData, weights: np.ndarray | None = None) -> Any:
        """The structure with its data: a `BoundResidual`.

        Parameters
        ----------
        data : ResidualData
        weights : ndarray of float64, shape (n,), or None
            Known variances are proportional to their reciprocals.
        """
        from mixedmodels.residual.combine import bind_product

        return bind_product(self.parts(), data, weights, str(self))

    def __str__(self) -> str:
        return self._spelled()

    def __repr__(self) -> str:
        return f"<residual structure {self._spelled()}>"

    def _spelled(self) -> str:
        return self.tag


class CorrelationStructure(Structure):
    """A correlation between the rows of a group, with variances 1.

    Parameters
    ----------
    covariates : tuple of str
        Times, visits or coordinates.
    group : str or None
        Rows of different groups are independent; None puts all rows into one group.
    by : str or None
        A factor, constant in each group, whose levels have parameters of their own.
    fixed : mapping from natural name to number, optional
    """

    group: str | None
    by: str | None
    covariates: tuple[str, ...]

    def __init__(
        self,
        covariates: tuple[str, ...],
        group: str | None,
        by: str | None,
        fixed: Mapping[str, float] | None,
    ) -> None:
        self.covariates = covariates
        self.group, self.by = group, by
        self.fixed = _numbers(fixed, self.tag)

    kind: ClassVar[str] = "number"  # of the covariates

    def needs(self) -> tuple[Need, ...]:
        """Covariates, groups and strata."""
        out = [Need(text, self.kind, f"{self.tag}()") for text in self.covariates]
        if self.group is not None:
            out.append(Need(self.group, "factor", f"the groups of {self.tag}()"))
        if self.by is not None:
            out.append(Need(self.by, "factor", f"the strata of {self.tag}()"))
        return tuple(out)

    def companions(self) -> tuple[Structure, ...]:
        """Variance functions that belong to the structure (``us`` has variances by visit)."""
        return ()

    def bind_rows(
        self, data: ResidualData, codes: np.ndarray, labels: tuple[str, ...] | None
    ) -> BoundCorrelation:
        """The correlation of the rows of `data`, in groups `codes` with these labels."""
        raise NotImplementedError

    def options_text(self) -> tuple[str, ...]:
        """Options other than strata and fixed values, as they are written."""
        return ()

    def _spelled(self) -> str:
        inner = " + ".join(self.covariates) or "1"
        if self.group is not None:
            inner += f" | {self.group}"
        return _call(self.tag, inner, self.by, self.options_text(), self.fixed)


class VarianceFunction(Structure):
    """A standard deviation that changes from row to row, relative to sigma.

    Parameters
    ----------
    covariates : tuple of str
    by : str or None
        A factor whose levels have parameters of their own.
    fixed : mapping from natural name to number, optional
    """

    covariates: tuple[str, ...]
    by: str | None

    def __init__(
        self, covariates: tuple[str, ...], by: str | None, fixed: Mapping[str, float] | None
    ) -> None:
        self.covariates = covariates
        self.by = by
        self.fixed = _numbers(fixed, self.tag)

    kind: ClassVar[str] = "number"

    def needs(self) -> tuple[Need, ...]:
        """Covariates and strata."""
        out = [Need(text, self.kind, f"{self.tag}()") for text in self.covariates]
        if self.by is not None:
            out.append(Need(self.by, "factor", f"the strata of {self.tag}()"))
        return tuple(out)

    def bind_rows(self, data: ResidualData) -> BoundVariance:
        """The standard deviations of the rows of `data`."""
        raise NotImplementedError

    def options_text(self) -> tuple[str, ...]:
        """Options other than strata and fixed values, as they are written."""
        return ()

    def _spelled(self) -> str:
        return _call(self.tag, " + ".join(self.covariates), self.by, self.options_text(), self.fixed)


class Product(Structure):
    """``R = S C S``: at most one correlation C and any number of variance functions in S.

    Parameters
    ----------
    factors : tuple of Structure

    Raises
    ------
    OptionError
        Two correlations.

    Examples
    --------
    >>> from mixedmodels.residual import AR1, VarIdent
    >>> str(AR1("time", "subject") * VarIdent("sex"))
    'ar1(time | subject) * varident(sex)'
    """

    def __init__(self, factors: tuple[Structure, ...]) -> None:
        correlations = [one for one in factors if isinstance(one, CorrelationStructure)]
        if len(correlations) > 1:
            raise OptionError(
                "a residual structure has at most one correlation, got "
                f"{' and '.join(map(str, correlations))}; "
                "leave one out (random effects can describe the other)"
            )
        texts = [str(factor) for factor in factors]
        for text in texts:
            if texts.count(text) > 1:
                raise OptionError(f"{text} occurs twice in a residual structure; leave one out")
        self._factors = factors
        self.fixed = {}

    def parts(self) -> tuple[Structure, ...]:
        """The factors."""
        return self._factors

    def needs(self) -> tuple[Need, ...]:
        """Columns of all factors."""
        return tuple(need for factor in self._factors for need in factor.needs())

    def _spelled(self) -> str:
        return " * ".join(map(str, self._factors))


FARTHEST_Z = 9.0  # of 1 - |correlation| = 3e-8


class BoundCorrelation:
    """A correlation with its data; `at` gives operations with C in place of R.

    Attributes
    ----------
    n, n_phi : int
    names : tuple of str
        Coordinates.
    natural_names, kinds : tuple of str
        Parameters as people report them.
    start : ndarray, shape (n_phi,)
    features : ndarray of float64, shape (n, f)
        What the correlation of two rows depends on.
    meaning : str
        For summaries: ``"AR(1) over time"``.
    markov : (MarkovOrder, ndarray of int) or None
        For correlations of first order: their rows in order, and the place of each later row in the table of
        `neighbours`.
    farthest : float
        Largest size of a coordinate: `FARTHEST_Z` where they are Fisher's z. A correlation of one is a limit,
        and beyond that the criterion is rounding.
    """

    markov: tuple[Any, np.ndarray] | None = None
    farthest: float = np.inf

    n: int
    n_phi: int
    names: tuple[str, ...]
    natural_names: tuple[str, ...]
    kinds: tuple[str, ...]
    start: np.ndarray
    features: np.ndarray
    meaning: str

    def at(self, phi: np.ndarray) -> Any:
        """C at phi: whiten, change, ..., `hadamard` and `diagonal`."""
        raise NotImplementedError

    def neighbours(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For correlations of first order: Fisher's z of the correlation with the row before, a table (m,).

        With its derivatives, (n_phi, m) and (n_phi, n_phi, m).
        """
        raise NotImplementedError

    def natural(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Natural values and their Jacobian in phi."""
        raise NotImplementedError

    def natural_curvature(self, phi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """``sum_r weights_r d2 value_r`` of `natural`, shape (n_phi, n_phi)."""
        raise NotImplementedError

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Coordinates of natural values."""
        raise NotImplementedError

    def correlate(self, phi: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Correlations of pairs of different rows of one group with features a and b, shape (N, f) each."""
        raise NotImplementedError

    def row_variances(self, phi: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Diagonal of C for rows with these features, shape (N,); 1 for a correlation."""
        return np.ones(features.shape[0])

    def new_features(self, data: ResidualData) -> np.ndarray:
        """Features of rows of new data."""
        raise NotImplementedError


class BoundVariance:
    """A variance function with its data.

    Attributes
    ----------
    n_phi : int
    names, natural_names, kinds : tuple of str
    start : ndarray, shape (n_phi,)
    needs_fitted : bool
    meaning : str
    row_key : ndarray, shape (n,), or None
        Rows with equal keys have equal standard deviations at every phi; None where that is not known.
    """

    row_key: np.ndarray | None = None

    n_phi: int
    names: tuple[str, ...]
    natural_names: tuple[str, ...]
    kinds: tuple[str, ...]
    start: np.ndarray
    needs_fitted: bool = False
    meaning: str = ""

    def log_sd(self, phi: np.ndarray) -> np.ndarray:
        """Logarithms of the standard deviations, shape (n,)."""
        raise NotImplementedError

    def first(self, phi: np.ndarray) -> np.ndarray:
        """Their derivatives, shape (n_phi, n)."""
        raise NotImplementedError

    def second(self, phi: np.ndarray, i: int, j: int) -> np.ndarray | None:
        """A second derivative, shape (n,); None for zero."""
        return None

    def start_from(self, r: np.ndarray) -> np.ndarray:
        """Coordinates that residuals of least squares, (n,), suggest; the start by default."""
        return self.start

    def natural(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Natural values and their Jacobian in phi; the coordinates themselves by default."""
        return phi.copy(), np.eye(self.n_phi)

    def natural_curvature(self, phi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """``sum_r weights_r d2 value_r`` of `natural`, shape (n_phi, n_phi)."""
        return np.zeros((self.n_phi, self.n_phi))

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Coordinates of natural values."""
        return np.array(values, dtype=np.float64)

    def with_fitted(self, fitted: np.ndarray) -> BoundVariance:
        """The same with these fitted values as covariate."""
        return self

    def on(self, data: ResidualData, fitted: np.ndarray | None) -> BoundVariance:
        """The same function, with the parameters of the fit, for rows of new data."""
        raise NotImplementedError


def _numbers(fixed: Mapping[str, float] | None, tag: str) -> dict[str, float]:
    out = {}
    for name, value in (fixed or {}).items():
        if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
            raise OptionError(
                f"{tag}(): {name} = {value!r} is not an option of {tag}() nor a number at which to "
                "hold a parameter"
            )
        out[name] = float(value)
    return out


def _call(tag: str, inner: str, by: str | None, options: tuple[str, ...], fixed: Mapping[str, float]) -> str:
    pieces = [inner] if inner else []
    if by is not None:
        pieces.append(f"by={by}")
    pieces += options
    pieces += [f"{name}={value:g}" for name, value in fixed.items()]
    return f"{tag}({', '.join(pieces)})"
