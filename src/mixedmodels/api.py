"""The functions users call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mixedmodels.errors import OptionError
from mixedmodels.fit.solve import Options, fit_model

if TYPE_CHECKING:
    from mixedmodels.fit.glmm_result import GLMMFit
    from mixedmodels.fit.result import LMMFit

__all__ = ["blup", "glmm", "gls", "lmm", "make_options"]


def lmm(
    formula: Any,
    data: Any,
    *,
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    residual: Any = None,
    known: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    na_action: str = "omit",
    start: Any = None,
    method: str = "auto",
    solver: str = "auto",
    sigma: float | None = None,
    control: Any = None,
    progress: Any = "auto",
    functions: Mapping[str, Callable] | None = None,
    share: Any = None,
    structures: Mapping[str, Any] | None = None,
    priors: Any = None,
    fixed: Mapping[str, float] | None = None,
    equal: Any = None,
) -> LMMFit:
    r"""Fit a linear mixed model.

    .. math::
        y = X\beta + Zb + o + e, \qquad
        b \sim N(0, \sigma^2 \Sigma(\theta)), \quad e_i \sim N(0, \sigma^2 / w_i)

    by REML or maximum likelihood; with `residual` :math:`e \sim N(0, \sigma^2 R(\phi))`.

    Parameters
    ----------
    formula : str or Formula
        In R's language: ``"y ~ x + (x | g)"`` with correlated, ``(x || g)`` with independent random effects,
        ``(1 | a/b)`` nested ones. Also what `formula_from_lists` returns.
    data : data frame or dict of arrays
        pandas, polars, pyarrow or any other frame that narwhals reads. Never changed.
    reml : bool
        REML (default) or maximum likelihood.
    weights : str or array, optional
        Precision weights: ``Var(e_i) = sigma^2 / w_i``. A column or an array. Rows with weight 0 are left
        out of the likelihood.
    offset : str or array, optional
        A known part of the linear predictor, added to any ``offset()`` of the formula.
    residual : str or residual structure, optional
        Correlations and variances of the residuals, ``Var(e) = sigma^2 R``: at most one correlation times any
        number of variance functions, such as ``"ar1(time | subject) * varident(sex)"``, or an object such as
        ``mm.residual.AR1("time", "subject")``.
    known : dict, optional
        Known covariances between the levels of grouping factors: ``{"animal": pedigree}``, (matrix, ids), a
        data frame whose rows and columns are the levels, or ``{"ids": ids, "precision": P}``. The term
        ``(1 | animal)`` then has ``b ~ N(0, A sigma_a^2)`` over all ids. A second matrix on one factor is
        ``known(1 | animal, D)`` with ``known={..., "D": ...}``; ``id(1 | animal)`` has independent levels.
    contrasts : dict, optional
        Contrasts by factor: ``"treatment"``, ``"sum"``, ``"helmert"``, ``"poly"`` or a matrix.
    na_action : {"omit", "exclude", "fail"}
        Rows with missing values are left out; with "exclude" fitted values and residuals have NaN in
        their places.
    start : array or str, optional
        Start of theta; or the name of a start of the variance components, ``"ols"``, ``"equal"``, ``"em"``,
        ``"minque0"``, ``"minque1"``.
    method : str
        Optimiser: "auto" is Newton with exact derivatives; others are in `mixedmodels.optimize.METHODS`.
        Classical algorithms: see `variance_components`, of which ``"average-information"``, ``"minque(0)"``,
        ``"fastml"`` and ``"fastrml"`` (which imply ML and REML) and their like may be named here.
    solver : str
        "auto" chooses by the structure of the model; by name "grouped" (one grouping factor), "subsets" (one,
        many columns), "eigen" (one known covariance), "blocked" (crossed, nested), "sparse" (any random
        effects) or "dense" (the reference).
    sigma : float, optional
        Hold the residual standard deviation at this value.
    control : Control, optional
        Limits and tolerances of the optimiser.
    progress : "auto", bool or callable
        "auto" shows progress on a terminal once a fit takes long.
    functions : dict of str to callable, optional
        Functions of your own that the formula may call.
    share : list of lists of str, optional
        Random terms with the same covariance parameters, named by their text or grouping factor:
        ``[["(1 | a)", "(1 | b)"]]``.
    structures : dict, optional
        Covariance structures of your own, an instance or a class by the text of a random term or by grouping
        factor: ``{"g": MyStructure}``; and matrices by the name that ``propto(0 + f | g, K)`` calls them.
    priors : dict or str, optional
        Priors by parameter: posterior modes (MAP) as those of blme. ``"wishart"`` or
        ``{"theta": "wishart"}``: covariance matrices; ``{"sd_x|g": ("gamma", 2.5, 0)}``: standard
        deviations; ``{"fixed": ("normal", 0, 10)}``: coefficients; ``{"sigma": ("invgamma", 2, 1)}``.
        They are relative to sigma; a last word ``"absolute"`` makes one on (co)variances absolute.
    fixed : dict, optional
        Covariance parameters held at values, by name as in ``fit.variance_parameters()``:
        ``{"sd_x|g": 2.0}``, ``{"cor_x.(Intercept)|g": 0.5}``, ``{"cor|g": 0.5}`` or ``{"g.ar1.rho": 0.5}``.
        With `residual` parameters of the residuals too: ``{"rho": 0.5, "sd_ratio[m]": 1.0}``.
    equal : list of lists of str, optional
        Covariance parameters that are the same, by the names of `fixed`:
        ``[["sd_(Intercept)|a", "sd_(Intercept)|b"]]``, ``[["sd_ratio[b]", "sd_ratio[c]"]]``.

    Returns
    -------
    LMMFit
        A frozen fit; prints as its summary.

    Raises
    ------
    FormulaError, DataError, IdentifiabilityError, OptionError
        One line that names the place, column or term, and the remedy.

    Warns
    -----
    ConvergenceWarning
        The optimiser stopped early.

    References
    ----------
    Bates, Maechler, Bolker & Walker (2015), Fitting linear mixed-effects models using lme4,
    J. Stat. Softw. 67(1).

    Examples
    --------
    >>> import mixedmodels as mm
    >>> data = mm.load_dataset("sleepstudy", backend="dict")
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", data)
    >>> print(fit.varcorr)
     Groups   Name        Std.Dev. Corr
     Subject  (Intercept) 24.740
              Days         5.922    0.07
     Residual             25.592
    """
    options = make_options(
        residual=residual,
        known=known,
        reml=reml,
        weights=weights,
        offset=offset,
        contrasts=contrasts,
        na_action=na_action,
        start=start,
        method=method,
        solver=solver,
        sigma=sigma,
        control=control,
        progress=progress,
        functions=functions,
        share=share,
        structures=structures,
        priors=priors,
        fixed=fixed,
        equal=equal,
    )
    return fit_model(formula, data, options)


def blup(formula: Any, data: Any, *, variances: Any, **options: Any) -> LMMFit:
    r"""Best linear unbiased estimates and predictions at given variances; nothing else is estimated.

    .. math::
        \hat\beta = (X'V^{-1}X)^{-1}X'V^{-1}y, \qquad \hat b = G Z'V^{-1}(y - X\hat\beta),
        \qquad V = ZGZ' + R,

    the solution of Henderson's mixed-model equations.

    Parameters
    ----------
    formula, data
        As for `lmm`.
    variances : dict or sequence
        By grouping factor the covariance matrix of its term (or the variances, or one number), and
        ``"Residual"``; or a sequence in the order of the terms, the residual variance last.
    **options
        `known`, `weights`, `offset`, `contrasts`, ... of `lmm`.

    Returns
    -------
    LMMFit
        Its `breeding_values` have prediction error variances and reliabilities; tests of fixed effects take
        the variances as known.

    References
    ----------
    Henderson (1975), Best linear unbiased estimation and prediction under a selection model, Biometrics
    31:423-447. Mrode (2014), Linear models for the prediction of animal breeding values, 3rd ed., CABI.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> data = mm.load_dataset("Dyestuff", backend="dict")
    >>> fit = mm.blup("Yield ~ 1 + (1 | Batch)", data, variances={"Batch": 1800.0, "Residual": 2500.0})
    >>> round(fit.fixef["(Intercept)"], 1), round(fit.sigma, 1)
    (1527.5, 50.0)
    """
    if variances is None:
        raise OptionError('blup needs variances=, such as {"animal": 20.0, "Residual": 40.0}')
    return fit_model(formula, data, make_options(variances=variances, **options))


def gls(
    formula: Any,
    data: Any,
    *,
    residual: Any = None,
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    known: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    na_action: str = "omit",
    start: Any = None,
    method: str = "auto",
    solver: str = "auto",
    sigma: float | None = None,
    control: Any = None,
    progress: Any = "auto",
    functions: Mapping[str, Callable] | None = None,
    share: Any = None,
    structures: Mapping[str, Any] | None = None,
    priors: Any = None,
    fixed: Mapping[str, float] | None = None,
    equal: Any = None,
) -> LMMFit:
    r"""Fit a linear model with correlated or heteroscedastic errors by generalised least squares.

    .. math:: y = X\beta + o + e, \qquad e \sim N(0, \sigma^2 R(\phi))

    by REML or maximum likelihood. It is `lmm` without random effects, and answers the same questions. Without
    `residual` it is ordinary (or weighted) least squares.

    Parameters
    ----------
    formula : str or Formula
        ``"y ~ x"``; random effects are allowed but not needed.
    data : data frame or dict of arrays
        As for `lmm`.
    residual : str or residual structure, optional
        As for `lmm`: ``"us(visit | subject)"``, ``"ar1(time | subject) * varident(sex)"``, ...
    reml : bool
        REML (default) or maximum likelihood.
    weights, offset, contrasts, na_action, sigma, control, progress, functions
        As for `lmm`.
    start : array, optional
        Start of the parameters of the residual structure (after those of random effects).
    method : str
        Optimiser: "auto" is Newton with exact derivatives.
    fixed : dict, optional
        Parameters held at values, by name as in ``fit.residual``: ``{"rho": 0.5, "sd_ratio[m]": 1.0}``.
    equal : list of lists of str, optional
        Parameters that are the same, by name: ``[["sd_ratio[b]", "sd_ratio[c]"]]``.
    known, solver, share, structures
        As for `lmm`; of use with random effects only.
    priors : dict, optional
        Not for structured residuals: an error that says so.

    Returns
    -------
    LMMFit
        With ``fit.residual``, the estimated structure.

    Raises
    ------
    FormulaError, DataError, IdentifiabilityError, OptionError
        One line that names the place, column or term, and the remedy.

    Warns
    -----
    ConvergenceWarning
        The optimiser stopped early.

    References
    ----------
    Pinheiro & Bates (2000), Mixed-Effects Models in S and S-PLUS, chapter 5.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> data = mm.load_dataset("sleepstudy", backend="dict")
    >>> fit = mm.gls("Reaction ~ Days", data, residual="ar1(Days | Subject)")
    >>> round(fit.residual["rho"], 3)
    0.8
    """
    from mixedmodels.residual.structure import Product

    options = make_options(
        residual=Product(()) if residual is None else residual,
        reml=reml,
        weights=weights,
        offset=offset,
        known=known,
        contrasts=contrasts,
        na_action=na_action,
        start=start,
        method=method,
        solver=solver,
        sigma=sigma,
        control=control,
        progress=progress,
        functions=functions,
        share=share,
        structures=structures,
        priors=priors,
        fixed=fixed,
        equal=equal,
    )
    return fit_model(formula, data, options)


def make_options(**keywords: Any) -> Options:
    """The options of a fit from keywords."""
    if keywords.get("sigma") is not None and str(keywords.get("method")).startswith("minque"):
        raise OptionError("MINQUE estimates sigma too; leave sigma= out, or choose another method")
    return Options(**keywords)


def glmm(
    formula: Any,
    data: Any,
    *,
    family: Any = "gaussian",
    link: Any = None,
    nagq: int = 1,
    dispersion: Any = "~1",
    zero_inflation: Any = None,
    thresholds: str | None = None,
    trials: Any = None,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    na_action: str = "omit",
    start: Any = None,
    method: str = "auto",
    fixed: Mapping[str, float] | None = None,
    equal: Any = None,
    priors: Any = None,
    information: str = "observed",
    solver: str = "auto",
    control: Any = None,
    progress: Any = "auto",
    functions: Mapping[str, Callable] | None = None,
    share: Any = None,
    known: Any = None,
    residual: Any = None,
) -> GLMMFit:
    r"""Fit a generalised linear mixed model.

    .. math::
        y_i \sim f(\cdot \mid \eta_i), \qquad g(\mu) = \eta = X\beta + Zb + o, \qquad
        b \sim N(0, \Sigma(\theta))

    by maximum likelihood; the random effects are integrated out by Laplace's approximation or quadrature.
    Dispersion and extra zeros may have linear predictors of their own.

    Parameters
    ----------
    formula : str or Formula
        As for `lmm`. The response of a binomial family is 0 and 1, truth values, a factor of two levels (the
        first is failure), ``cbind(successes, failures)``, or successes or proportions with `trials`; that of
        ``family="cumulative"`` an ordered factor, or numbers in their order.
    data : data frame or dict of arrays
        As for `lmm`.
    family : str, Family class or Family
        Distribution of the response given the random effects, for instance ``"binomial"``, ``"poisson"``,
        ``"nbinom2"``, ``"gamma"``, ``"beta"``, ``"cumulative"`` (ordered categories); R's
        spellings are understood.
    link : str, optional
        Link function; by default the family's usual one.
    nagq : int
        1: Laplace's approximation; k > 1: adaptive Gauss-Hermite quadrature with k points per random effect;
        0: the faster, cruder criterion with the coefficients profiled out of the penalised likelihood.
    dispersion : str or Formula
        Linear predictor of the dispersion (log link), random terms included: ``"~ x + (1 | g)"``. Its
        coefficients are named ``disp_x``.
    zero_inflation : str, Formula or bool, optional
        Linear predictor of the probability of extra zeros (logit link), random terms included; True is
        ``"~ 1"``. Families without a zero become hurdle models. Coefficients are named ``zi_x``.
    thresholds : {"flexible", "symmetric", "symmetric2", "equidistant"}, optional
        Thresholds between the ordered categories of ``family="cumulative"``,
        ``P(Y <= j) = F(alpha_j - eta)``: all free (default), mirrored around their middle or around zero, or
        with one spacing. They are in the place of the intercept.
    trials : str, array or int, optional
        Numbers of trials of binomial families. Whole-numbered responses are successes, others proportions.
        Rows with 0 trials are left out of the likelihood.
    weights : str or array, optional
        Multipliers of each row's log-likelihood: how often it occurred. Not numbers of trials, and not
        precisions. Rows with weight 0 are left out of the likelihood.
    offset : str or array, optional
        A known part of the conditional predictor, added to any ``offset()`` of the formula. The formulas of
        `dispersion` and `zero_inflation` may hold an ``offset()`` of their own.
    contrasts : dict, optional
        Contrasts by factor, in all formulas.
    na_action : {"omit", "exclude", "fail"}
        As for `lmm`; a row that misses a value of any of the formulas is missing.
    start : dict or array, optional
        Start of some parameters by name, or of all (coefficients, then theta).
    method : str
        Optimiser: "auto" is Newton's method with exact derivatives in a trust region.
    fixed : dict, optional
        Parameters held at values, by name: ``{"disp_(Intercept)": 0.0}``, ``{"cor|g": 0.5}``.
    equal : list of lists of str, optional
        Parameters that are the same, by name: ``[["x", "z"]]``, ``[["cor|g", "cor|h"]]``.
    priors : dict, optional
        Priors by parameter: penalised (MAP) estimates, a remedy for separation and singular fits.
    information : {"observed", "expected"}
        Curvature in Laplace's determinant. "expected" is what glmer uses for links that are not canonical.
    solver : str
        "auto" chooses by the structure of the model: "grouped" (one grouping factor), "blocked" (crossed,
        nested), "sparse" (rows that touch several levels of a term); "dense" is the reference.
    control : Control or dict, optional
        Limits and tolerances of the optimiser.
    progress : "auto", bool or callable
        As for `lmm`.
    functions : dict of str to callable, optional
        Functions of your own that the formulas may call.
    share : list of lists of str, optional
        Random terms of the conditional predictor with the same covariance parameters.
    known : dict, optional
        Known covariances between levels, as for `lmm`; in the terms of all formulas.
    residual : None
        Generalised models have no residual structure, and a value is an error: give the linear predictor a
        structured random term such as ``ar1(0 + t | g)``, or an effect per observation.

    Returns
    -------
    GLMMFit
        A frozen fit; prints as its summary.

    Raises
    ------
    FormulaError, DataError, IdentifiabilityError, OptionError
        One line that names the place, column or term, and the remedy.

    Warns
    -----
    ConvergenceWarning
        The optimiser stopped early.

    References
    ----------
    Breslow & Clayton (1993), Approximate inference in generalized linear mixed models, JASA 88, 9-25.
    Brooks et al. (2017), glmmTMB balances speed and flexibility among packages for zero-inflated generalized
    linear mixed modeling, R Journal 9(2), 378-400.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> data = {"y": [0, 1, 1, 0, 1, 1, 0, 0, 1, 1, 1, 0], "g": list("aaabbbcccddd")}
    >>> mm.glmm("y ~ 1 + (1 | g)", data, family="binomial").nobs
    12

    Counts of successes out of trials:

    >>> cbpp = mm.load_dataset("cbpp", backend="dict")
    >>> fit = mm.glmm("incidence ~ period + (1 | herd)", cbpp, family="binomial", trials="size")
    >>> round(fit.loglik, 4)
    -92.0263
    """
    from mixedmodels.fit.glmm import GLMMOptions, fit_glmm
    from mixedmodels.fit.glmm_checks import refuse_residual

    refuse_residual(residual)
    options = GLMMOptions(
        family=family,
        link=link,
        nagq=nagq,
        dispersion=dispersion,
        zero_inflation=zero_inflation,
        thresholds=thresholds,
        trials=trials,
        weights=weights,
        offset=offset,
        contrasts=contrasts,
        na_action=na_action,
        start=start,
        method=method,
        fixed=fixed,
        equal=equal,
        priors=priors,
        information=information,
        solver=solver,
        control=control,
        progress=progress,
        functions=functions,
        share=share,
        known=known,
    )
    return fit_glmm(formula, data, options)
