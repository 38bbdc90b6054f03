"""The command line: ``mixedmodels fit FORMULA DATA``, ``mixedmodels datasets [NAME]``.

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

from mixedmodels.errors import DataError, MixedModelsError, NotImplementedYetError, OptionError

__all__ = ["main"]

_PROGRAM = "mixedmodels"


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
    parser = _Parser(prog=_PROGRAM, description="Linear mixed-effects models from the command line.")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    fit = commands.add_parser("fit", help="fit a linear mixed model", description="Fit a linear mixed model.")
    fit.add_argument("formula", metavar="FORMULA", help="for instance 'Reaction ~ Days + (Days | Subject)'")
    fit.add_argument(
        "data",
        metavar="DATA",
        help="CSV (also .gz), Parquet, Arrow/Feather file, or the name of a bundled data set",
    )
    fit.add_argument("--ml", action="store_true", help="maximum likelihood instead of REML")
    fit.add_argument("--weights", metavar="COL", help="column of precision weights")
    fit.add_argument("--offset", metavar="COL", help="column with a known part of the predictor")
    fit.add_argument("--method", metavar="M", default="auto", help="optimiser (default: auto)")
    fit.add_argument("--solver", metavar="S", default="auto", help="solver (default: auto)")
    fit.add_argument("--ci", metavar="KIND", help="add confidence intervals of the fixed effects: wald")
    fit.add_argument(
        "--level", metavar="P", type=float, default=0.95, help="confidence level (default: 0.95)"
    )
    fit.add_argument("--json", action="store_true", help="print the results as JSON")
    fit.add_argument("--html", metavar="FILE", help="write the summary as an HTML page")
    fit.add_argument("--report", metavar="FILE", help="write a full report (not in this version)")
    fit.add_argument("--save", metavar="FILE", help="save the fit for mixedmodels.load")
    fit.add_argument("--quiet", action="store_true", help="print no summary and no warnings")
    fit.set_defaults(run=_fit)
    datasets = commands.add_parser("datasets", help="list the bundled data sets or describe one")
    datasets.add_argument("name", metavar="NAME", nargs="?", help="a data set")
    datasets.set_defaults(run=_datasets)
    return parser


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
    import mixedmodels

    if arguments.report is not None:
        raise NotImplementedYetError(
            "--report is not in this version; --html FILE writes the summary as a page"
        )
    if arguments.ci not in (None, "wald"):
        raise NotImplementedYetError(f"--ci {arguments.ci} is not in this version; available: wald")
    from mixedmodels.fit.wald import check_level

    check_level(arguments.level)
    data = read_data(arguments.data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = mixedmodels.lmm(
            arguments.formula,
            data,
            reml=not arguments.ml,
            weights=arguments.weights,
            offset=arguments.offset,
            method=arguments.method,
            solver=arguments.solver,
            progress=False if arguments.quiet or arguments.json else "auto",
        )
    if fit.optimum.status.value == "interrupted":
        raise KeyboardInterrupt
    if not arguments.quiet:
        for warning in caught:
            print(f"{_PROGRAM}: warning: {_one_line(str(warning.message))}", file=sys.stderr)
    if arguments.save:
        fit.save(arguments.save)
    if arguments.html:
        from mixedmodels.report.html import render_page

        _write_text(arguments.html, render_page(fit.summary()))
    if arguments.json:
        print(json.dumps(_results(fit, arguments), indent=2, allow_nan=False))
    elif not arguments.quiet:
        print(fit)
        if arguments.ci:
            print(_intervals_text(fit, arguments.level))
    return 0


def _write_text(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write {path!r}: {error.strerror or error}") from None


def _intervals_text(fit: Any, level: float) -> str:
    from mixedmodels.fit.wald import interval_columns
    from mixedmodels.report.table import Table, format_column
    from mixedmodels.report.text import render_table

    columns = interval_columns(fit.fixef, fit.se, level)
    bounds = format_column(columns["conf_low"] + columns["conf_high"], 4)
    size = len(columns["term"])
    tails = [f"{100 * p:.4g} %" for p in ((1 - level) / 2, (1 + level) / 2)]
    cells = tuple(zip(columns["term"], bounds[:size], bounds[size:], strict=True))
    return "\n" + render_table(Table(f"Wald intervals ({100 * level:g} %)", ("", *tails), cells, "lrr"))


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


def _results(fit: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    from mixedmodels.fit.wald import interval_columns, statistic_columns

    fixed = statistic_columns(fit.fixef, fit.se)
    if arguments.ci:
        fixed |= interval_columns(fit.fixef, fit.se, arguments.level)
    scalars = {
        name: _number(getattr(fit, name))
        for name in ("nobs", "criterion", "loglik", "deviance", "aic", "bic", "df_model", "sigma", "is_reml")
    }
    return {
        "formula": fit.formula_text,
        "data": arguments.data,
        **scalars,
        "ngroups": fit.ngroups,
        "fixed": _records(fixed),
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
