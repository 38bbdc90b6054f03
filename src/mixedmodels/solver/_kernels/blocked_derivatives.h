/* Parts of the derivatives: known precisions, T of singular factors, the leaf's share of the selected inverse,
 * directions of the average information. */
#ifndef MM_BLOCKED_DERIVATIVES_H
#define MM_BLOCKED_DERIVATIVES_H

#include "blocked_pieces.h"

/* ------------------------------------------------------------------ known precision on its own */
static int mm_prec_setup(mm_model *M, int f)
{
    int m = M->m[f], i, rc = 1, *w = mm_int(m), *adj = NULL;
    int64_t *ptr = mm_i64(m + 1), *fill = mm_i64(m + 1), q, zero = 0;
    mm_order o;
    double ld;
    memset(&o, 0, sizeof(o));
    if (!w || !ptr || !fill) goto done;
    for (i = 0; i < m; i++) {
        int j = M->pos[M->bstart[f] + i];
        w[i] = 1;
        for (q = M->qptr[j]; q < M->qptr[j + 1]; q++) if (M->qblk[q] != j) {
            ptr[i + 1]++;
            ptr[M->P.perm[M->qblk[q]] - M->bstart[f] + 1]++;
        }
    }
    for (i = 0; i < m; i++) ptr[i + 1] += ptr[i];
    adj = mm_int(ptr[m]);
    if (!adj) goto done;
    memcpy(fill, ptr, (m + 1) * sizeof(int64_t));
    for (i = 0; i < m; i++) {
        int j = M->pos[M->bstart[f] + i];
        for (q = M->qptr[j]; q < M->qptr[j + 1]; q++) if (M->qblk[q] != j) {
            int t = M->P.perm[M->qblk[q]] - M->bstart[f];
            adj[fill[i]++] = t;
            adj[fill[t]++] = i;
        }
    }
    if (mm_minimum_degree(m, w, ptr, adj, 0, &zero, NULL, 0.8, &o)) goto done;
    if (mm_symbolic(&o, w, -1, &M->PP[f])) goto done;
    M->Px[f] = mm_dbl(M->PP[f].nx);
    if (!M->Px[f] || mm_cholwork_init(&M->PW[f], &M->PP[f], 1,
                                      (M->p1 > MM_BATCH ? M->p1 : MM_BATCH + M->kmax) * M->kmax)) goto done;
    for (i = 0; i < m; i++) w[M->PP[f].perm[i]] = i;
    for (i = 0; i < m; i++) {
        int j = M->pos[M->bstart[f] + i];
        for (q = M->qptr[j]; q < M->qptr[j + 1]; q++) {
            int a = w[M->P.perm[M->qblk[q]] - M->bstart[f]], b = w[i];
            *mm_at(&M->PP[f], M->Px[f], a > b ? a : b, a > b ? b : a) = M->qval[q];
        }
    }
    rc = mm_factor(&M->bl, &M->PP[f], M->Px[f], &M->PW[f], &ld);
done:
    if (rc) {
        mm_pattern_free(&M->PP[f]);
        mm_cholwork_free(&M->PW[f]);
        free(M->Px[f]);
        M->Px[f] = NULL;
    }
    free(w); free(adj); free(ptr); free(fill);
    mm_order_free(&o);
    return rc;
}

/* ------------------------------------------------------------------ T where a factor of the rest is singular */
/* dst (n x ncols row-major) = G X for dense X, by the operator */
static void mm_apply_G(mm_model *M, const double *X, int nc, double *dst, double *leafbuf)
{
    int k0 = M->k0;
    memset(dst, 0, (size_t)M->n * nc * sizeof(double));
    mm_times_AR(M, 1.0, X, nc, dst);
    if (M->leaf < 0) return;
    memset(leafbuf, 0, (size_t)M->m0 * k0 * nc * sizeof(double));
    mm_times_B(M, 1.0, X, nc, leafbuf);
    for (int l = 0; l < M->m0; l++) {
        double t[k0 * nc], *v = leafbuf + (int64_t)l * k0 * nc;
        const double *H = M->Hs + (int64_t)l * k0 * k0;
        for (int a = 0; a < k0; a++) for (int i = 0; i < nc; i++) {
            double s = 0.0;
            for (int b = 0; b < k0; b++) s += H[a * k0 + b] * v[b * nc + i];
            t[a * nc + i] = s;
        }
        memcpy(v, t, sizeof(t));
    }
    mm_times_Bt(M, -1.0, leafbuf, nc, dst);
}

static int mm_singular_T(mm_model *M, const double *lam, int f, double *T)
{
    int k = M->k[f], n = M->n, per = MM_BATCH / k > 0 ? MM_BATCH / k : 1, m = M->m[f], rc = 0;
    double *batch = mm_dbl((int64_t)n * per * k), *half = mm_dbl((int64_t)n * per * k), *w = M->w[0];
    double *X = NULL, *leafbuf = NULL, *rhs = NULL;
    if (!batch || !half) { rc = 1; goto done; }
    if (M->hasprec[f]) {
        X = mm_dbl((int64_t)n * per * k);
        leafbuf = mm_dbl((int64_t)M->m0 * M->k0 * per * k);
        rhs = mm_dbl((int64_t)m * per);
        if (!X || !leafbuf || !rhs || (!M->PP[f].n && mm_prec_setup(M, f))) { rc = 1; goto done; }
    }
    for (int a = 0; a < m; a += per) {
        int b = a + per < m ? a + per : m, nc = (b - a) * k;
        if (!M->hasprec[f]) {
            for (int l = a; l < b; l++) {
                int j = M->pos[M->bstart[f] + l], cj = M->P.bcol[j];
                mm_column_G(M, j, w, 1);
                for (int r = 0; r < k; r++) for (int c = 0; c < k; c++) T[r * k + c] += w[cj + r + (int64_t)c * n];
                for (int c = 0; c < k; c++)
                    for (int i = 0; i < n; i++) {
                        batch[(int64_t)i * nc + (l - a) * k + c] = w[i + (int64_t)c * n];
                        w[i + (int64_t)c * n] = 0.0;
                    }
            }
        } else {
            /* columns L_P^-T e_j: K enters as sum_j x_j' K x_j */
            int q = b - a;
            memset(rhs, 0, (size_t)m * q * sizeof(double));
            memset(X, 0, (size_t)n * nc * sizeof(double));
            for (int l = a; l < b; l++) rhs[(int64_t)l * q + (l - a)] = 1.0;       /* in the order of PP */
            mm_bsolve(&M->bl, &M->PP[f], M->Px[f], rhs, q, &M->PW[f]);
            for (int i = 0; i < m; i++) {
                int ci = M->P.bcol[M->pos[M->bstart[f] + M->PP[f].perm[i]]];
                for (int s = 0; s < q; s++) for (int c = 0; c < k; c++)
                    X[(int64_t)(ci + c) * nc + s * k + c] = rhs[(int64_t)i * q + s];
            }
            mm_apply_G(M, X, nc, batch, leafbuf);
            for (int i = 0; i < n; i++) for (int s = 0; s < q; s++) for (int r = 0; r < k; r++) {
                double v = X[(int64_t)i * nc + s * k + r];
                if (v != 0.0) for (int c = 0; c < k; c++) T[r * k + c] += v * batch[(int64_t)i * nc + s * k + c];
            }
        }
        mm_times_Lam(M, lam, 1, batch, nc, half);
        mm_fsolve(&M->bl, &M->P, M->x, half, nc, &M->W);
        for (int i = 0; i < n; i++) for (int s = 0; s < b - a; s++) for (int r = 0; r < k; r++) {
            double v = half[(int64_t)i * nc + s * k + r];
            if (v != 0.0) for (int c = 0; c < k; c++) T[r * k + c] -= v * half[(int64_t)i * nc + s * k + c];
        }
    }
done:
    free(batch); free(half); free(X); free(leafbuf); free(rhs);
    return rc;
}

/* chat = P^-1 c for a factor with known precision, from the precision's own factor */
static int mm_solve_precision(mm_model *M, int f, int nc)
{
    int m = M->m[f], k = M->k[f], nr = nc * k;
    double *rhs;
    if (!M->PP[f].n && mm_prec_setup(M, f)) return 1;
    rhs = mm_dbl((int64_t)m * nr);
    if (!rhs) return 1;
    for (int i = 0; i < m; i++)
        memcpy(rhs + (int64_t)i * nr, M->cr + (int64_t)M->P.bcol[M->pos[M->bstart[f] + M->PP[f].perm[i]]] * nc,
               nr * sizeof(double));
    mm_fsolve(&M->bl, &M->PP[f], M->Px[f], rhs, nr, &M->PW[f]);
    mm_bsolve(&M->bl, &M->PP[f], M->Px[f], rhs, nr, &M->PW[f]);
    for (int i = 0; i < m; i++)
        memcpy(M->chat + (int64_t)M->P.bcol[M->pos[M->bstart[f] + M->PP[f].perm[i]]] * nc, rhs + (int64_t)i * nr,
               nr * sizeof(double));
    free(rhs);
    return 0;
}

/* is lam too close to singular for division?  lam' mean(A) lam against the unit penalty; its largest diagonal element */
static int mm_is_singular(const mm_model *M, const double *lam, int f, double tol, double *size)
{
    int k = M->k[f];
    double A[k * k], W[k * k];
    const double *l = lam + M->koff[f];
    memset(A, 0, sizeof(A));
    for (int i = 0; i < M->m[f]; i++) {
        const double *a = M->AR + M->aoff[M->pos[M->bstart[f] + i]];
        for (int q = 0; q < k * k; q++) A[q] += a[q] / M->m[f];
    }
    for (int c = 0; c < k; c++) for (int r = c; r < k; r++) {
        double s = 0.0;
        for (int i = 0; i < k; i++) for (int j = 0; j < k; j++) s += l[i * k + r] * A[i * k + j] * l[j * k + c];
        W[r + c * k] = s - (r == c ? tol : 0.0);
        if (size && r == c && (c == 0 || s > *size)) *size = s;
    }
    return mm_potrf_small(k, W, k);
}

/* ------------------------------------------------------------------ leaf's share of the selected inverse */
static void mm_gather_range(mm_model *M, const double *lam, int a, int b, int thread, const void *arg)
{
    const mm_pattern *P = &M->P;
    int n = M->n, k0 = M->k0;
    double *Q = (double *)arg;                 /* per leaf level, or NULL: N Q N' summed by block */
    for (int j = a; j < b; j++) {
        int cj = P->bcol[j], kj = M->k[M->bfac[j]];
        double *w = M->w[thread];
        int64_t ldw = n;
        mm_walk_column(M, lam, j, w, 1);
        if (M->cptr[j] == M->cptr[j + 1]) { if (!Q) memset(M->colacc + (int64_t)j * k0 * k0, 0, k0 * k0 * sizeof(double)); continue; }
        if (cj >= P->t0) {
            w = M->x + P->xptr[P->ns] + (int64_t)(cj - P->t0) * P->nt - P->t0;
            ldw = P->nt;
        } else mm_walk_column(M, lam, j, w, 2);
        if (M->scalar && !Q) {
            double acc = 0.0;
            const int *restrict col = M->lcol;
            const double *restrict B = M->B;
            for (int64_t s = M->cptr[j]; s < M->cptr[j + 1]; s++) {
                int l = M->cleaf[s];
                int64_t e = M->cent[s], end = M->lptr[l + 1], q = e + 1;
                double s0 = 0, s1 = 0, s2 = 0, s3 = 0, nl = M->N[l];
                for (; q + 3 < end; q += 4) {
                    s0 += B[q] * w[col[q]];
                    s1 += B[q + 1] * w[col[q + 1]];
                    s2 += B[q + 2] * w[col[q + 2]];
                    s3 += B[q + 3] * w[col[q + 3]];
                }
                for (; q < end; q++) s0 += B[q] * w[col[q]];
                acc += nl * nl * B[e] * (2.0 * (s0 + s1 + s2 + s3) + B[e] * w[cj]);
            }
            M->colacc[j] = acc;
        } else {
            double off[k0 * kj], one[k0 * k0], t[k0 * k0], acc[k0 * k0];
            memset(acc, 0, sizeof(acc));
            for (int64_t s = M->cptr[j]; s < M->cptr[j + 1]; s++) {
                int l = M->cleaf[s];
                int64_t e = M->cent[s], end = M->lptr[l + 1];
                const double *Bj = M->B + M->lval[e], *N = M->N + (int64_t)l * k0 * k0;
                for (int i = 0; i < k0 * kj; i++) off[i] = 0.0;
                for (int64_t q = e; q < end; q++) {
                    int ki = M->k[M->bfac[M->lblk[q]]];
                    const double *Bq = M->B + M->lval[q], *wq = w + M->lcol[q];
                    double f = q == e ? 0.5 : 1.0;
                    for (int c = 0; c < kj; c++) {
                        const double *wc = wq + (int64_t)c * ldw;
                        for (int r = 0; r < k0; r++) {
                            double v = 0.0;
                            for (int i = 0; i < ki; i++) v += Bq[r * ki + i] * wc[i];
                            off[r * kj + c] += f * v;
                        }
                    }
                }
                for (int r = 0; r < k0; r++) for (int c = 0; c < k0; c++) {
                    double v = 0.0;
                    for (int i = 0; i < kj; i++) v += off[r * kj + i] * Bj[c * kj + i];
                    one[r * k0 + c] = v;
                }
                if (Q) {
                    double *q = Q + (int64_t)l * k0 * k0;
                    for (int r = 0; r < k0; r++) for (int c = 0; c < k0; c++) q[r * k0 + c] += one[r * k0 + c] + one[c * k0 + r];
                    continue;
                }
                for (int r = 0; r < k0; r++) for (int c = 0; c < k0; c++) {
                    double v = 0.0;
                    for (int i = 0; i < k0; i++) v += N[r * k0 + i] * (one[i * k0 + c] + one[c * k0 + i]);
                    t[r * k0 + c] = v;
                }
                for (int r = 0; r < k0; r++) for (int c = 0; c < k0; c++) {
                    double v = 0.0;
                    for (int i = 0; i < k0; i++) v += t[r * k0 + i] * N[c * k0 + i];
                    acc[r * k0 + c] += v;
                }
            }
            if (!Q) memcpy(M->colacc + (int64_t)j * k0 * k0, acc, sizeof(acc));
        }
        if (cj < P->t0) mm_walk_column(M, lam, j, w, 3);
    }
}

static void mm_gather_dense(mm_model *M, const double *lam, double *T, double *Q)
{
    int n = M->n, k0 = M->k0, mk = M->m0 * k0;
    double *Z = M->Zd, *Y = M->Wd;
    for (int j = 0; j < M->nb; j++) mm_walk_column(M, lam, j, M->w[0], 1);
    for (int j = 0; j < n; j++) for (int i = j; i < n; i++) {
        double v = M->x[i + (int64_t)j * n];
        Z[i + (int64_t)j * n] = v;
        Z[j + (int64_t)i * n] = v;
    }
    mm_rm(&M->bl, 0, mk, n, n, 1.0, M->Bd, Z, 0.0, Y);
    for (int l = 0; l < M->m0; l++) {
        double q[k0 * k0], t[k0 * k0];
        const double *N = M->N + (int64_t)l * k0 * k0;
        for (int a = 0; a < k0; a++) for (int b = 0; b <= a; b++) {
            const double *y = Y + ((int64_t)l * k0 + a) * n, *x = M->Bd + ((int64_t)l * k0 + b) * n;
            double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
            int i = 0;
            for (; i + 3 < n; i += 4) { s0 += y[i] * x[i]; s1 += y[i + 1] * x[i + 1]; s2 += y[i + 2] * x[i + 2]; s3 += y[i + 3] * x[i + 3]; }
            for (; i < n; i++) s0 += y[i] * x[i];
            q[a * k0 + b] = q[b * k0 + a] = s0 + s1 + s2 + s3;
        }
        if (Q) { memcpy(Q + (int64_t)l * k0 * k0, q, sizeof(q)); continue; }
        for (int r = 0; r < k0; r++) for (int c = 0; c < k0; c++) {
            double v = 0.0;
            for (int i = 0; i < k0; i++) v += N[r * k0 + i] * q[i * k0 + c];
            t[r * k0 + c] = v;
        }
        for (int r = 0; r < k0; r++) for (int c = 0; c < k0; c++) {
            double v = 0.0;
            for (int i = 0; i < k0; i++) v += t[r * k0 + i] * N[c * k0 + i];
            T[r * k0 + c] -= v;
        }
    }
}

/* ------------------------------------------------------------------ directions */
static void mm_direction_range(mm_model *M, const double *lam, int a, int b, int thread, const void *arg)
{
    int r = *(const int *)arg, k0 = M->k0;
    for (int l = a; l < b; l++) {
        const double *A = M->A0 + (int64_t)l * k0 * k0, *H = M->Hs + (int64_t)l * k0 * k0, *N = M->N + (int64_t)l * k0 * k0;
        double *bb = M->bleaf + (int64_t)l * k0 * r, *ww = M->wleaf + (int64_t)l * k0 * r;
        double *g = M->Yd + (int64_t)l * k0 * r;
        if (k0 == 1) {
            for (int i = 0; i < r; i++) {
                double w = ww[i] + A[0] * bb[i];
                g[i] = bb[i] - H[0] * w;
                ww[i] = N[0] * w;
            }
            continue;
        }
        double t[k0 * r];
        for (int x = 0; x < k0; x++)                         /* w = B b_R (there already) + A b_l */
            for (int y = 0; y < k0; y++) {
                double v = A[x * k0 + y];
                for (int i = 0; i < r; i++) ww[x * r + i] += v * bb[y * r + i];
            }
        memcpy(t, ww, sizeof(t));
        for (int x = 0; x < k0; x++) {
            for (int i = 0; i < r; i++) { g[x * r + i] = bb[x * r + i]; ww[x * r + i] = 0.0; }
            for (int y = 0; y < k0; y++) {
                double h = H[x * k0 + y], z = N[x * k0 + y];
                for (int i = 0; i < r; i++) { g[x * r + i] -= h * t[y * r + i]; ww[x * r + i] += z * t[y * r + i]; }
            }
        }
    }
}

/* wpw (r x r); c of the first column in cl (stride nc) and chat/cr (stride ncr) */
static void mm_directions(mm_model *M, const double *lam, const double *dS, int r, int kk, int nc, int ncr, double *wpw)
{
    int n = M->n, mk = M->m0 * M->k0, p1 = M->p1, p = p1 - 1, k0 = M->k0, i, j;
    const double *C = M->C;
    if (M->leaf >= 0) {
        const double *D = dS + M->koff[M->leaf];
        memset(M->bleaf, 0, (size_t)mk * r * sizeof(double));
        for (i = 0; i < r; i++) {
            const double *Di = D + (int64_t)i * kk;
            for (int x = 0; x < k0; x++) for (int y = 0; y < k0; y++) {
                double d = Di[x * k0 + y];
                if (d == 0.0) continue;
                for (int l = 0; l < M->m0; l++)
                    M->bleaf[((int64_t)l * k0 + x) * r + i] += d * M->cl[((int64_t)l * k0 + y) * nc];
            }
        }
    }
    if (n) {
        memset(M->brest, 0, (size_t)n * r * sizeof(double));
        for (j = 0; j < M->nb; j++) {
            int f = M->bfac[j], k = M->k[f], cj = M->P.bcol[j];
            const double *c = (M->hasprec[f] ? M->chat : M->cr) + (int64_t)cj * ncr;
            for (i = 0; i < r; i++) {
                const double *Di = dS + (int64_t)i * kk + M->koff[f];
                for (int x = 0; x < k; x++) {
                    double v = 0.0;
                    for (int y = 0; y < k; y++) v += Di[x * k + y] * c[y * ncr];
                    M->brest[(int64_t)(cj + x) * r + i] = v;
                }
            }
        }
    }
    memset(wpw, 0, (size_t)r * r * sizeof(double));
    memset(M->Xw, 0, (size_t)p1 * r * sizeof(double));
    if (M->leaf >= 0) {
        memset(M->wleaf, 0, (size_t)mk * r * sizeof(double));
        if (n) mm_times_B(M, 1.0, M->brest, r, M->wleaf);
        mm_par(M, lam, mm_direction_range, M->m0, 512, (double)mk * k0 * r * 3, &r);
        mm_rm(&M->bl, 1, r, r, mk, 1.0, M->bleaf, M->wleaf, 1.0, wpw);
        if (p) mm_rm(&M->bl, 1, p1, r, mk, 1.0, M->R0, M->Yd, 1.0, M->Xw);
    }
    if (n) {
        memset(M->wrest, 0, (size_t)n * r * sizeof(double));
        mm_times_AR(M, 1.0, M->brest, r, M->wrest);
        if (M->leaf >= 0) mm_times_Bt(M, 1.0, M->Yd, r, M->wrest);
        mm_rm(&M->bl, 1, r, r, n, 1.0, M->brest, M->wrest, 1.0, wpw);
        if (p) mm_rm(&M->bl, 1, p1, r, n, 1.0, M->RR, M->brest, 1.0, M->Xw);
        mm_times_Lam(M, lam, 1, M->wrest, r, M->brest);
        mm_fsolve(&M->bl, &M->P, M->x, M->brest, r, &M->W);
        mm_rm(&M->bl, 1, r, r, n, -1.0, M->brest, M->brest, 1.0, wpw);
        if (p) mm_rm(&M->bl, 1, p1, r, n, -1.0, M->R, M->brest, 1.0, M->Xw);
    }
    for (j = 0; j < p; j++) {
        double *x = M->Xw + (int64_t)j * r;
        for (i = 0; i < j; i++) {
            double v = C[j + i * p1];
            for (int c = 0; c < r; c++) x[c] -= v * M->Xw[(int64_t)i * r + c];
        }
        for (int c = 0; c < r; c++) x[c] /= C[j * (p1 + 1)];
    }
    if (p) mm_rm(&M->bl, 1, r, r, p, -1.0, M->Xw, M->Xw, 1.0, wpw);
    for (i = 0; i < r; i++) for (j = 0; j < i; j++)
        wpw[i * r + j] = wpw[j * r + i] = 0.5 * (wpw[i * r + j] + wpw[j * r + i]);
}
#endif
