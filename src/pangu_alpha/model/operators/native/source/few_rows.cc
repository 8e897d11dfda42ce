#include "few_rows.h"

#include <algorithm>

#include "kernel.h"
#include "threads.h"

namespace pangu {
namespace {

// Rows of W that are read at the same time: memory gives a core more bytes a second from several streams.
constexpr int64_t kStreams = 8;

FOR_EACH_PROCESSOR void eight_dots(const float* x, const float* weight, int64_t inputs, float* sums) {
    const float *w0 = weight, *w1 = w0 + inputs, *w2 = w1 + inputs, *w3 = w2 + inputs;
    const float *w4 = w3 + inputs, *w5 = w4 + inputs, *w6 = w5 + inputs, *w7 = w6 + inputs;
    float s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3, s4, s5, s6, s7)
    for (int64_t j = 0; j < inputs; ++j) {
        s0 += x[j] * w0[j];
        s1 += x[j] * w1[j];
        s2 += x[j] * w2[j];
        s3 += x[j] * w3[j];
        s4 += x[j] * w4[j];
        s5 += x[j] * w5[j];
        s6 += x[j] * w6[j];
        s7 += x[j] * w7[j];
    }
    sums[0] = s0, sums[1] = s1, sums[2] = s2, sums[3] = s3;
    sums[4] = s4, sums[5] = s5, sums[6] = s6, sums[7] = s7;
}

FOR_EACH_PROCESSOR float one_dot(const float* x, const float* weight, int64_t inputs) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < inputs; ++j) sum += x[j] * weight[j];
    return sum;
}

}  // namespace

void multiply_few(const float* x, int64_t rows, int64_t inputs, const float* weight, int64_t outputs,
                  const float* bias, float* y) {
    // A piece has some 256 KB of weights, and whole groups of streams.
    const int64_t height = std::max(kStreams, (65536 / inputs) / kStreams * kStreams);
    for_each(pieces(outputs, height), [=](int64_t piece) {
        const int64_t end = std::min(outputs, (piece + 1) * height);
        for (int64_t o = piece * height; o < end; o += kStreams) {
            const int64_t group = std::min(kStreams, end - o);
            for (int64_t i = 0; i < rows; ++i) {
                float* const sums = y + i * outputs + o;
                if (group == kStreams)
                    eight_dots(x + i * inputs, weight + o * inputs, inputs, sums);
                else
                    for (int64_t k = 0; k < group; ++k)
                        sums[k] = one_dot(x + i * inputs, weight + (o + k) * inputs, inputs);
                for (int64_t k = 0; bias && k < group; ++k) sums[k] += bias[o + k];
            }
        }
    });
}

}  // namespace pangu
