// Dropout by position: whether an element is dropped follows from the numbers of its row and its column.
#pragma once
#include "kernel.h"

namespace pangu {
namespace {

// y = x * factor where the product of the numbers, an int32 that wraps around, is at least the threshold, else 0;
// NaN and infinity stay visible. x may be y.
FOR_EACH_PROCESSOR void drop(const float* x, uint32_t key, const int32_t* columns, int32_t threshold, float factor,
                             int64_t count, float* y) {
    for (int64_t j = 0; j < count; ++j) {
        const int32_t bits = static_cast<int32_t>(key * static_cast<uint32_t>(columns[j]));
        y[j] = bits >= threshold ? x[j] * factor : x[j] * 0.0f;
    }
}

}  // namespace
}  // namespace pangu
