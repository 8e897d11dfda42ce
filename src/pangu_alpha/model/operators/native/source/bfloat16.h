// bfloat16 numbers, the upper halves of float32 ones, and pairs of them: two neighbouring terms of a product's sum
// in one lane of 32 bits, the first term in the lower half.
//
// Arrays of lanes have the type float, so that products of both precisions use the same memory. Nothing computes
// with a lane as if it were a float.
#pragma once
#include <cstdint>
#include <cstring>

#include "kernel.h"

namespace pangu {

// The nearest bfloat16, and of two the even one. NaN stays NaN; what is beyond the largest number becomes infinite.
INLINE uint32_t bfloat16_bits(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const uint32_t nearest = bits + 0x7fff + (bits >> 16 & 1);
    return (x != x ? bits | 0x400000 : nearest) >> 16;
}

INLINE float round_to_bfloat16(float x) {
    const uint32_t bits = bfloat16_bits(x) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// y [rows, pitch] = the terms of each row of x [rows, terms] by pairs; the last one has a 0 if `terms` is odd.
void pair_columns(const float* x, int64_t rows, int64_t terms, int64_t stride, float* y, int64_t pitch);

// y [columns] = pairs of two rows; `second` is null behind the last row, and then counts as 0.
void pair_rows(const float* first, const float* second, int64_t columns, float* y);

// The same for all rows of x [terms, columns], an even number of them and whole lines of columns (Rows::kLine): the
// pairs of the first line, of which y holds `lanes` for each column, then those of the next one.
void pair_lines(const float* x, int64_t terms, int64_t columns, int64_t stride, float* y, int64_t lanes);

}  // namespace pangu
