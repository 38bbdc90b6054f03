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

/* ------------------------------------------------------------------ T where a factor of the rest is singular
 * With N = P + G Sigma the derivative of log|S| with respect to Sigma_f is the sum over the levels l of f of the
 * diagonal blocks (N^-1 G)_ll, and N^-1 = Lam^-T S^-1 Lam':
 *     T_f = lam_f^-T sum_l sum_j (S^-1)_lj lam_j' G_jl,
 * which takes S^-1 on the pattern of G only.  In coordinates where lam_f = U diag(s) row i of the sum is a sum of
 * terms that all hold s_i, so that the division costs no digits however small s_i is.  A zero becomes a number
 * whose square is lost in any sum. */
#define MM_NOTHING 1e-50

/* lam (k x k row-major) <- lam V with orthogonal columns D^-1 U diag(s), by one-sided Jacobi rotations of D lam;
 * back = D U diag(1 / s) */
static void mm_orthogonal_columns(int k, const double *D, double *lam, double *back)
{
    double norm[k];
    for (int i = 0; i < k; i++) for (int j = 0; j < k; j++) lam[i * k + j] *= D[i];
    for (int sweep = 0, moved = 1; moved && sweep < 60; sweep++) {
        moved = 0;
        for (int a = 0; a < k; a++) for (int b = a + 1; b < k; b++) {
            double aa = 0.0, bb = 0.0, ab = 0.0;
            for (int i = 0; i < k; i++) {
                double x = lam[i * k + a], y = lam[i * k + b];
                aa += x * x; bb += y * y; ab += x * y;
            }
            if (!(fabs(ab) > 1e-15 * sqrt(aa * bb))) continue;
            moved = 1;
            double z = (bb - aa) / (2.0 * ab), t = (z >= 0 ? 1.0 : -1.0) / (fabs(z) + sqrt(1.0 + z * z));
            double c = 1.0 / sqrt(1.0 + t * t), s = c * t;
            for (int i = 0; i < k; i++) {
                double x = lam[i * k + a], y = lam[i * k + b];
                lam[i * k + a] = c * x - s * y;
                lam[i * k + b] = s * x + c * y;
            }
        }
    }
    for (int a = 0; a < k; a++) {
        norm[a] = 0.0;
        for (int i = 0; i < k; i++) norm[a] += lam[i * k + a] * lam[i * k + a];
        norm[a] = sqrt(norm[a]);
        if (norm[a] > MM_NOTHING) for (int i = 0; i < k; i++) back[i * k + a] = lam[i * k + a] / norm[a];
        else norm[a] = 0.0;
    }
    for (int a = 0; a < k; a++) if (norm[a] == 0.0) {      /* a unit vector orthogonal to the columns that are there */
        double best = -1.0, v[k];
        for (int e = 0; e < k; e++) {
            double r[k], size = 0.0;
            for (int i = 0; i < k; i++) r[i] = i == e;
            for (int pass = 0; pass < 2; pass++)
                for (int b = 0; b < k; b++) if (norm[b] != 0.0) {
                    double d = 0.0;
                    for (int i = 0; i < k; i++) d += r[i] * back[i * k + b];
                    for (int i = 0; i < k; i++) r[i] -= d * back[i * k + b];
                }
            for (int i = 0; i < k; i++) size += r[i] * r[i];
            if (size > best) { best = size; memcpy(v, r, sizeof(v)); }
        }
        for (int i = 0; i < k; i++) {
            back[i * k + a] = v[i] / sqrt(best);
            lam[i * k + a] = back[i * k + a] * MM_NOTHING;
        }
        norm[a] = MM_NOTHING;
    }
    for (int i = 0; i < k; i++) for (int a = 0; a < k; a++) {
        lam[i * k + a] /= D[i];
        back[i * k + a] *= D[i] / norm[a];
    }
}

/* S = Lam'G Lam + P, factored in x */
static int mm_factor_rest(mm_model *M, const double *lam, double *logdet)
{
    for (int j = 0; j < M->nb && M->scalar; j++) M->ls[M->P.bcol[j]] = lam[M->koff[M->bfac[j]]];
    if (M->dense) mm_dense_G(M, lam);
    else mm_par(M, lam, mm_assemble_range, M->nb, M->nb > 256 ? 16 : 4,
                (double)M->lval[M->lptr[M->m0]] * 8 + M->P.nnz, NULL);
    return mm_factor(&M->bl, &M->P, M->x, &M->W, logdet);
}

/* the same at lam with orthogonal columns in the singular factors; back (like lam) holds their D U diag(1 / s) */
static int mm_factor_singular(mm_model *M, const char *sing, double *lam, double *back)
{
    double ld;
    for (int f = 0; f < M->F; f++) {
        int k = M->k[f];
        double D[k];
        if (!sing[f]) continue;
        for (int a = 0; a < k; a++) D[a] = 0.0;
        for (int l = 0; l < M->m[f]; l++) {
            const double *A = M->AR + M->aoff[M->pos[M->bstart[f] + l]];
            for (int a = 0; a < k; a++) D[a] += A[a * (k + 1)] / M->m[f];
        }
        for (int a = 0; a < k; a++) D[a] = D[a] > 0.0 ? sqrt(D[a]) : 1.0;
        mm_orthogonal_columns(k, D, lam + M->koff[f], back + M->koff[f]);
    }
    return mm_factor_rest(M, lam, &ld);
}

/* W_f += z lam_o' g' (turned = 0: z (kf, ko), g (kf, ko)) or z' lam_o' g (turned: z and g (ko, kf)); columns of z and g
 * at strides ldz and ldg */
static void mm_add_product(int kf, int ko, const double *lo, int turned, const double *z, int64_t ldz, const double *g,
                           int64_t ldg, double *W)
{
    for (int y = 0; y < ko; y++) for (int c = 0; c < kf; c++) {
        double s = 0.0;                                     /* (lam_o' G_of)_yc */
        for (int v = 0; v < ko; v++) s += lo[v * ko + y] * (turned ? g[v + c * ldg] : g[c + v * ldg]);
        for (int a = 0; a < kf; a++) W[a * kf + c] += (turned ? z[y + a * ldz] : z[a + y * ldz]) * s;
    }
}

/* T of the singular factors from the selected inverse in x at the point of mm_factor_singular; T is added to */
static int mm_singular_T(mm_model *M, const char *sing, const double *lam, const double *back, double *T)
{
    const mm_pattern *P = &M->P;
    int n = M->n, kk = M->koff[M->F];
    double *w = M->w[0], *W = mm_dbl(kk);
    if (!W) return 1;
    for (int j = 0; j < M->nb; j++) {
        int fj = M->bfac[j], cj = P->bcol[j], kj = M->k[fj], K = P->col2super[cj];
        int tail = K == P->ns, first = tail ? P->t0 : P->sfirst[K], end = tail ? n : P->sfirst[K + 1];
        int nr = tail ? 0 : (int)(P->rptr[K + 1] - P->rptr[K]), nc = end - first;
        int64_t ld = nc + nr;
        const int *rows = tail ? NULL : P->rows + P->rptr[K];
        const double *X = M->x + P->xptr[K] + (int64_t)(cj - first) * ld, *lj = lam + M->koff[fj];
        mm_column_G(M, j, w, 0);
        for (int part = 0; part < 2; part++) {
            int i = part ? 0 : cj, stop = part ? nr : end;
            while (i < stop) {
                int row = part ? rows[i] : i, bi = P->colblk[row], fi = M->bfac[bi], ki = M->k[fi];
                const double *z = X + (part ? nc + i : i - first), *g = w + row;
                i += ki;
                if (bi == j) {
                    double full[ki * ki];
                    if (!sing[fj]) continue;
                    for (int a = 0; a < ki; a++) for (int b = a; b < ki; b++)
                        full[a + b * ki] = full[b + a * ki] = z[b + a * ld];
                    mm_add_product(kj, kj, lj, 0, full, kj, g, n, W + M->koff[fj]);
                    continue;
                }
                if (sing[fj]) mm_add_product(kj, ki, lam + M->koff[fi], 1, z, ld, g, n, W + M->koff[fj]);
                if (sing[fi]) mm_add_product(ki, kj, lj, 0, z, ld, g, n, W + M->koff[fi]);
            }
            for (int q = part ? 0 : cj; q < stop; q++)
                for (int c = 0; c < kj; c++) w[(part ? rows[q] : q) + (int64_t)c * n] = 0.0;
        }
    }
    for (int f = 0; f < M->F; f++) if (sing[f]) {
        int k = M->k[f];
        const double *b = back + M->koff[f], *v = W + M->koff[f];
        for (int r = 0; r < k; r++) for (int c = 0; c < k; c++) {
            double s = 0.0;
            for (int a = 0; a < k; a++) s += b[r * k + a] * v[a * k + c];
            T[M->koff[f] + r * k + c] += s;
        }
    }
    free(W);
    return 0;
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
