// GELU(x U^T + u) D^T + d, the two linear layers of a block with GELU between them, and their gradients.
#include "gelu.h"
#include "kernel.h"
#include "linear.h"

namespace pangu {
namespace {

int feed_forward(const Arguments& given, Precision precision) {
    const int64_t rows = given.size(0, 0), hidden = given.size(0, 1), wide = given.size(1, 0);
    const LinearLayer up{rows, hidden, wide, precision}, down{rows, wide, given.size(3, 0), precision};
    float *const before = given.floats(6), *const after = given.floats(7);
    up.forward(given.floats(0), given.floats(1), given.floats(2), before,
               [=](int64_t row, int64_t height, int64_t column, int64_t width) {
                   for (int64_t i = row; i < row + height; ++i)
                       gelu(before + i * wide + column, width, after + i * wide + column);
               });
    down.forward(after, given.floats(3), given.floats(4), given.floats(5));
    return 0;
}

int feed_forward_gradient(const Arguments& given, Precision precision) {
    const int64_t rows = given.size(0, 0), hidden = given.size(0, 1), wide = given.size(1, 0);
    const LinearLayer up{rows, hidden, wide, precision}, down{rows, wide, given.size(2, 0), precision};
    const float *const before = given.floats(3), *const dy = given.floats(5);
    float* const dbefore = given.floats(11);
    down.input_gradient(given.floats(2), dy, dbefore, [=](int64_t row, int64_t height, int64_t column, int64_t width) {
        for (int64_t i = row; i < row + height; ++i) {
            const int64_t at = i * wide + column;
            gelu_gradient(before + at, dbefore + at, width, dbefore + at);
        }
    });
    down.parameter_gradients(given.floats(4), dy, given.floats(9), given.floats(10));
    up.input_gradient(given.floats(1), dbefore, given.floats(6));
    up.parameter_gradients(given.floats(0), dbefore, given.floats(7), given.floats(8));
    return 0;
}

}  // namespace

// (x [T, H], U [F, H], u [F], D [O, F], d [O]) -> [T, O], and for the gradient what GELU gets and gives, [T, F] each
KERNEL(FeedForward) { return feed_forward({count, data, ranks, shapes}, Precision::highest); }
KERNEL(FeedForwardMedium) {
    return has_bfloat16() ? feed_forward({count, data, ranks, shapes}, Precision::medium) : 1;
}

// (x, U, D, what GELU got and gave, dy [T, O]) -> dx, dU, du, dD, dd, and the gradient by what GELU got [T, F]
KERNEL(FeedForwardGradient) { return feed_forward_gradient({count, data, ranks, shapes}, Precision::highest); }
KERNEL(FeedForwardGradientMedium) {
    return has_bfloat16() ? feed_forward_gradient({count, data, ranks, shapes}, Precision::medium) : 1;
}

}  // namespace pangu
