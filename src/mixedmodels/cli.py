"""The command line: ``mixedmodels fit FORMULA DATA [--family NAME]``,
``mixedmodels compare FORMULA FORMULA... DATA``, ``mixedmodels datasets [NAME]``,
``mixedmodels pedigree FILE``.

Exit status 0 on success, 2 with exactly one line on standard error for bad input, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from mixedmodels.cli_genetics import add_pedigree, read_known
from mixedmodels.errors import DataError, MixedModelsError, OptionError

__all__ = ["main"]

_PROGRAM = "mixedmodels"
_INTERVALS = ("wald", "satterthwaite", "kr", "profile", "bootstrap")


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{_PROGRAM}: {message} (see '{self.prog} --help')\n")


class _Version(argparse.Action):
    """``--version``, looked up only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: Any) -> NoReturn:
        import mixedmodels

        print(f"{_PROGRAM} {mixedmodels.__version__}")
        parser.exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=_PROGRAM, description="Mixed-effects models from the command line.")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    fit = commands.add_parser(
        "fit",
        help="fit a linear or generalised mixed model",
        description="Fit a linear mixed model, or with --family a generalised one.",
    )
    fit.add_argument("formula", metavar="FORMULA", help="for instance 'Reaction ~ Days + (Days | Subject)'")
    fit.add_argument(
        "data",
        metavar="DATA",
        help="CSV (also .gz), Parquet, Arrow/Feather file, or the name of a bundled data set",
    )
    _add_generalised(fit)
    fit.add_argument("--ml", action="store_true", help="maximum likelihood instead of REML")
    fit.add_argument("--weights", metavar="COL", help="column of precision weights")
    fit.add_argument("--offset", metavar="COL", help="column with a known part of the predictor")
    _add_known(fit)
    fit.add_argument(
        "--heritability", action="store_true", help="add the share of each known term in the variance"
    )
    fit.add_argument("--method", metavar="M", default="auto", help="optimiser (default: auto)")
    fit.add_argument("--solver", metavar="S", default="auto", help="solver (default: auto)")
    fit.add_argument(
        "--ci",
        metavar="KIND",
        help="add confidence intervals: wald, satterthwaite, kr, profile or bootstrap",
    )
    fit.add_argument(
        "--ddf", metavar="D", default="auto", help="degrees of freedom: satterthwaite (default), kr, z, ..."
    )
    fit.add_argument("--anova", action="store_true", help="add F tests of the terms (type III)")
    fit.add_argument("--seed", metavar="N", type=int, help="seed of bootstrap intervals")
    fit.add_argument(
        "--level", metavar="P", type=float, default=0.95, help="confidence level (default: 0.95)"
    )
    fit.add_argument("--json", action="store_true", help="print the results as JSON")
    fit.add_argument("--html", metavar="FILE", help="write the summary as an HTML page")
    fit.add_argument(
        "--report", metavar="FILE", help="write a report with words, tables and plots as one HTML page"
    )
    fit.add_argument("--save", metavar="FILE", help="save the fit for mixedmodels.load")
    fit.add_argument("--quiet", action="store_true", help="print no summary and no warnings")
    fit.set_defaults(run=_fit)
    compare = commands.add_parser(
        "compare", help="compare models of one data set", description="Likelihood-ratio table of models."
    )
    compare.add_argument("formulas", metavar="FORMULA", nargs="+", help="two or more formulas")
    compare.add_argument("data", metavar="DATA", help="as for 'fit'")
    _add_generalised(compare)
    compare.add_argument("--ml", action="store_true", help="maximum likelihood instead of REML")
    compare.add_argument("--weights", metavar="COL", help="column of precision weights")
    compare.add_argument("--offset", metavar="COL", help="column with a known part of the predictor")
    _add_known(compare)
    compare.add_argument("--json", action="store_true", help="print the table as JSON")
    compare.set_defaults(run=_compare)
    datasets = commands.add_parser("datasets", help="list the bundled data sets or describe one")
    datasets.add_argument("name", metavar="NAME", nargs="?", help="a data set")
    datasets.set_defaults(run=_datasets)
    add_pedigree(commands)
    return parser


def _add_known(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--known",
        metavar="NAME=FILE",
        action="append",
        help="covariance of the levels of a factor: a pedigree, a .csv matrix or a .kin list of pairs",
    )


def _add_generalised(command: argparse.ArgumentParser) -> None:
    """The options of generalised models."""
    add = command.add_argument
    add("--family", metavar="F", help="fit a generalised model: binomial, poisson, nbinom2, gamma, ...")
    add("--link", metavar="L", help="link function (default: the family's)")
    add("--nagq", metavar="K", type=int, help="quadrature points; 1 (default): Laplace")
    add("--trials", metavar="COL", help="column of the numbers of trials")
    add("--dispersion", metavar="FORMULA", help="model of the dispersion, such as '~ x'")
    add("--zero-inflation", metavar="FORMULA", help="model of extra zeros, such as '~ 1'")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; by default those of the process.
    """
    try:
        arguments = _parser().parse_args(argv)
        return arguments.run(arguments)
    except MixedModelsError as error:
        print(f"{_PROGRAM}: {_one_line(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{_PROGRAM}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output went away, as with `| head`
        sys.stderr.close()
        return 0


def _one_line(message: str) -> str:
    """A message on one line; of a formula error, the sentence and the formula."""
    first, _, rest = message.partition("\n")
    shown = rest.partition("\n")[0].strip()
    return f"{first.strip()} (in: {shown})" if shown else first.strip()


# ---------------------------------------------------------------------- fit


def _fit(arguments: argparse.Namespace) -> int:
    if arguments.ci not in (None, *_INTERVALS):
        raise OptionError(f"--ci {arguments.ci} is unknown; available: {', '.join(_INTERVALS)}")
    from mixedmodels.fit.wald import check_level

    check_level(arguments.level)
    data = read_data(arguments.data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = _fitted(arguments, data)
    if fit.optimum.status.value == "interrupted":
        raise KeyboardInterrupt
    if not arguments.quiet:
        for warning in caught:
            print(f"{_PROGRAM}: warning: {_one_line(str(warning.message))}", file=sys.stderr)
    if arguments.save:
        fit.save(arguments.save)
    if arguments.html:
        from mixedmodels.report.html import render_page

        _write_text(arguments.html, render_page(fit.summary(ddf=arguments.ddf)))
    if arguments.report:
        fit.report(arguments.report, level=arguments.level, ddf=arguments.ddf)
    if arguments.json:
        print(json.dumps(_results(fit, arguments), indent=2, allow_nan=False))
    elif not arguments.quiet:
        print(fit.summary(ddf=arguments.ddf))
        if arguments.anova:
            print(f"\n{fit.anova(ddf=_tests_ddf(arguments))}")
        if arguments.ci:
            print(f"\n{_intervals(fit, arguments)}")
        if arguments.heritability:
            print(f"\n{fit.heritability()}")
    return 0


_GENERALISED = ("link", "nagq", "trials", "dispersion", "zero_inflation")


def _fitted(arguments: argparse.Namespace, data: Any) -> Any:
    """The fit that the arguments ask for."""
    progress = False if arguments.quiet or arguments.json else "auto"
    if arguments.family is not None and arguments.ddf == "auto":
        arguments.ddf = "z"
    return _model(
        arguments,
        arguments.formula,
        data,
        method=arguments.method,
        solver=arguments.solver,
        progress=progress,
    )


def _model(arguments: argparse.Namespace, formula: str, data: Any, **options: Any) -> Any:
    """A formula fitted by `lmm`, or by `glmm` if there is a family."""
    import mixedmodels

    known = read_known(arguments.known)
    options |= {"weights": arguments.weights, "offset": arguments.offset, "known": known}
    given = {name: getattr(arguments, name) for name in _GENERALISED if getattr(arguments, name) is not None}
    if arguments.family is None:
        if given:
            option = next(iter(given)).replace("_", "-")
            raise OptionError(f"--{option} is for generalised models: give --family as well")
        return mixedmodels.lmm(formula, data, reml=not arguments.ml, **options)
    return mixedmodels.glmm(formula, data, family=arguments.family, **options, **given)


def _tests_ddf(arguments: argparse.Namespace) -> str:
    return "satterthwaite" if arguments.ddf == "auto" else arguments.ddf


def _intervals(fit: Any, arguments: argparse.Namespace) -> Any:
    """The interval table that ``--ci`` asks for."""
    options = {}
    if arguments.ci == "bootstrap":
        options = {"seed": arguments.seed, "progress": not (arguments.quiet or arguments.json)}
    return fit.confint(arguments.ci, arguments.level, **options)


def _compare(arguments: argparse.Namespace) -> int:
    import mixedmodels

    if len(arguments.formulas) < 2:
        raise OptionError("compare needs two or more formulas and then the data")
    data = read_data(arguments.data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fits = [_model(arguments, formula, data, progress=False) for formula in arguments.formulas]
    for warning in caught:
        print(f"{_PROGRAM}: warning: {_one_line(str(warning.message))}", file=sys.stderr)
    table = mixedmodels.compare(*fits)
    if arguments.json:
        columns = {name: column.tolist() for name, column in table.columns.items()}
        print(
            json.dumps({"models": _records(columns), "notes": list(table.notes)}, indent=2, allow_nan=False)
        )
    else:
        print(table)
    return 0


def _write_text(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write {path!r}: {error.strerror or error}") from None


def _number(value: Any) -> Any:
    """A JSON number; null for what JSON cannot say."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _records(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """One dictionary a row."""
    return [
        {key: _number(value) for key, value in zip(columns, row, strict=True)}
        for row in zip(*columns.values(), strict=True)
    ]


def _columns(table: Any) -> dict[str, list[Any]]:
    """A result table as lists."""
    return {name: column.tolist() for name, column in table.columns.items()}


def _results(fit: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    fixed = _columns(fit.coefficients(ddf=arguments.ddf, level=arguments.level))
    intervals = _columns(_intervals(fit, arguments)) if arguments.ci else None
    shares = _columns(fit.heritability()) if arguments.heritability else None
    tests = _columns(fit.anova(ddf=_tests_ddf(arguments))) if arguments.anova else None
    scalars = {
        name: _number(getattr(fit, name))
        for name in ("nobs", "criterion", "loglik", "deviance", "aic", "bic", "df_model", "sigma", "is_reml")
    }
    if arguments.family is not None:
        scalars |= {"family": fit.family.name, "link": fit.family.link.name, "nagq": fit.nagq}
    return {
        "formula": fit.formula_text,
        "data": arguments.data,
        **scalars,
        "ngroups": fit.ngroups,
        "fixed": _records(fixed),
        **({} if intervals is None else {"intervals": _records(intervals)}),
        **({} if tests is None else {"anova": _records(tests)}),
        **({} if shares is None else {"heritability": _records(shares)}),
        "random": _records(fit.varcorr.columns()),
        "theta": fit.theta.tolist(),
        "converged": fit.converged,
        "is_singular": fit.is_singular,
        "messages": list(fit.messages),
    }


# ---------------------------------------------------------------------- data


def read_data(source: str) -> Any:
    """The data frame of a file, or a bundled data set of that name.

    Raises
    ------
    DataError, OptionError
        No such file or data set, an unknown kind of file, or one that cannot be read.
    """
    path = Path(source)
    if not path.exists():
        if path.suffix or "/" in source or "\\" in source:
            raise DataError(f"there is no file {source!r}")
        from mixedmodels.datasets import dataset_names, load_dataset

        known = {name.casefold() for name in dataset_names()}
        if source.casefold() not in known:
            try:
                return load_dataset(source, backend="dict")
            except OptionError as error:
                raise DataError(f"{source!r} is neither a file nor a bundled data set: {error}") from None
        return load_dataset(source, backend="dict")
    if path.is_dir():
        raise DataError(f"{source!r} is a directory; give a file")
    name = path.name.lower()
    from mixedmodels.files import read_arrow, read_csv, read_parquet

    if name.endswith((".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz")):
        return read_csv(path)
    if name.endswith((".parquet", ".pq")):
        return read_parquet(path)
    if name.endswith((".arrow", ".feather", ".ipc")):
        return read_arrow(path)
    raise DataError(
        f"{source!r}: unknown kind of file; give .csv, .csv.gz, .tsv, .parquet, .arrow or .feather"
    )


# ---------------------------------------------------------------------- datasets


def _datasets(arguments: argparse.Namespace) -> int:
    from mixedmodels.datasets import dataset_names, describe_dataset

    if arguments.name is not None:
        print(describe_dataset(arguments.name))
        return 0
    names = dataset_names()
    width = max(map(len, names))
    for name in names:
        info = describe_dataset(name)
        print(f"{name.ljust(width)}  {info.rows:>6} rows  {info.title}")
    return 0
