// Operators whose elements do not depend on each other: the tanh form of GELU, and dropout by position.
#include <algorithm>

#include "dropout.h"
#include "elementary.h"
#include "threads.h"

namespace pangu {
namespace {

constexpr int64_t kElements = 16384;  // elements of a piece
constexpr float kLinear = 0.7978845608028654f;  // sqrt(2 / pi)
constexpr float kCubic = 0.044715f * kLinear;

FOR_EACH_PROCESSOR void gelu(const float* x, int64_t count, float* y) {
    for (int64_t i = 0; i < count; ++i)
        y[i] = x[i] * sigmoid(x[i] * (2 * kLinear + 2 * kCubic * x[i] * x[i]));
}

FOR_EACH_PROCESSOR void gelu_gradient(const float* x, const float* dy, int64_t count, float* dx) {
    for (int64_t i = 0; i < count; ++i) {
        const float square = x[i] * x[i];
        const float gate = sigmoid(x[i] * (2 * kLinear + 2 * kCubic * square));
        const float slope = x[i] * (2 * kLinear + 6 * kCubic * square);  // x times that of the sigmoid's argument
        dx[i] = dy[i] * (gate + gate * (1 - gate) * slope);
    }
}

}  // namespace

// (x) -> GELU(x), of the same shape
KERNEL(Gelu) {
    ARGUMENTS;
    const int64_t count_of = given.elements(0);
    const float* x = given.floats(0);
    float* y = given.floats(1);
    for_each(pieces(count_of, kElements), [=](int64_t piece) {
        const int64_t begin = piece * kElements;
        gelu(x + begin, std::min(kElements, count_of - begin), y + begin);
    });
    return 0;
}

// (x, dy) -> dx, of the same shape
KERNEL(GeluGradient) {
    ARGUMENTS;
    const int64_t count_of = given.elements(0);
    const float *x = given.floats(0), *dy = given.floats(1);
    float* dx = given.floats(2);
    for_each(pieces(count_of, kElements), [=](int64_t piece) {
        const int64_t begin = piece * kElements;
        gelu_gradient(x + begin, dy + begin, std::min(kElements, count_of - begin), dx + begin);
    });
    return 0;
}

// (x [T, H], keys int32 [T elements], columns int32 [H], threshold int32 [1], factor [1]) -> [T, H]
KERNEL(Dropout) {
    ARGUMENTS;
    const int64_t rows = given.size(0, 0), columns = given.size(0, 1);
    const float *x = given.floats(0), factor = *given.floats(4);
    const int32_t *keys = given.ints(1), *numbers = given.ints(2), threshold = *given.ints(3);
    float* y = given.floats(5);
    const int64_t height = std::max<int64_t>(1, kElements / columns);
    for_each(pieces(rows, height), [=](int64_t piece) {
        for (int64_t i = piece * height; i < std::min(rows, (piece + 1) * height); ++i)
            drop(x + i * columns, static_cast<uint32_t>(keys[i]), numbers, threshold, factor, columns,
                 y + i * columns);
    });
    return 0;
}

}  // namespace pangu
