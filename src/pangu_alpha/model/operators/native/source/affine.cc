// x W^T + b, and its gradients.
#include <vector>

#include "few_rows.h"
#include "kernel.h"
#include "product.h"

namespace pangu {
namespace {

FOR_EACH_PROCESSOR void add(float* y, const float* bias, int64_t count) {
    for (int64_t i = 0; i < count; ++i) y[i] += bias[i];
}

FOR_EACH_PROCESSOR void add_rows(const float* x, int64_t rows, int64_t columns, float* sums) {
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j) sums[j] += x[i * columns + j];
}

}  // namespace

// (x [T, I], W [O, I], b [O]) -> [T, O]
KERNEL(Affine) {
    ARGUMENTS;
    const int64_t rows = given.size(0, 0), inputs = given.size(0, 1), outputs = given.size(1, 0);
    const float *x = given.floats(0), *weight = given.floats(1), *bias = given.floats(2);
    float* const y = given.floats(3);
    if (rows <= kFewRows) {
        multiply_few(x, rows, inputs, weight, outputs, bias, y);
        return 0;
    }
    const Product product{rows, outputs, inputs, {x, inputs}, {weight, inputs, true}, y};
    return !multiply_tiles(product, [=](int64_t row, int64_t height, int64_t column, int64_t width) {
        for (int64_t i = row; i < row + height; ++i) add(y + i * outputs + column, bias + column, width);
    });
}

// (x [T, I], W [O, I]) -> [T, O]
KERNEL(Linear) {
    ARGUMENTS;
    const int64_t rows = given.size(0, 0), inputs = given.size(0, 1), outputs = given.size(1, 0);
    const float *x = given.floats(0), *weight = given.floats(1);
    float* const y = given.floats(2);
    if (rows <= kFewRows) {
        multiply_few(x, rows, inputs, weight, outputs, nullptr, y);
        return 0;
    }
    return !multiply_tiles({rows, outputs, inputs, {x, inputs}, {weight, inputs, true}, y},
                           [](int64_t, int64_t, int64_t, int64_t) {});
}

// (x [T, I], W [O, I], dy [T, O]) -> dx [T, I], dW [O, I], db [O]
KERNEL(AffineGradient) {
    ARGUMENTS;
    const int64_t rows = given.size(0, 0), inputs = given.size(0, 1), outputs = given.size(1, 0);
    const float *x = given.floats(0), *weight = given.floats(1), *dy = given.floats(2);
    const Product dx{rows, inputs, outputs, {dy, outputs}, {weight, inputs}, given.floats(3)};
    const Product dweight{outputs, inputs, rows, {dy, outputs, true}, {x, inputs}, given.floats(4)};
    constexpr int64_t kRows = 64;  // of a piece of the bias's gradient
    const int64_t parts = pieces(rows, kRows);
    std::vector<float> sums(parts * outputs);
    std::atomic<bool> good{true};
    for_each(dx.tiles() + dweight.tiles() + parts, [&](int64_t i) {
        if (i < dx.tiles()) {
            if (!dx.compute(i)) good = false;
        } else if (i < dx.tiles() + dweight.tiles()) {
            if (!dweight.compute(i - dx.tiles())) good = false;
        } else {
            const int64_t part = i - dx.tiles() - dweight.tiles(), row = part * kRows;
            add_rows(dy + row * outputs, std::min(kRows, rows - row), outputs, sums.data() + part * outputs);
        }
    });
    std::fill_n(given.floats(5), outputs, 0.0f);
    add_rows(sums.data(), parts, outputs, given.floats(5));
    return !good;
}

}  // namespace pangu
