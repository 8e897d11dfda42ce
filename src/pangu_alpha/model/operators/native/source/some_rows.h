// Products of a chunk's rows, which are too many to be read for each of W's rows and too few to pay for packing W.
//
// It is the transpose that is computed, W x^T, so that the weights are read once, as they lie in memory, and only x is
// packed. An element is the same sum in the same order as in product.h, bit for bit.
#pragma once
#include "product.h"

namespace pangu {

constexpr int64_t kSomeRows = 64;  // more rows are worth packing the weights for

// y [rows, outputs] = x W^T on all threads, with x [rows, inputs] and W [outputs, inputs]. finish(row, rows, column,
// columns) is called for each tile of y when it is complete.
template <typename Finish>
void multiply_some(const float* x, int64_t rows, int64_t inputs, const float* weight, int64_t outputs, float* y,
                   const Finish& finish) {
    constexpr int64_t kOutputs = 64;  // of a tile
    const Panels panels(rows);
    const Packed packed{panels, inputs, scratch(Use::all, Packed::size(panels, inputs)), 0, inputs};
    for_each(panels.count(), [&](int64_t i) { packed.fill(i, {x, inputs, true}); });
    for_each(pieces(outputs, kOutputs), [&](int64_t i) {
        const int64_t first = i * kOutputs, width = std::min(kOutputs, outputs - first);
        float* const turned = scratch(Use::own, kOutputs * rows);
        Product::blocks(0, inputs, [&](int64_t k, int64_t count) {
            const Rows weights = Rows::of({weight + first * inputs + k, inputs});
            multiply(Precision::highest, width, weights, packed.part(k, count), 0, panels.count(), k > 0, turned, rows);
        });
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t o = 0; o < width; ++o) y[r * outputs + first + o] = turned[o * rows + r];
        finish(0, rows, first, width);
    });
}

}  // namespace pangu
