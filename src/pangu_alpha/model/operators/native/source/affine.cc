// x W^T + b, and its gradients, in two precisions; what is not a product is always float32.
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

int affine(const Arguments& given, Precision precision) {
    const int64_t rows = given.size(0, 0), inputs = given.size(0, 1), outputs = given.size(1, 0);
    const float *x = given.floats(0), *weight = given.floats(1), *bias = given.floats(2);
    float* const y = given.floats(3);
    if (rows <= kFewRows && precision == Precision::highest) {
        multiply_few(x, rows, inputs, weight, outputs, bias, y);
        return 0;
    }
    const Product product{rows, outputs, inputs, {x, inputs}, {weight, inputs, true}, y, precision};
    multiply_all(product, [=](int64_t row, int64_t height, int64_t column, int64_t width) {
        for (int64_t i = row; i < row + height; ++i) add(y + i * outputs + column, bias + column, width);
    });
    return 0;
}

int linear(const Arguments& given, Precision precision) {
    const int64_t rows = given.size(0, 0), inputs = given.size(0, 1), outputs = given.size(1, 0);
    const float *x = given.floats(0), *weight = given.floats(1);
    float* const y = given.floats(2);
    if (rows <= kFewRows && precision == Precision::highest) {
        multiply_few(x, rows, inputs, weight, outputs, nullptr, y);
        return 0;
    }
    multiply_all({rows, outputs, inputs, {x, inputs}, {weight, inputs, true}, y, precision});
    return 0;
}

int affine_gradient(const Arguments& given, Precision precision) {
    const int64_t rows = given.size(0, 0), inputs = given.size(0, 1), outputs = given.size(1, 0);
    const float *x = given.floats(0), *weight = given.floats(1), *dy = given.floats(2);
    multiply_all({rows, inputs, outputs, {dy, outputs}, {weight, inputs}, given.floats(3), precision});
    multiply_all({outputs, inputs, rows, {dy, outputs, true}, {x, inputs}, given.floats(4), precision});
    constexpr int64_t kRows = 64;  // of a piece of the bias's gradient
    const int64_t parts = pieces(rows, kRows);
    std::vector<float> sums(parts * outputs);
    for_each(parts, [&](int64_t i) {
        const int64_t row = i * kRows;
        add_rows(dy + row * outputs, std::min(kRows, rows - row), outputs, sums.data() + i * outputs);
    });
    std::fill_n(given.floats(5), outputs, 0.0f);
    add_rows(sums.data(), parts, outputs, given.floats(5));
    return 0;
}

}  // namespace

// (x [T, I], W [O, I], b [O]) -> [T, O]
KERNEL(Affine) { return affine({count, data, ranks, shapes}, Precision::highest); }
KERNEL(AffineMedium) {
    return has_bfloat16() ? affine({count, data, ranks, shapes}, Precision::medium) : 1;
}

// (x [T, I], W [O, I]) -> [T, O]
KERNEL(Linear) { return linear({count, data, ranks, shapes}, Precision::highest); }
KERNEL(LinearMedium) {
    return has_bfloat16() ? linear({count, data, ranks, shapes}, Precision::medium) : 1;
}

// (x [T, I], W [O, I], dy [T, O]) -> dx [T, I], dW [O, I], db [O]
KERNEL(AffineGradient) { return affine_gradient({count, data, ranks, shapes}, Precision::highest); }
KERNEL(AffineGradientMedium) {
    return has_bfloat16() ? affine_gradient({count, data, ranks, shapes}, Precision::medium) : 1;
}

}  // namespace pangu
