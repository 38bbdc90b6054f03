"""Data and reference fits of models with known relationships."""

from __future__ import annotations

import csv
import json
from functools import cache
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent.parent / "references"


@cache
def references():
    return json.loads((FOLDER / "genetics" / "models.json").read_text())


@cache
def table(name):
    """Columns of a reference table: numbers where all are, an empty field being 0 or missing, else texts."""
    with (FOLDER / "data" / f"{name}.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    out = {}
    for column in rows[0]:
        texts = [row[column] for row in rows]
        try:
            out[column] = np.array([float(text) if text else np.nan for text in texts])
        except ValueError:
            out[column] = np.array(texts, dtype=object)
    return out


@cache
def pedigree(name):
    from mixedmodels.genetics import Pedigree

    columns = table(name)
    parents = {key: np.nan_to_num(columns[key]).astype(int) for key in ("sire", "dam")}
    return Pedigree.from_frame({"id": columns["id"].astype(int), **parents})


@cache
def dominance(name):
    """D with ``(A_ss A_dd + A_sd A_ds) / 4`` off the diagonal and 1 on it, with its ids."""
    ped = pedigree(name)
    A = ped.additive().toarray()
    columns = table(name)
    ids = ped.ids.tolist()
    place = {int(label): i for i, label in enumerate(ids)}
    parent = {}
    for key in ("sire", "dam"):
        by_id = dict(zip(columns["id"].astype(int), np.nan_to_num(columns[key]).astype(int), strict=True))
        parent[key] = np.array([place.get(by_id[int(label)], -1) for label in ids])
    s, d = parent["sire"], parent["dam"]
    D = (A[np.ix_(s, s)] * A[np.ix_(d, d)] + A[np.ix_(s, d)] * A[np.ix_(d, s)]) / 4.0
    lone = (s < 0) | (d < 0)
    D[lone] = 0.0
    D[:, lone] = 0.0
    np.fill_diagonal(D, 1.0)
    return D, tuple(ids)


@cache
def kinship():
    stored = np.load(FOLDER / "data" / "kin300_K.npz")
    K = np.zeros((300, 300))
    K[np.tril_indices(300)] = stored["lower"]
    return K + np.tril(K, -1).T, tuple(stored["ids"].tolist())


@cache
def known_matrix():
    with (FOLDER / "data" / "knowncov_K.csv").open() as stream:
        rows = list(csv.reader(stream))
    return np.array([[float(x) for x in row[1:]] for row in rows[1:]]), tuple(rows[0][1:])
