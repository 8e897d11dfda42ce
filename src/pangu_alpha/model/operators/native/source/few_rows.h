// Products of few rows, which take as long as reading the weights from memory.
//
// An element of a product is a sum in one order, whatever the number of rows: each lane of a vector of 16 adds up
// every sixteenth term, and then the lanes are added in pairs.
#pragma once
#include <cstdint>

#include "phases.h"

namespace pangu {

constexpr int64_t kFewRows = 8;  // more rows are faster as a matrix product

// Rows of W in a piece of a product. The piece is read as kStreams runs of rows at the same time, each from its first
// to its last byte: so a core gets more bytes a second than from one run, or from runs that are short.
int64_t few_rows_height(int64_t inputs, int64_t outputs);

// What a thread reads when it computes such a piece of `outputs` rows.
inline Streams streams(const float* weight, int64_t pitch, int64_t outputs) {
    const int64_t run = outputs / kStreams * pitch;
    return {weight, run, run};
}

// y [rows, outputs] = x W^T in the calling thread, with rows of x, W and y that begin `x_pitch`, `pitch` and `y_pitch`
// elements after each other. The beginning of `next` is fetched at the end.
void multiply_few(const float* x, int64_t x_pitch, int64_t rows, int64_t inputs, const float* weight, int64_t pitch,
                  int64_t outputs, Streams next, float* y, int64_t y_pitch);

// y = x W^T + b on all threads, with x [rows, inputs], W [outputs, inputs], b [outputs] or null.
void multiply_few(const float* x, int64_t rows, int64_t inputs, const float* weight, int64_t outputs,
                  const float* bias, float* y);

}  // namespace pangu
