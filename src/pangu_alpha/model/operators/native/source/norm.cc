// Layer normalisation over the last axis, and its gradients.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernel.h"
#include "norm.h"
#include "threads.h"

namespace pangu {

FOR_EACH_PROCESSOR void normalize(const float* x, const float* gamma, const float* beta, float epsilon,
                                  int64_t columns, float* y, float* mean, float* inverse) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < columns; ++j) sum += x[j];
    const float middle = sum / columns;
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t j = 0; j < columns; ++j) squares += (x[j] - middle) * (x[j] - middle);
    const float factor = 1.0f / std::sqrt(squares / columns + epsilon);
    for (int64_t j = 0; j < columns; ++j) y[j] = (x[j] - middle) * factor * gamma[j] + beta[j];
    *mean = middle;
    *inverse = factor;
}

namespace {

constexpr int64_t kRows = 16;  // rows of a piece

// dx of one row, and the row's share of dgamma and dbeta added to the sums.
FOR_EACH_PROCESSOR void differentiate(const float* x, const float* gamma, float mean, float inverse,
                                      const float* dy, int64_t columns, float* dx, float* dgamma, float* dbeta) {
    float sum = 0, product = 0;
#pragma omp simd reduction(+ : sum, product)
    for (int64_t j = 0; j < columns; ++j) {
        const float standard = (x[j] - mean) * inverse;
        sum += dy[j] * gamma[j];
        product += dy[j] * gamma[j] * standard;
    }
    sum /= columns;
    product /= columns;
#pragma omp simd
    for (int64_t j = 0; j < columns; ++j) {
        const float standard = (x[j] - mean) * inverse;
        dx[j] = (dy[j] * gamma[j] - sum - standard * product) * inverse;
        dgamma[j] += dy[j] * standard;
        dbeta[j] += dy[j];
    }
}

FOR_EACH_PROCESSOR void accumulate(float* sum, const float* x, int64_t count) {
    for (int64_t j = 0; j < count; ++j) sum[j] += x[j];
}

}  // namespace

// (x [T, H], gamma [H], beta [H], epsilon [1]) -> y [T, H], mean [T], 1 / deviation [T]
KERNEL(LayerNorm) {
    ARGUMENTS;
    const int64_t rows = given.size(0, 0), columns = given.size(0, 1);
    const float *x = given.floats(0), *gamma = given.floats(1), *beta = given.floats(2);
    const float epsilon = *given.floats(3);
    float *y = given.floats(4), *mean = given.floats(5), *inverse = given.floats(6);
    for_each(pieces(rows, kRows), [=](int64_t piece) {
        for (int64_t i = piece * kRows; i < std::min(rows, (piece + 1) * kRows); ++i)
            normalize(x + i * columns, gamma, beta, epsilon, columns, y + i * columns, mean + i, inverse + i);
    });
    return 0;
}

// (x [T, H], gamma [H], mean [T], 1 / deviation [T], dy [T, H], and what is added to dx [T, H] if x is also used
// elsewhere) -> dx [T, H], dgamma [H], dbeta [H]
KERNEL(LayerNormGradient) {
    ARGUMENTS;
    const int64_t rows = given.size(0, 0), columns = given.size(0, 1);
    const float *x = given.floats(0), *gamma = given.floats(1), *mean = given.floats(2), *inverse = given.floats(3);
    const float *dy = given.floats(4), *more = count == 9 ? given.floats(5) : nullptr;
    float *dx = given.floats(count - 3), *dgamma = given.floats(count - 2), *dbeta = given.floats(count - 1);
    std::vector<float> parts(pieces(rows, kRows) * 2 * columns);  // each piece's share of dgamma and dbeta
    float* const shares = parts.data();
    for_each(pieces(rows, kRows), [=](int64_t piece) {
        float* const share = shares + piece * 2 * columns;
        for (int64_t i = piece * kRows; i < std::min(rows, (piece + 1) * kRows); ++i) {
            differentiate(x + i * columns, gamma, mean[i], inverse[i], dy + i * columns, columns, dx + i * columns,
                          share, share + columns);
            if (more) accumulate(dx + i * columns, more + i * columns, columns);
        }
    });
    std::fill_n(dgamma, columns, 0.0f);
    std::fill_n(dbeta, columns, 0.0f);
    for (int64_t piece = 0; piece < pieces(rows, kRows); ++piece) {
        accumulate(dgamma, shares + piece * 2 * columns, columns);
        accumulate(dbeta, shares + piece * 2 * columns + columns, columns);
    }
    return 0;
}

}  // namespace pangu
