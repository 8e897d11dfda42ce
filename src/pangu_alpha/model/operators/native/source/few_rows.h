// Products of few rows, which take as long as reading the weights from memory.
#pragma once
#include <cstdint>

namespace pangu {

constexpr int64_t kFewRows = 8;  // more rows are faster as a matrix product

// y = x W^T + b on all threads, with x [rows, inputs], W [outputs, inputs], b [outputs] or null.
void multiply_few(const float* x, int64_t rows, int64_t inputs, const float* weight, int64_t outputs,
                  const float* bias, float* y);

}  // namespace pangu
