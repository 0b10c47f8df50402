/* y = x W^T for a matrix W of int8; take_home.py compiles and uses it.

   torch can multiply by int8 only if a whole row of W shares a scale. Here 32 weights
   do. A row of W becomes float just before it is used and is dropped after it: it never
   leaves the processor's nearest cache, and memory delivers bytes, a quarter of what
   floats would be. */
#include <stdint.h>

/* Four dot products at once: while one addition is under way, others can begin. */
static void four(const float *w, long w_step, const float *x, long x_step, long length,
                 float *sum) {
    float a = 0, b = 0, c = 0, d = 0;
    for (long k = 0; k < length; k++) {
        a += w[k] * x[k];
        b += w[k + w_step] * x[k + x_step];
        c += w[k + 2 * w_step] * x[k + 2 * x_step];
        d += w[k + 3 * w_step] * x[k + 3 * x_step];
    }
    sum[0] = a, sum[1] = b, sum[2] = c, sum[3] = d;
}

/* w: (N, G, 32)   scale: (N, G)   x: (rows, 32 G)   y: (rows, N) */
void linear(const int8_t *w, const float *scale, const float *x, float *y,
            long rows, long N, long G) {
    long K = 32 * G;
#pragma omp parallel for if (N * G > 4096)
    for (long n = 0; n < N; n++) {
        float row[K], sum[4];
        for (long g = 0; g < G; g++)
            for (int i = 0; i < 32; i++)
                row[32 * g + i] = w[(n * G + g) * 32 + i] * scale[n * G + g];
        long r = 0;
        for (; r + 4 <= rows; r += 4) { /* four rows of x */
            four(row, 0, x + r * K, K, K, sum);
            for (int i = 0; i < 4; i++) y[(r + i) * N + n] = sum[i];
        }
        for (; r < rows; r++) { /* one row of x, in four quarters */
            four(row, K / 4, x + r * K, K / 4, K / 4, sum);
            y[r * N + n] = sum[0] + sum[1] + sum[2] + sum[3];
        }
    }
}
