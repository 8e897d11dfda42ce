// The tanh form of GELU, and its gradient.
#pragma once
#include "elementary.h"

namespace pangu {
namespace {

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
}  // namespace pangu
