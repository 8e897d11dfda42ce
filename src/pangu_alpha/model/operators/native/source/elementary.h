// Elementary functions that a compiler turns into vector instructions, which it does not for those of libm.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernel.h"

namespace pangu {

// e^x with a relative error below 2e-7; 0 below -87.33 and inf above 88.37, NaN for NaN. After Cephes' expf: a
// polynomial for the remainder of x / ln 2, and a power of two made of the exponent's bits.
INLINE float exponential(float x) {
    const float clamped = x < -87.33f ? -87.33f : x > 88.37f ? 88.37f : x;
    const float whole = std::floor(clamped * 1.44269504f + 0.5f);
    const float rest = (clamped - whole * 0.693359375f) - whole * -2.12194440e-4f;
    float sum = 1.9875691500e-4f;
    sum = sum * rest + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    sum = sum * rest * rest + rest + 1.0f;
    const int32_t bits = (static_cast<int32_t>(whole) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    const float value = sum * power;
    return x < -87.33f ? 0.0f : x > 88.37f ? INFINITY : value;
}

INLINE float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

}  // namespace pangu
