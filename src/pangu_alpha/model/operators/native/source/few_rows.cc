#include "few_rows.h"

#include <algorithm>

#include "kernel.h"
#include "phases.h"
#include "scratch.h"
#include "threads.h"

namespace pangu {
namespace {

constexpr int64_t kLanes = 16;
constexpr int64_t kPart = 256;  // floats of each stream that are read at a time
constexpr int64_t kPieces = 2;  // for each thread
constexpr int64_t kSmallest = 1 << 14, kLargest = 1 << 18;  // floats of a piece

typedef float Vector __attribute__((vector_size(4 * kLanes)));
typedef float Anywhere __attribute__((vector_size(4 * kLanes), aligned(4)));
typedef int32_t Indices __attribute__((vector_size(4 * kLanes)));

// Some vectors of each stream.
struct Part {
    const float* weight;
    int64_t pitch, vectors;
    bool first;    // of a sum, whose earlier value then does not count
    Streams next;  // what to fetch beside them
};

// sums [kRows, kRuns] += the products of the lanes, all of which stay in registers.
template <int kRows, int kRuns, bool kFetch>
INLINE void add_products(const float* x, int64_t x_pitch, const Part& part, Vector* sums) {
    Vector s[kRows][kRuns];
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
        for (int k = 0; k < kRuns; ++k) s[i][k] = part.first ? Vector{} : sums[i * kRuns + k];
    for (int64_t j = 0; j < part.vectors * kLanes; j += kLanes) {
        Vector row[kRows];
#pragma GCC unroll 8
        for (int i = 0; i < kRows; ++i) row[i] = *reinterpret_cast<const Anywhere*>(x + i * x_pitch + j);
#pragma GCC unroll 8
        for (int k = 0; k < kRuns; ++k) {
            const Vector w = *reinterpret_cast<const Anywhere*>(part.weight + k * part.pitch + j);
            if (kFetch) __builtin_prefetch(part.next.data + k * part.next.pitch + j);
#pragma GCC unroll 8
            for (int i = 0; i < kRows; ++i) s[i][k] += row[i] * w;
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
        for (int k = 0; k < kRuns; ++k) sums[i * kRuns + k] = s[i][k];
}

// The same for lanes that are turned by any number of places, because an addition is the same from both sides.
INLINE float sum_of_lanes(Vector v) {
    v += __builtin_shuffle(v, Indices{8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7});
    v += __builtin_shuffle(v, Indices{4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11});
    v += __builtin_shuffle(v, Indices{2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13});
    return v[0] + v[1];
}

// All rows with one part of the streams; only the first of them need fetch what follows.
template <int kRuns>
INLINE void add_part(const float* x, int64_t x_pitch, int64_t rows, const Part& part, Vector* sums) {
    int64_t i = 0;
    if (part.next.data && rows >= 4)
        add_products<4, kRuns, true>(x, x_pitch, part, sums), i = 4;
    else if (part.next.data)
        add_products<1, kRuns, true>(x, x_pitch, part, sums), i = 1;
    for (; i + 4 <= rows; i += 4) add_products<4, kRuns, false>(x + i * x_pitch, x_pitch, part, sums + i * kRuns);
    for (; i + 2 <= rows; i += 2) add_products<2, kRuns, false>(x + i * x_pitch, x_pitch, part, sums + i * kRuns);
    for (; i < rows; ++i) add_products<1, kRuns, false>(x + i * x_pitch, x_pitch, part, sums + i * kRuns);
}

// The terms before and after the whole vectors: `count` lanes of a vector from `first` on.
template <int kRuns>
INLINE void add_edge(const float* x, int64_t x_pitch, int64_t rows, const float* weight, int64_t pitch, int64_t first,
                     int64_t count, float* sums) {
    for (int64_t i = 0; i < rows; ++i)
        for (int k = 0; k < kRuns; ++k) {
            const float *const row = x + i * x_pitch - first, *const w = weight + k * pitch - first;
            float* const sum = sums + (i * kRuns + k) * kLanes;
#pragma omp simd
            for (int64_t l = 0; l < kLanes; ++l)
                if (l >= first && l < first + count) sum[l] += row[l] * w[l];
        }
}

// Elements before the first one that begins a cache line; 0 if the rows of W differ in that.
INLINE int64_t before_line(const float* weight, int64_t pitch, int64_t inputs) {
    const int64_t head = -(reinterpret_cast<intptr_t>(weight) / 4) & (kLanes - 1);
    return pitch % kLanes == 0 ? std::min(head, inputs) : 0;
}

// Whether rows of W are whole vectors, and begin where cache lines do if any of their vectors can.
INLINE bool is_whole(const float* weight, int64_t pitch, int64_t inputs) {
    return inputs % kLanes == 0 && before_line(weight, pitch, inputs) == 0;
}

// What to fetch within a run. With few rows the processor sees for itself what comes next, and reads it sooner; with
// several, memory would rest while they are multiplied.
INLINE Streams ahead(int64_t rows, const float* weight, int64_t pitch) {
    return rows >= 4 ? Streams{weight, pitch, kPart} : Streams{};
}

// One row of W from each of kRuns runs, `pitch` elements after each other; their products go to columns of y that are
// `step` elements after each other. Vectors of W begin where cache lines do, because others would be read twice. Which
// lane has which terms depends on that, but not what is added to what: sum_of_lanes is the same for turned lanes.
template <int kRuns>
INLINE void multiply_runs(const float* x, int64_t x_pitch, int64_t rows, int64_t inputs, const float* weight,
                          int64_t pitch, Streams next, float* sums, float* y, int64_t y_pitch, int64_t step) {
    const int64_t head = before_line(weight, pitch, inputs), tail = head + (inputs - head) / kLanes * kLanes;
    // Only where terms are added up in memory do zeros go there: a library's fill writes 32 bytes at a time, so that a
    // load of a whole vector would wait until they are in the cache, behind all reads of weights before it.
    const bool edge = head > 0 || tail == head;
    if (edge) std::fill_n(sums, rows * kRuns * kLanes, 0.0f);
    if (head) add_edge<kRuns>(x, x_pitch, rows, weight, pitch, kLanes - head, head, sums);
    for (int64_t j = head; j < tail; j += kPart) {
        const int64_t vectors = std::min(kPart, tail - j) / kLanes;
        const bool last = j + kPart >= tail;
        const Streams fetched = last ? next : ahead(rows, weight + j + kPart, pitch);
        add_part<kRuns>(x + j, x_pitch, rows, {weight + j, pitch, vectors, j == head && !edge, fetched},
                        reinterpret_cast<Vector*>(sums));
    }
    if (tail < inputs) add_edge<kRuns>(x + tail, x_pitch, rows, weight + tail, pitch, 0, inputs - tail, sums);
    for (int64_t i = 0; i < rows; ++i)
        for (int k = 0; k < kRuns; ++k)
            y[i * y_pitch + k * step] = sum_of_lanes(reinterpret_cast<Vector*>(sums)[i * kRuns + k]);
}

FOR_EACH_PROCESSOR void multiply_all_runs(const float* x, int64_t x_pitch, int64_t rows, int64_t inputs,
                                          const float* weight, int64_t pitch, int64_t run, Streams next, float* sums,
                                          float* y, int64_t y_pitch) {
    for (int64_t o = 0; o < run; ++o)
        multiply_runs<kStreams>(x, x_pitch, rows, inputs, weight + o * pitch, run * pitch,
                                o + 1 < run ? ahead(rows, weight + (o + 1) * pitch, run * pitch) : next, sums, y + o, y_pitch, run);
}

// One row of x, with sums that never leave the registers, if is_whole.
FOR_EACH_PROCESSOR void multiply_row(const float* x, int64_t inputs, const float* weight, int64_t pitch, int64_t run,
                                     Streams next, float* y) {
    for (int64_t o = 0; o < run; ++o) {
        if (o + 1 == run && next.data)
            for (int64_t at = 0; at < kPart; at += Streams::kLine) next.fetch(at);
        Vector sums[kStreams] = {};
        for (int64_t j = 0; j < inputs; j += kLanes) {
            const Vector row = *reinterpret_cast<const Anywhere*>(x + j);
#pragma GCC unroll 8
            for (int k = 0; k < kStreams; ++k)
                sums[k] += row * *reinterpret_cast<const Anywhere*>(weight + (k * run + o) * pitch + j);
        }
#pragma GCC unroll 8
        for (int k = 0; k < kStreams; ++k) y[k * run + o] = sum_of_lanes(sums[k]);
    }
}

FOR_EACH_PROCESSOR void multiply_one(const float* x, int64_t x_pitch, int64_t rows, int64_t inputs,
                                     const float* weight, float* sums, float* y, int64_t y_pitch) {
    multiply_runs<1>(x, x_pitch, rows, inputs, weight, 0, {}, sums, y, y_pitch, 0);
}

FOR_EACH_PROCESSOR void add(float* y, const float* bias, int64_t count) {
    for (int64_t i = 0; i < count; ++i) y[i] += bias[i];
}

}  // namespace

int64_t few_rows_height(int64_t inputs, int64_t outputs) {
    const int64_t rows = std::min(outputs / (kPieces * thread_count()), kLargest / inputs);
    return std::max({kStreams, kSmallest / inputs / kStreams * kStreams, rows / kStreams * kStreams});
}

void multiply_few(const float* x, int64_t x_pitch, int64_t rows, int64_t inputs, const float* weight, int64_t pitch,
                  int64_t outputs, Streams next, float* y, int64_t y_pitch) {
    float* const sums = scratch(Use::sums, rows * kStreams * kLanes);
    const int64_t run = outputs / kStreams;
    if (rows == 1 && is_whole(weight, pitch, inputs))
        multiply_row(x, inputs, weight, pitch, run, next, y);
    else
        multiply_all_runs(x, x_pitch, rows, inputs, weight, pitch, run, next, sums, y, y_pitch);
    for (int64_t o = run * kStreams; o < outputs; ++o)
        multiply_one(x, x_pitch, rows, inputs, weight + o * pitch, sums, y + o, y_pitch);
}

void multiply_few(const float* x, int64_t rows, int64_t inputs, const float* weight, int64_t outputs,
                  const float* bias, float* y) {
    const int64_t height = few_rows_height(inputs, outputs);
    const auto width = [=](int64_t piece) { return std::min(height, outputs - piece * height); };
    Phase all;
    all.count = pieces(outputs, height);
    all.reads = [=](int64_t piece) { return streams(weight + piece * height * inputs, inputs, width(piece)); };
    all.work = [=](int64_t piece, Streams next) {
        const int64_t o = piece * height;
        multiply_few(x, inputs, rows, inputs, weight + o * inputs, inputs, width(piece), next, y + o, outputs);
        for (int64_t i = 0; bias && i < rows; ++i) add(y + i * outputs + o, bias + o, width(piece));
    };
    run_phases(&all, 1);
}

}  // namespace pangu
