"""Searches of residual structures from many random starts: how often does a fit end above the lowest minimum?

python tools/many_starts_residual.py all [data sets] [starts] [first structure]
python tools/many_starts_residual.py "ar1(t | g) * varident(s)" "(1 | g)" [data sets] [starts]
python tools/many_starts_residual.py equal [data sets] [starts]

The last are models with parameters that `equal=` binds.

Columns: g (groups), t (0, 1, ...), f (t as text), w (real times), x and z (places), s (two strata of groups),
c (positive), h (a factor crossed with g).
"""

from __future__ import annotations

import sys
import time
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixedmodels.errors import MixedModelsError
from mixedmodels.fit.equations import equations_of
from mixedmodels.fit.solve import Options, make_frame
from mixedmodels.objective.restricted_structured import RestrictedStructured, restricted_search
from mixedmodels.objective.structured import StructuredObjective
from mixedmodels.objective.structured_search import search

TERMS = ("", "(1 | g)", "(t | g)", "(1 | h)")
STRUCTURES = (
    "ar1(t | g)",
    "car1(w | g)",
    "arma(t | g, p=1, q=1)",
    "cs(1 | g)",
    "us(f | g)",
    "toep(t | g)",
    "ad(t | g)",
    "exp(x + z | g, nugget=True)",
    "gau(x + z | g, nugget=True)",
    "sph(x + z | g, nugget=True)",
    "varident(f)",
    "varpower(c)",
    "varconstpower(c)",
    "ar1(t | g) * varident(s)",
    "ar1(t | g) * varpower(c)",
    "exp(x + z | g) * varident(s)",
)
EQUAL = (
    ("ar1(t | g, by=s)", "(1 | g)", ("rho[one]", "rho[two]")),
    ("ar1(t | g) * varident(s)", "(t | g)", ("sd_(Intercept)|g", "sd_t|g")),
    ("us(f | g)", "(1 | g)", ("cor[a,b]", "cor[b,c]")),
    ("toep(t | g)", "(1 | g)", ("rho1", "rho2")),
    ("exp(x + z | g, nugget=True, by=s)", "(1 | g)", ("range[one]", "range[two]")),
    ("varident(f)", "(t | g)", ("sd_ratio[b]", "sd_ratio[c]")),
    ("car1(w | g)", "(t | g)", ("sd_(Intercept)|g", "sd_t|g")),
    ("cs(1 | g) * varident(f)", "(0 + t | g)", ("sd_ratio[b]", "sd_ratio[c]")),
    ("varpower(c, by=s)", "(t | g)", ("power[one]", "power[two]")),
)
WORSE = 1e-4


def columns_of(seed: int) -> dict[str, np.ndarray]:
    """The columns of one data set; its response is noise."""
    rng = np.random.default_rng(seed)
    m, k = (8, 12, 20, 40)[seed % 4], (3, 4, 5)[seed // 4 % 3]
    g, t = np.repeat(np.arange(m), k), np.tile(np.arange(k), m)
    if seed % 2:  # missing visits
        kept = rng.random(len(g)) > 0.15
        g, t = g[kept], t[kept]
    n = len(g)
    gaps = rng.exponential(1.0, n) + 0.1
    w = np.array([gaps[(g == g[i]) & (t <= t[i])].sum() for i in range(n)])
    return {
        "y": rng.standard_normal(n),
        "g": g,
        "t": t,
        "f": np.array(list("abcdef"))[t],
        "w": w,
        "x": rng.uniform(0.0, 5.0, n),
        "z": rng.uniform(0.0, 5.0, n),
        "s": np.array(["one", "two"])[g % 2],
        "c": np.exp(rng.normal(0.5, 0.7, n)),
        "h": rng.integers(0, 6, n),
    }


def objective_of(structure: str, term: str, seed: int) -> StructuredObjective:
    """The criterion of a data set simulated from the model itself, often near a boundary."""
    rng = np.random.default_rng(1000 + seed)
    fixed = "y ~ 1 + t" if seed // 3 % 2 else "y ~ t + s"
    options = Options(residual=structure, reml=seed % 5 != 0)
    frame = make_frame(f"{fixed} + {term}" if term else fixed, columns_of(seed), options)
    design = frame.design
    bound = design.residual
    for _ in range(50):
        phi = bound.start + rng.normal(0.0, (0.5, 1.0, 2.0)[seed % 3], bound.n_phi)
        phi = np.clip(phi, bound.lower, bound.upper)
        try:
            y = bound.at(phi).unwhiten(rng.standard_normal((design.n, 1)))[:, 0]
        except FloatingPointError:
            continue
        if np.all(np.isfinite(y)):
            break
    for one in design.terms:
        b = rng.standard_normal((one.m, one.k)) * rng.choice([0.0, 0.3, 1.0, 2.0])
        y = y + (b[one.codes, 0] if one.Z is None else np.einsum("ij,ij->i", one.Z, b[one.codes]))
    return StructuredObjective(replace(design, y=y), options.reml)


def bound(objective: StructuredObjective, names: tuple[str, ...]) -> RestrictedStructured:
    """The same criterion with parameters of these names set equal."""
    design = objective.design
    equations = equations_of(design, tuple(objective.names), None, [list(names)])
    return RestrictedStructured(design, objective.reml, None, "auto", equations)


def search_of(objective: StructuredObjective, start: np.ndarray | None) -> Any:
    """The search that a fit of the objective takes."""
    if isinstance(objective, RestrictedStructured):
        return restricted_search(objective, "newton", start)
    return search(objective, "newton", start)


@dataclass
class Tally:
    """Ends of the searches of several data sets."""

    sets: int = 0
    worse: int = 0
    silent: int = 0  # worse, and the search says it converged
    failed: int = 0  # did not converge
    evaluations: int = 0
    most: int = 0
    seconds: float = 0.0
    gap: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.worse:3d} of {self.sets} worse ({self.silent} silent, gap <= {self.gap:.3g}), "
            f"{self.failed} not converged; evaluations {self.evaluations / max(self.sets, 1):.1f} "
            f"(<= {self.most}), {1e3 * self.seconds / max(self.sets, 1):.1f} ms"
        )


def random_start(objective: StructuredObjective, rng: np.random.Generator) -> np.ndarray:
    """A point anywhere in the parameter space."""
    psi = objective.start.copy()
    r = objective.n_random
    psi[:r] = rng.uniform(0.0, 2.0, r) * (rng.random(r) < 0.8)
    psi[r:] += rng.normal(0.0, rng.choice([0.7, 1.5, 2.5]), objective.n_phi)
    return np.clip(psi, objective.lower, objective.upper)


def least_of(objective: StructuredObjective, starts: int) -> tuple[float, np.ndarray]:
    """The lowest end of searches from random starts."""
    rng, least, where = np.random.default_rng(1), np.inf, objective.start
    for _ in range(starts):
        try:
            found = search_of(objective, random_start(objective, rng))
        except (FloatingPointError, MixedModelsError, np.linalg.LinAlgError):  # not a start
            continue
        if found.value < least:
            least, where = found.value, found.theta
    return least, where


def tally(
    structure: str, term: str, sets: int, starts: int, told: bool = False, equal: tuple[str, ...] = ()
) -> Tally:
    """Simulated data sets of one model, each searched by ourselves and from random starts."""
    out = Tally()
    for seed in range(sets):
        try:
            objective = objective_of(structure, term, seed)
            objective = bound(objective, equal) if equal else objective
        except Exception as error:
            print(f"  set {seed}: {type(error).__name__} {error}"[:150])
            continue
        began = time.process_time()
        try:
            found = search_of(objective, None)
        except MixedModelsError as error:
            print(f"  set {seed}: {type(error).__name__} {error}"[:150])
            out.sets, out.failed = out.sets + 1, out.failed + 1
            continue
        out.seconds += time.process_time() - began
        out.sets += 1
        out.evaluations += found.evaluations
        out.most = max(out.most, found.evaluations)
        out.failed += not found.converged
        least, where = least_of(objective, starts)
        gap = found.value - least
        if gap > max(WORSE, 1e-6 * abs(least)):
            out.worse += 1
            out.silent += found.converged
            out.gap = max(out.gap, gap)
            if told:
                at = np.array2string(found.theta, precision=2), np.array2string(where, precision=2)
                print(f"  set {seed}: {gap:.4g} above; {found.status.value}; {at[0]} instead of {at[1]}")
        elif told and not found.converged:
            print(f"  set {seed}: {found.message} ({found.iterations} iterations) {found.theta}")
    return out


def main() -> None:
    """Print a line for each model."""
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    if sys.argv[1] == "equal":
        sets, starts = ([int(a) for a in sys.argv[2:]] + [8, 20][len(sys.argv) - 2 :])[:2]
        for structure, term, equal in EQUAL:
            found = tally(structure, term, sets, starts, equal=equal)
            print(f"{structure:34s} {term:11s} {' = '.join(equal):25s} {found}", flush=True)
        return
    if sys.argv[1] == "all":
        sets, starts, first = ([int(a) for a in sys.argv[2:]] + [16, 20, 0][len(sys.argv) - 2 :])[:3]
        for structure in STRUCTURES[first:]:
            for term in TERMS:
                print(f"{structure:30s} {term:8s} {tally(structure, term, sets, starts)}", flush=True)
        return
    sets, starts = ([int(a) for a in sys.argv[3:]] + [16, 20][len(sys.argv) - 3 :])[:2]
    print(tally(sys.argv[1], sys.argv[2], sets, starts, told=True))


if __name__ == "__main__":
    main()
