// Layer normalisation of one row.
#pragma once
#include <cstdint>

namespace pangu {

// y = (x - mean) * inverse * gamma + beta, with inverse = 1 / sqrt(variance + epsilon); also stores those two.
void normalize(const float* x, const float* gamma, const float* beta, float epsilon, int64_t columns, float* y,
               float* mean, float* inverse);

}  // namespace pangu
