#include "bfloat16.h"

#include "product.h"

namespace pangu {
namespace {

typedef uint16_t Half __attribute__((may_alias));
typedef uint32_t Lane __attribute__((may_alias));

FOR_EACH_PROCESSOR void round_all(const float* x, int64_t count, Half* y) {
    for (int64_t j = 0; j < count; ++j) y[j] = static_cast<uint16_t>(bfloat16_bits(x[j]));
}

FOR_EACH_PROCESSOR void pair(const float* first, const float* second, int64_t count, Lane* y) {
    for (int64_t j = 0; j < count; ++j) y[j] = bfloat16_bits(second[j]) << 16 | bfloat16_bits(first[j]);
}

FOR_EACH_PROCESSOR void pair_whole_lines(const float* x, int64_t terms, int64_t columns, int64_t stride, Lane* y,
                                         int64_t lanes) {
    for (int64_t k = 0; k < terms; k += 2)
        for (int64_t j = 0; j < columns; j += Rows::kLine) {
            const float* const from = x + k * stride + j;
            Lane* const to = y + j * lanes + k / 2 * Rows::kLine;
            for (int64_t r = 0; r < Rows::kLine; ++r)
                to[r] = bfloat16_bits(from[stride + r]) << 16 | bfloat16_bits(from[r]);
        }
}

FOR_EACH_PROCESSOR void pair_with_zero(const float* first, int64_t count, Lane* y) {
    for (int64_t j = 0; j < count; ++j) y[j] = bfloat16_bits(first[j]);
}

}  // namespace

void pair_columns(const float* x, int64_t rows, int64_t terms, int64_t stride, float* y, int64_t pitch) {
    for (int64_t i = 0; i < rows; ++i) {
        Half* const to = reinterpret_cast<Half*>(y + i * pitch);
        round_all(x + i * stride, terms, to);
        if (terms % 2) to[terms] = 0;
    }
}

void pair_rows(const float* first, const float* second, int64_t columns, float* y) {
    if (second)
        pair(first, second, columns, reinterpret_cast<Lane*>(y));
    else
        pair_with_zero(first, columns, reinterpret_cast<Lane*>(y));
}

void pair_lines(const float* x, int64_t terms, int64_t columns, int64_t stride, float* y, int64_t lanes) {
    pair_whole_lines(x, terms, columns, stride, reinterpret_cast<Lane*>(y), lanes);
}

}  // namespace pangu
