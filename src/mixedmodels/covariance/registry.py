"""The table of covariance structures: tag in a formula -> class."""

from __future__ import annotations

from functools import lru_cache

from mixedmodels.covariance.base import Covariance
from mixedmodels.covariance.diag import Diagonal
from mixedmodels.covariance.homdiag import ScaledIdentity
from mixedmodels.covariance.us import Unstructured
from mixedmodels.errors import NotImplementedYetError, OptionError

__all__ = ["available_tags", "make_covariance", "planned_tags"]

_FITTED: dict[str, type] = {"us": Unstructured, "diag": Diagonal, "homdiag": ScaledIdentity}

_PLANNED: dict[str, str] = {
    "cs": "compound symmetry, separate variances",
    "homcs": "compound symmetry, one variance",
    "ar1": "first-order autoregression, one variance",
    "hetar1": "first-order autoregression, separate variances",
    "toep": "Toeplitz correlation",
    "ou": "Ornstein-Uhlenbeck process in time",
    "exp": "exponential decay with distance",
    "gau": "Gaussian decay with distance",
    "mat": "Matern correlation",
    "rr": "reduced rank",
    "propto": "proportional to a known matrix",
    "equalto": "equal to a known matrix",
}


def available_tags() -> tuple[str, ...]:
    """Tags of the structures this version fits."""
    return tuple(_FITTED)


def planned_tags() -> tuple[str, ...]:
    """Tags that are understood in a formula but not fitted by this version."""
    return tuple(_PLANNED)


def make_covariance(tag: str, k: int, **options: object) -> Covariance:
    """Covariance structure for a tag and a number of columns.

    Instances are immutable and shared: the same tag and k give the same object.

    Parameters
    ----------
    tag : str
        ``"us"``, ``"diag"`` or ``"homdiag"``.
    k : int
        Columns of the term, at least 1.
    **options
        Further arguments of the structure; none of the present ones takes any.

    Returns
    -------
    Covariance

    Raises
    ------
    NotImplementedYetError
        The tag is known but this version does not fit it.
    OptionError
        The tag is unknown, k is not a positive integer, or an option is not taken.

    Examples
    --------
    >>> from mixedmodels.covariance import make_covariance
    >>> make_covariance("us", 3).n_theta
    6
    """
    if options:
        names = ", ".join(sorted(options))
        raise OptionError(f"covariance structure {tag!r} takes no option, got {names}; leave it out")
    return _cached(tag, k)


@lru_cache(maxsize=256)
def _cached(tag: str, k: int) -> Covariance:
    available = ", ".join(_FITTED)
    if tag in _PLANNED:
        raise NotImplementedYetError(
            f"covariance structure {tag!r} ({_PLANNED[tag]}) cannot be fitted by this version; "
            f"available: {available}"
        )
    if tag not in _FITTED:
        raise OptionError(f"unknown covariance structure {tag!r}; available: {available}")
    if int(k) != k or k < 1:
        raise OptionError(f"a random-effects term needs at least one column, got k = {k!r}")
    return _FITTED[tag](int(k))
