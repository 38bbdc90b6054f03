/* Lower triangles of small dense matrices, stored by rows: Cholesky factor, its inverse, the inverse of the whole.
 * For matrices so small that calling LAPACK costs more than the arithmetic; nothing above the diagonal is read. */
#ifndef MM_LOWER_TRIANGLES_H
#define MM_LOWER_TRIANGLES_H

#include <math.h>

/* The lower triangle of A (p x p) becomes L with L L' = A.
 * Returns 0 where a pivot is not above `lost` times its diagonal element. */
static inline int mm_lower_factor(double *A, int p, double lost) {
    for (int j = 0; j < p; j++) {
        const double least = lost * A[j * p + j];
        for (int k = 0; k < j; k++) {
            double v = A[j * p + k];
            for (int i = 0; i < k; i++) v -= A[j * p + i] * A[k * p + i];
            A[j * p + k] = v / A[k * p + k];
        }
        double v = A[j * p + j];
        for (int i = 0; i < j; i++) v -= A[j * p + i] * A[j * p + i];
        if (!(v > least && v > 0.0 && isfinite(v))) return 0;
        A[j * p + j] = sqrt(v);
    }
    return 1;
}

/* M = L^-1, zeros above the diagonal. */
static inline void mm_lower_inverse(const double *L, double *M, int p) {
    for (int j = 0; j < p; j++) {
        for (int i = 0; i < j; i++) M[i * p + j] = 0.0;
        for (int i = j; i < p; i++) {
            double v = i == j ? 1.0 : 0.0;
            for (int k = j; k < i; k++) v -= L[i * p + k] * M[k * p + j];
            M[i * p + j] = v / L[i * p + i];
        }
    }
}

/* H = M'M = (L L')^-1 from M = L^-1. */
static inline void mm_lower_square(const double *M, double *H, int p) {
    for (int i = 0; i < p; i++)
        for (int j = 0; j <= i; j++) {
            double v = 0.0;
            for (int k = i; k < p; k++) v += M[k * p + i] * M[k * p + j];
            H[i * p + j] = H[j * p + i] = v;
        }
}

#endif
