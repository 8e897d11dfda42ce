// Operators whose elements do not depend on each other: the tanh form of GELU, dropout by position, and a residual
// connection.
#include <algorithm>

#include "dropout.h"
#include "gelu.h"
#include "threads.h"

namespace pangu {
namespace {

constexpr int64_t kElements = 16384;  // elements of a piece

FOR_EACH_PROCESSOR void sum(const float* x, const float* y, int64_t count, float* z) {
    for (int64_t i = 0; i < count; ++i) z[i] = x[i] + y[i];
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

// (x [T, H], y [T, H], and with dropout keys, columns, threshold, factor as above) -> x + dropout(y) [T, H]
KERNEL(Residual) {
    ARGUMENTS;
    const int64_t rows = given.size(0, 0), columns = given.size(0, 1), height = std::max<int64_t>(1, kElements / columns);
    const float *x = given.floats(0), *y = given.floats(1);
    float* const result = given.floats(count - 1);
    const bool drops = count > 3;
    for_each(pieces(rows, height), [=](int64_t piece) {
        const int64_t first = piece * height, end = std::min(rows, first + height), begin = first * columns;
        for (int64_t i = first; drops && i < end; ++i)
            drop(y + i * columns, static_cast<uint32_t>(given.ints(2)[i]), given.ints(3), *given.ints(4),
                 *given.floats(5), columns, result + i * columns);
        sum(x + begin, drops ? result + begin : y + begin, (end - first) * columns, result + begin);
    });
    return 0;
}

}  // namespace pangu
