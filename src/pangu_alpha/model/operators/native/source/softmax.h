// Softmax of one row, for kernels that make the scores in different ways.
#pragma once
#include <cmath>
#include <cstdint>

#include "elementary.h"

namespace pangu {

// row[j] = e^(score(j) - the largest score), divided by the sum of all. It is inlined, so that a function for each kind
// of processor has it in its own instructions.
template <typename Score>
INLINE void softmax_of(float* row, int64_t count, const Score& score) {
    float largest = -INFINITY;
#pragma omp simd reduction(max : largest)
    for (int64_t j = 0; j < count; ++j) {
        row[j] = score(j);
        largest = largest > row[j] ? largest : row[j];
    }
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < count; ++j) {
        row[j] = exponential(row[j] - largest);
        sum += row[j];
    }
    const float factor = 1.0f / sum;
    for (int64_t j = 0; j < count; ++j) row[j] *= factor;
}

}  // namespace pangu
