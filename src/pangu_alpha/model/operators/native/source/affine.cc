// x W^T + b, and its gradients, of one linear layer or of several with the same x, in two precisions.
#include <algorithm>
#include <vector>

#include "kernel.h"
#include "linear.h"

namespace pangu {
namespace {

FOR_EACH_PROCESSOR void add_row(const float* x, int64_t count, float* y) {
    for (int64_t i = 0; i < count; ++i) y[i] += x[i];
}

FOR_EACH_PROCESSOR void add_rows(const float* x, int64_t rows, int64_t columns, float* sums) {
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j) sums[j] += x[i * columns + j];
}

int affine(const Arguments& given, Precision precision) {
    const LinearLayer layer{given.size(0, 0), given.size(0, 1), given.size(1, 0), precision};
    layer.forward(given.floats(0), given.floats(1), given.floats(2), given.floats(3));
    return 0;
}

int linear(const Arguments& given, Precision precision) {
    const LinearLayer layer{given.size(0, 0), given.size(0, 1), given.size(1, 0), precision};
    layer.forward(given.floats(0), given.floats(1), nullptr, given.floats(2));
    return 0;
}

int affine_gradient(const Arguments& given, Precision precision) {
    const LinearLayer layer{given.size(0, 0), given.size(0, 1), given.size(1, 0), precision};
    layer.input_gradient(given.floats(1), given.floats(2), given.floats(3));
    layer.parameter_gradients(given.floats(0), given.floats(2), given.floats(4), given.floats(5));
    return 0;
}

int projections(const Arguments& given, Precision precision) {
    const int layers = (given.count - 1) / 3;
    for (int i = 0; i < layers; ++i) {
        const LinearLayer layer{given.size(0, 0), given.size(0, 1), given.size(1 + i, 0), precision};
        layer.forward(given.floats(0), given.floats(1 + i), given.floats(1 + layers + i), given.floats(1 + 2 * layers + i));
    }
    return 0;
}

int projections_gradient(const Arguments& given, Precision precision) {
    const int layers = (given.count - 3) / 4, outputs = 1 + 2 * layers;
    const int64_t rows = given.size(0, 0), inputs = given.size(0, 1);
    const float* const x = given.floats(0);
    float *const dx = given.floats(outputs), *const share = given.floats(given.count - 1);
    for (int i = 0; i < layers; ++i) {
        const LinearLayer layer{rows, inputs, given.size(1 + i, 0), precision};
        const float *const weight = given.floats(1 + i), *const dy = given.floats(1 + layers + i);
        if (i == 0)
            layer.input_gradient(weight, dy, dx);
        else
            layer.input_gradient(weight, dy, share, [=](int64_t row, int64_t height, int64_t column, int64_t width) {
                for (int64_t r = row; r < row + height; ++r)
                    add_row(share + r * inputs + column, width, dx + r * inputs + column);
            });
        layer.parameter_gradients(x, dy, given.floats(outputs + 1 + i), given.floats(outputs + 1 + layers + i));
    }
    return 0;
}

}  // namespace

void LinearLayer::add_to_rows(int64_t height, int64_t width, const float* bias, float* y) const {
    for (int64_t i = 0; i < height; ++i) add_row(bias, width, y + i * outputs);
}

void LinearLayer::parameter_gradients(const float* x, const float* dy, float* dweight, float* dbias) const {
    multiply_all({outputs, inputs, rows, {dy, outputs, true}, {x, inputs}, dweight, precision});
    constexpr int64_t kRows = 64;  // of a piece of the bias's gradient
    const int64_t parts = pieces(rows, kRows);
    std::vector<float> sums(parts * outputs);
    for_each(parts, [&](int64_t i) {
        const int64_t row = i * kRows;
        add_rows(dy + row * outputs, std::min(kRows, rows - row), outputs, sums.data() + i * outputs);
    });
    std::fill_n(dbias, outputs, 0.0f);
    add_rows(sums.data(), parts, outputs, dbias);
}

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

// (x [T, I], n times W [O, I], n times b [O]) -> n times [T, O]
KERNEL(Projections) { return projections({count, data, ranks, shapes}, Precision::highest); }
KERNEL(ProjectionsMedium) {
    return has_bfloat16() ? projections({count, data, ranks, shapes}, Precision::medium) : 1;
}

// (x [T, I], n times W [O, I], n times dy [T, O]) -> dx [T, I], n times dW, n times db, and the share of the last layer
// in dx. dx is the sum of the layers' shares, from the first to the last.
KERNEL(ProjectionsGradient) { return projections_gradient({count, data, ranks, shapes}, Precision::highest); }
KERNEL(ProjectionsGradientMedium) {
    return has_bfloat16() ? projections_gradient({count, data, ranks, shapes}, Precision::medium) : 1;
}

}  // namespace pangu
