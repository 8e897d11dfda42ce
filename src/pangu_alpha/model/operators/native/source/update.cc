// The sum of squares of a tensor, and an AdamW update that clips, decays and writes in place.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernel.h"
#include "threads.h"

namespace pangu {
namespace {

constexpr int64_t kElements = 65536;  // elements of a piece

FOR_EACH_PROCESSOR float squares(const float* x, int64_t count) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; ++i) sum += x[i] * x[i];
    return sum;
}

FOR_EACH_PROCESSOR void adamw(float* parameter, float* moment1, float* moment2, const float* gradient, float factor,
                              float rate, float beta1, float beta2, float epsilon, float decay, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        const float g = gradient[i] * factor;
        const float m = beta1 * moment1[i] + (1 - beta1) * g;
        const float v = beta2 * moment2[i] + (1 - beta2) * g * g;
        moment1[i] = m;
        moment2[i] = v;
        parameter[i] -= rate * (m / (std::sqrt(v) + epsilon) + decay * parameter[i]);
    }
}

}  // namespace

// (x) -> sum of x^2, scalar
KERNEL(SquareSum) {
    ARGUMENTS;
    const int64_t elements = given.elements(0);
    const float* x = given.floats(0);
    std::vector<float> parts(pieces(elements, kElements));
    float* const sums = parts.data();
    for_each(static_cast<int64_t>(parts.size()), [=](int64_t i) {
        sums[i] = squares(x + i * kElements, std::min(kElements, elements - i * kElements));
    });
    double sum = 0;
    for (const float part : parts) sum += part;
    *given.floats(1) = static_cast<float>(sum);
    return 0;
}

// (parameter, moment1, moment2, gradient, and scalars: factor, applied, rate, beta1, beta2, epsilon, decay) -> [1].
// It changes the first three in place, unless `applied` (float32) is 0.
KERNEL(AdamW) {
    ARGUMENTS;
    const int64_t elements = given.elements(0);
    float *parameter = given.floats(0), *moment1 = given.floats(1), *moment2 = given.floats(2);
    const float* gradient = given.floats(3);
    const float factor = *given.floats(4), applied = *given.floats(5), rate = *given.floats(6);
    const float beta1 = *given.floats(7), beta2 = *given.floats(8), epsilon = *given.floats(9);
    const float decay = *given.floats(10);
    *given.floats(11) = applied;
    if (applied == 0.0f) return 0;
    for_each(pieces(elements, kElements), [=](int64_t i) {
        const int64_t begin = i * kElements, size = std::min(kElements, elements - begin);
        adamw(parameter + begin, moment1 + begin, moment2 + begin, gradient + begin, factor, rate, beta1, beta2,
              epsilon, decay, size);
    });
    return 0;
}

}  // namespace pangu
