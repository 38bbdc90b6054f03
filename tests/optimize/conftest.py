"""A small LMM objective in NumPy, equation by equation, and its data sets: the optimisers' proving ground."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mixedmodels.solver._kernels.newton import CallbackEvaluator

from mixedmodels.objective.em import em_factors
from mixedmodels.optimize.base import Certificate


def us(k):
    return [(i, j) for j in range(k) for i in range(j, k)]


def diag(k):
    return [(j, j) for j in range(k)]


def add_direction(factor, v):
    """Lower-triangular factor of factor factor' + v v' by Givens rotations, exact for singular factors."""
    L, x = np.array(factor, dtype=float), np.array(v, dtype=float)
    for i in range(len(L)):
        h = np.hypot(L[i, i], x[i])
        if h == 0.0:
            continue
        c, s = L[i, i] / h, x[i] / h
        column, rest = L[i:, i].copy(), x[i:].copy()
        L[i:, i] = c * column + s * rest
        x[i:] = c * rest - s * column
    return L * np.where(np.diag(L) < 0.0, -1.0, 1.0)


class ToyLMM:
    """Objective of an LMM from dense cross-products; one us, diag or homdiag structure per factor."""

    def __init__(self, y, X, terms, reml=False):
        n, p = X.shape
        beta0 = np.linalg.lstsq(X, y, rcond=None)[0]
        y = y - X @ beta0
        self.k = [Z.shape[1] for _, Z, _ in terms]
        self.m = [int(codes.max()) + 1 for codes, _, _ in terms]
        blocks = []
        for (codes, Zc, _), m, k in zip(terms, self.m, self.k, strict=True):
            Z = np.zeros((n, m * k))
            for j in range(k):
                Z[np.arange(n), codes * k + j] = Zc[:, j]
            blocks.append(Z)
        Z = np.hstack(blocks)
        self.A, self.ZX, self.Zy = Z.T @ Z, Z.T @ X, Z.T @ y
        self.XX, self.Xy, self.yy = X.T @ X, X.T @ y, float(y @ y)
        self.nu = float(n - p if reml else n)
        self.reml = reml
        entries, clips, lower, start, t = [], [], [], [], 0
        self.kinds = []
        for f, (_, Zc, structure) in enumerate(terms):
            k = Zc.shape[1]
            if structure == "homdiag":
                entries += [(f, j, j, t) for j in range(k)]
                lower, start, t = [*lower, 0.0], [*start, 1.0], t + 1
                kind = 2
            else:
                kind = 0 if structure == "us" else 1
                for i, j in us(k) if structure == "us" else diag(k):
                    entries.append((f, i, j, t))
                    lower.append(0.0 if i == j else -np.inf)
                    start.append(float(i == j))
                    t += 1
            self.kinds.append(kind)
            clips.append((f, 0, k, kind))
        self.entries = np.array(entries)
        self.names = tuple(f"t{i}" for i in range(t))
        self.lower, self.upper, self.start = np.array(lower), np.full(t, np.inf), np.array(start)
        self.evaluator = CallbackEvaluator(
            self.k, entries, clips, p, self.nu, reml, 0.0, 0.0, function=self.components
        )
        self.evaluations = 0

    # ---- numbers
    def _big(self, lam):
        out, at = [], 0
        for k, m in zip(self.k, self.m, strict=True):
            out.append(np.kron(np.eye(m), np.asarray(lam[at : at + k * k]).reshape(k, k)))
            at += k * k
        q = sum(b.shape[0] for b in out)
        L = np.zeros((q, q))
        at = 0
        for b in out:
            L[at : at + len(b), at : at + len(b)] = b
            at += len(b)
        return L

    def components(self, lam, D, order):
        self.evaluations += 1
        if not np.all(np.isfinite(lam)):
            return None
        Lam = self._big(lam)
        q = len(Lam)
        try:
            L = np.linalg.cholesky(Lam.T @ self.A @ Lam + np.eye(q))
            RZX = np.linalg.solve(L, Lam.T @ self.ZX)
            RX = np.linalg.cholesky(self.XX - RZX.T @ RZX)
        except np.linalg.LinAlgError:
            return None
        w = np.linalg.solve(L, Lam.T @ self.Zy)
        v = np.linalg.solve(RX, self.Xy - RZX.T @ w)
        pwrss = self.yy - w @ w - v @ v
        beta = np.linalg.solve(RX.T, v)
        u = np.linalg.solve(L.T, w - RZX @ beta)
        c = self.Zy - self.ZX @ beta - self.A @ (Lam @ u)
        out = [2 * np.log(np.diag(L)).sum(), 2 * np.log(np.diag(RX)).sum(), pwrss]
        if order == 0:
            return out
        G = np.linalg.solve(L, Lam.T @ self.A)
        K = self.A - G.T @ G
        KX = self.ZX - G.T @ RZX
        KX = np.linalg.solve(RX, KX.T).T
        KP = K - KX @ KX.T
        T, S, at = [], [], 0
        for k, m in zip(self.k, self.m, strict=True):
            C = (KP if self.reml else K)[at : at + m * k, at : at + m * k].reshape(m, k, m, k)
            T.append(np.einsum("iaib->ab", C).ravel())
            cl = c[at : at + m * k].reshape(m, k)
            S.append((cl.T @ cl).ravel())
            at += m * k
        out += [np.concatenate(T), np.concatenate(S)]
        if order >= 2:
            B = np.array([self._big(d) @ c for d in D]).reshape(len(D), q)
            out.append(B @ KP @ B.T)
        return out

    # ---- Objective
    def value(self, theta):
        return self.evaluator.value_gradient_hessian(theta, 0)[0]

    def value_and_gradient(self, theta):
        return self.evaluator.value_gradient_hessian(theta, 1)[:2]

    def newton(self, theta):
        return self.evaluator.value_gradient_hessian(theta, 2)

    def sigma_model(self, theta):
        """In the entries of Sigma: one symmetric unit matrix per parameter, summed over its places."""
        lams = self.factors(theta)
        at = np.cumsum([0, *[k * k for k in self.k]])
        D = np.zeros((len(self.names), at[-1]))
        for f, i, j, t in self.entries:
            D[t, at[f] + i * self.k[f] + j] = D[t, at[f] + j * self.k[f] + i] = 1.0
        out = self.components(np.concatenate([lam.ravel() for lam in lams]), D, 2)
        if out is None:
            raise FloatingPointError("not positive definite")
        pwrss, T, S, wpw = out[2:]
        s, qv = self.nu / pwrss, D @ S
        J, M = s * wpw - s / pwrss * np.outer(qv, qv), T - s * S
        excess, traces, together = np.zeros_like(J), np.zeros_like(J), np.zeros(J.shape, dtype=bool)
        for f, (k, m) in enumerate(zip(self.k, self.m, strict=True)):
            own = slice(at[f], at[f + 1])
            cut = D[:, own].reshape(-1, k, k)
            excess += np.einsum("ab,sbc,cd,tda->st", T[own].reshape(k, k), cut, M[own].reshape(k, k), cut) / m
            Tf = T[own].reshape(k, k)
            traces += np.einsum("ab,sbc,cd,tda->st", Tf, cut, Tf, cut) / m
            here = np.any(cut != 0.0, axis=(1, 2))
            together |= np.outer(here, here)
        observed = J + np.where(together, s * wpw - traces, 0.0)
        return self.value(theta), D @ M, J, J + 0.5 * (excess + excess.T), observed

    def factors(self, theta):
        return [self.evaluator_factor(f, theta) for f in range(len(self.k))]

    def evaluator_factor(self, f, theta):
        lam = np.zeros((self.k[f], self.k[f]))
        for g, i, j, t in self.entries:
            if g == f:
                lam[i, j] = theta[t]
        return lam

    def _directions(self, lams, kk):
        D = np.zeros((len(self.names), kk))
        at = np.cumsum([0, *[k * k for k in self.k]])
        for f, i, j, t in self.entries:
            k = self.k[f]
            E = np.zeros((k, k))
            E[i, j] = 1
            D[t, at[f] : at[f + 1]] += (E @ lams[f].T + lams[f] @ E.T).ravel()
        return D

    def information(self, theta, kind="average"):
        lams = self.factors(theta)
        flat = np.concatenate([lam.ravel() for lam in lams])
        D = self._directions(lams, len(flat))
        _, _, pwrss, T, S, wpw = self.components(flat, D, 2)
        s = self.nu / pwrss
        qv = D @ S
        average = s * wpw - s / pwrss * np.outer(qv, qv)
        if kind == "average":
            return average
        Lam = self._big(flat)
        q = len(Lam)
        L = np.linalg.cholesky(Lam.T @ self.A @ Lam + np.eye(q))
        G = np.linalg.solve(L, Lam.T @ self.A)
        K = self.A - G.T @ G
        if self.reml:
            RZX = np.linalg.solve(L, Lam.T @ self.ZX)
            RX = np.linalg.cholesky(self.XX - RZX.T @ RZX)
            KX = np.linalg.solve(RX, (self.ZX - G.T @ RZX).T).T
            K = K - KX @ KX.T
        KD = [K @ self._big(d) for d in D]
        trace = np.array([[np.sum(a * b.T) for b in KD] for a in KD])
        t = np.array([np.trace(a) for a in KD])
        if kind == "expected":
            return trace - np.outer(t, t) / self.nu
        M = self.M(T, S, s)
        curv = np.zeros((len(D), len(D)))
        for f, i, j, a in self.entries:
            for g, i2, j2, b in self.entries:
                if f == g and j == j2:
                    curv[a, b] += 2 * M[f][i, i2]
        return curv - trace + 2 * s * wpw - s / pwrss * np.outer(qv, qv)

    def M(self, T, S, s):
        out, at = [], 0
        for k in self.k:
            out.append((T - s * S)[at : at + k * k].reshape(k, k))
            at += k * k
        return out

    def ecme_step(self, theta, sigma=False):
        lams = self.factors(theta)
        flat = np.concatenate([lam.ravel() for lam in lams])
        _, _, pwrss, T, S = self.components(flat, None, 1)
        kinds = [("block", "diagonal", "trace")[kind] for kind in self.kinds]
        M = self.M(T, S, self.nu / pwrss)
        new = em_factors(lams, M, self.m, kinds, total=self.nu if sigma else None)
        out = np.array(theta, dtype=float)
        for f, i, j, t in self.entries:
            out[t] = new[f][i, j]
        return out

    def em_step(self, theta):
        return self.ecme_step(theta, sigma=True)

    def certificate(self, theta):
        lams = self.factors(theta)
        flat = np.concatenate([lam.ravel() for lam in lams])
        _, _, pwrss, T, S = self.components(flat, None, 1)
        Ms = self.M(T, S, self.nu / pwrss)
        eig, res, sing = [], [], []
        for M, lam, kind in zip(Ms, lams, self.kinds, strict=True):
            k = len(M)
            if kind == 2:
                M = np.eye(k) * np.trace(M) / k
            elif kind == 1:
                M = np.diag(np.diag(M))
            eig.append(float(np.linalg.eigvalsh(M)[0]))
            res.append(float(np.linalg.norm(M @ lam)))
            sing.append(bool(np.linalg.svd(lam, compute_uv=False)[-1] < 1e-12))
        return Certificate(eig, res, self.escape, tuple(f"term{f}" for f in range(len(self.k))), sing)

    def escape(self, theta):
        lams = self.factors(theta)
        flat = np.concatenate([lam.ravel() for lam in lams])
        _, _, pwrss, T, S = self.components(flat, None, 1)
        s = self.nu / pwrss
        best = (0.0,)
        at = 0
        for f, (M, kind) in enumerate(zip(self.M(T, S, s), self.kinds, strict=True)):
            k = len(M)
            v = None
            if kind == 0:
                w, V = np.linalg.eigh(M)
                v = V[:, 0]
                dS = np.outer(V[:, 0], V[:, 0])
                slope = w[0]
            elif kind == 1:
                j = int(np.argmin(np.diag(M)))
                dS = np.zeros((k, k))
                dS[j, j] = 1
                slope = M[j, j]
            else:
                dS, slope = np.eye(k), np.trace(M)
            d = np.zeros((1, len(flat)))
            d[0, at : at + k * k] = dS.ravel()
            at += k * k
            if slope < 0:
                out = self.components(flat, d, 2)
                q = float(d[0] @ S)
                ai = s * out[5][0, 0] - s / pwrss * q * q
                gain = slope**2 / (2 * ai)
                if gain > best[0]:
                    best = (gain, f, -slope / ai, dS, v)
        if best[0] < 1e-8:
            return None
        _, f, tau, dS, v = best
        lam = add_direction(lams[f], np.sqrt(tau) * v) if v is not None else np.sqrt(lams[f] ** 2 + tau * dS)
        out = np.array(theta, dtype=float)
        for g, i, j, t in self.entries:
            if g == f:
                out[t] = lam[i, j]
        return out


def simulate(seed, m, n_per, sds, corr=None, sigma=1.0, k=None):
    """One factor with k standard-normal columns; returns y, X, codes, Z."""
    r = np.random.default_rng(seed)
    sds = np.asarray(sds, dtype=float)
    k = len(sds)
    codes = np.repeat(np.arange(m), n_per)
    Z = np.c_[np.ones(m * n_per), r.normal(size=(m * n_per, k - 1))]
    C = np.eye(k) if corr is None else np.asarray(corr, dtype=float)
    w, V = np.linalg.eigh(C)
    b = r.normal(size=(m, k)) @ (V * np.sqrt(np.maximum(w, 0))).T * sds
    y = 1 + Z[:, 1:].sum(1) * 0.3 + (Z * b[codes]).sum(1) + sigma * r.normal(size=m * n_per)
    return y, Z.copy(), codes, Z


def kb07(seed, rank=2, n=600, ns=30, ni=20):
    """Two crossed 4 x 4 vector terms, the true covariances of the given rank."""
    r = np.random.default_rng(seed)
    s, i = np.divmod(np.arange(ns * ni), ni)
    c = (s + i) % 8
    Z = np.c_[np.ones(ns * ni), ((c >> 2) & 1) - 0.5, ((c >> 1) & 1) - 0.5, (c & 1) - 0.5]
    bs = r.normal(size=(ns, rank)) @ r.normal(size=(rank, 4)) * 0.5
    bi = r.normal(size=(ni, rank)) @ r.normal(size=(rank, 4)) * 0.5
    y = 2 + (Z * bs[s]).sum(1) + (Z * bi[i]).sum(1) + r.normal(size=ns * ni)
    return y, Z, [(s, Z, "us"), (i, Z, "us")]


LME4 = json.loads((Path(__file__).parent / "lme4_fits.json").read_text())


def lme4(name, reml):
    """Objective of a data set of lme4, the response in units that keep every digit."""
    d = LME4[name]
    y = np.array(d["y"])
    X = np.ones((len(y), 1)) if "x" not in d else np.c_[np.ones(len(y)), d["x"]]
    return ToyLMM(y, X, [(np.array(g), X, "us") for g in d["groups"]], reml)


def lme4_value(name, reml):
    """Deviance (or REML criterion) and theta of lme4 1.1-31."""
    d = LME4[name]["reml" if reml else "ml"]
    return d["deviance"], np.array(d["theta"])


@pytest.fixture(scope="session")
def toy():
    class Namespace:
        pass

    out = Namespace()
    out.LMM, out.simulate, out.kb07, out.lme4, out.lme4_value = ToyLMM, simulate, kb07, lme4, lme4_value
    return out
