/* Several levels at a time: a "lane" is one level, a vd holds one number of LANES levels.
 *
 * GCC and Clang: vector extensions, compiled twice where the linker can choose at load time (AVX2 + FMA, and
 * the baseline of the platform). Other compilers: one lane, the same source.
 */
#ifndef MIXEDMODELS_LANES_H
#define MIXEDMODELS_LANES_H

#include <math.h>
#include <stddef.h>

#if (defined(__GNUC__) || defined(__clang__)) && !defined(MIXEDMODELS_ONE_LANE)
#define LANES 4
typedef double vd __attribute__((vector_size(32), aligned(8)));
#define MM_INLINE static inline __attribute__((always_inline))
#else
#define LANES 1
typedef double vd;
#define MM_INLINE static __inline
#endif

#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    __GNUC__ >= 12
#define MM_CLONES __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define MM_CLONES
#endif

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

#if LANES == 4
/* a set of lanes from one number, their sum, whether one is above x, the sum of their logarithms */
#define VD_SET(x) ((vd){(x), (x), (x), (x)})
#define VD_SUM(v) (((v)[0] + (v)[1]) + ((v)[2] + (v)[3]))
#define VD_ANY_ABOVE(v, x) (((v)[0] > (x)) | ((v)[1] > (x)) | ((v)[2] > (x)) | ((v)[3] > (x)))
#define VD_LOG(v) (log((v)[0]) + log((v)[1]) + log((v)[2]) + log((v)[3]))
#else
#define VD_SET(x) (x)
#define VD_SUM(v) (v)
#define VD_ANY_ABOVE(v, x) ((v) > (x))
#define VD_LOG(v) log(v)
#endif

#endif
