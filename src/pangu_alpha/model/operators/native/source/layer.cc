// A whole transformer layer for few new positions, whose keys and values go to a cache.
//
// A token of one row needs so little arithmetic that its time is that of reading the weights. As one kernel, the
// threads stay with the layer from its first to its last product and fetch weights while they wait for each other.
// What a row gets does not depend on the other rows, nor on how many there are.
#include <algorithm>
#include <cmath>
#include <vector>

#include "elementary.h"
#include "few_rows.h"
#include "kernel.h"
#include "norm.h"
#include "phases.h"
#include "scratch.h"
#include "threads.h"

namespace pangu {
namespace {

constexpr float kLinear = 0.7978845608028654f;  // of the tanh form of GELU, see pointwise.cc
constexpr float kCubic = 0.044715f * kLinear;
constexpr int64_t kMostHeads = 4;  // of a piece of the attention

struct Linear {
    const float *weight, *bias;
    int64_t inputs, outputs;

    int64_t height() const { return few_rows_height(inputs, outputs); }
    int64_t count() const { return pieces(outputs, height()); }
    int64_t first(int64_t piece) const { return piece * height(); }
    int64_t width(int64_t piece) const { return std::min(height(), outputs - first(piece)); }
    const float* part(int64_t piece) const { return weight + first(piece) * inputs; }
    Streams reads(int64_t piece) const { return streams(part(piece), inputs, width(piece)); }
};

// Where a new position goes, and the first one that it attends to.
struct Place {
    int32_t row, slot, start;
};

FOR_EACH_PROCESSOR void add(const float* x, const float* bias, int64_t count, float* y) {
    for (int64_t i = 0; i < count; ++i) y[i] = x[i] + bias[i];
}

FOR_EACH_PROCESSOR void add_to(const float* x, const float* bias, const float* rest, int64_t count, float* y) {
    for (int64_t i = 0; i < count; ++i) y[i] = rest[i] + (x[i] + bias[i]);
}

FOR_EACH_PROCESSOR void gelu(const float* x, const float* bias, int64_t count, float* y) {
    for (int64_t i = 0; i < count; ++i) {
        const float sum = x[i] + bias[i];
        y[i] = sum * sigmoid(sum * (2 * kLinear + 2 * kCubic * sum * sum));
    }
}

FOR_EACH_PROCESSOR void softmax(float* row, float scale, int64_t count) {
    float largest = -INFINITY;
#pragma omp simd reduction(max : largest)
    for (int64_t j = 0; j < count; ++j) {
        row[j] *= scale;
        largest = largest > row[j] ? largest : row[j];
    }
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < count; ++j) {
        row[j] = exponential(row[j] - largest);
        sum += row[j];
    }
    const float factor = 1.0f / sum;
    for (int64_t j = 0; j < count; ++j) row[j] *= factor;
}

// out [columns] = the sum of weights[j] times row j of value, by parts that stay in registers.
FOR_EACH_PROCESSOR void mix(const float* weights, const float* value, int64_t pitch, int64_t keys, int64_t columns,
                            float* out) {
    typedef float Vector __attribute__((vector_size(64)));
    typedef float Anywhere __attribute__((vector_size(64), aligned(4)));
    int64_t c = 0;
    for (; c + 64 <= columns; c += 64) {
        Vector s0 = {}, s1 = {}, s2 = {}, s3 = {};
        for (int64_t j = 0; j < keys; ++j) {
            const Anywhere* const v = reinterpret_cast<const Anywhere*>(value + j * pitch + c);
            s0 += weights[j] * v[0], s1 += weights[j] * v[1], s2 += weights[j] * v[2], s3 += weights[j] * v[3];
        }
        Anywhere* const o = reinterpret_cast<Anywhere*>(out + c);
        o[0] = s0, o[1] = s1, o[2] = s2, o[3] = s3;
    }
    for (; c + 16 <= columns; c += 16) {
        Vector sum = {};
        for (int64_t j = 0; j < keys; ++j) sum += weights[j] * *reinterpret_cast<const Anywhere*>(value + j * pitch + c);
        *reinterpret_cast<Anywhere*>(out + c) = sum;
    }
    for (; c < columns; ++c) {
        float sum = 0;
        for (int64_t j = 0; j < keys; ++j) sum += weights[j] * value[j * pitch + c];
        out[c] = sum;
    }
}

// The tensors of one call, in the order of its arguments, and what its phases hand on.
struct Layer {
    float *key_cache, *value_cache;
    const float* x;
    const Place* places;
    int64_t rows, hidden, num_heads, head_size, slots, cached_rows;
    const float *gamma, *beta, *gamma2, *beta2;
    Linear query, key, value, output, up, down;
    float epsilon;
    const float* asks;  // [T, H] of which the queries are made; null for the layer's own input
    float* out;
    std::vector<float> memory;
    float *queries, *attended, *middle, *wide;  // [T, H], [T, H], [T, H], [T, 4H]

    explicit Layer(const Arguments& given)
        : key_cache(given.floats(0)), value_cache(given.floats(1)), x(given.floats(2)),
          places(reinterpret_cast<const Place*>(given.ints(3))), rows(given.size(2, 0)), hidden(given.size(2, 1)),
          num_heads(given.size(4, 0)), head_size(hidden / num_heads), slots(given.size(0, 1)),
          cached_rows(given.size(0, 0)), gamma(given.floats(6)), beta(given.floats(7)), gamma2(given.floats(8)),
          beta2(given.floats(9)), query(linear(given, 10)), key(linear(given, 12)), value(linear(given, 14)),
          output(linear(given, 16)), up(linear(given, 18)), down(linear(given, 20)), epsilon(*given.floats(5)),
          asks(given.count > 23 ? given.floats(22) : nullptr), out(given.floats(given.count - 1)),
          memory(rows * (3 * hidden + up.outputs)), queries(memory.data()), attended(queries + rows * hidden),
          middle(attended + rows * hidden), wide(middle + rows * hidden) {}

    static Linear linear(const Arguments& given, int i) {
        return {given.floats(i), given.floats(i + 1), given.size(i, 1), given.size(i, 0)};
    }

    bool places_exist() const {
        return std::all_of(places, places + rows, [this](const Place& at) {
            return at.row >= 0 && at.row < cached_rows && at.start >= 0 && at.start <= at.slot && at.slot < slots;
        });
    }

    // The normalised rows, which each thread makes for itself because that is quicker than to wait for another one.
    void normalize_all(const float* from, const float* factor, const float* shift) const {
        float* const normed = scratch(Use::normed, rows * hidden);
        float mean, inverse;
        for (int64_t i = 0; i < rows; ++i)
            normalize(from + i * hidden, factor, shift, epsilon, hidden, normed + i * hidden, &mean, &inverse);
    }
    const float* normed() const { return scratch(Use::normed, rows * hidden); }

    // Calls finish(row, first column, columns, values) with a piece of a product, before the bias is added.
    template <typename Finish>
    void multiply(const Linear& linear, const float* from, int64_t piece, Streams next, const Finish& finish) const {
        const int64_t width = linear.width(piece), first = linear.first(piece);
        float* const product = scratch(Use::own, rows * width);
        multiply_few(from, linear.inputs, rows, linear.inputs, linear.part(piece), linear.inputs, width, next, product,
                     width);
        for (int64_t i = 0; i < rows; ++i) finish(i, first, width, product + i * width);
    }

    // The queries, keys and values, which go to where they are needed.
    Phase project() const {
        const int64_t each = key.count();
        const auto linear = [=, this](int64_t piece) -> const Linear& {
            return piece < each ? key : piece < 2 * each ? value : query;
        };
        Phase phase;
        phase.count = 3 * each;
        phase.enter = [this] { normalize_all(x, gamma, beta); };
        phase.reads = [=](int64_t piece) { return linear(piece).reads(piece % each); };
        phase.work = [=, this](int64_t piece, Streams next) {
            const Linear& chosen = linear(piece);
            const float* const from = &chosen == &query && asks ? asks : normed();
            multiply(chosen, from, piece % each, next, [&](int64_t i, int64_t first, int64_t width, const float* y) {
                add(y, chosen.bias + first, width, projected(chosen, i) + first);
            });
        };
        return phase;
    }

    // Where the query, key or value of a row goes.
    float* projected(const Linear& linear, int64_t i) const {
        if (&linear == &query) return queries + i * hidden;
        return (&linear == &key ? key_cache : value_cache) + at(places[i], places[i].slot);
    }

    int64_t at(const Place& place, int64_t slot) const { return (place.row * slots + slot) * hidden; }

    // Some heads of one row.
    Phase attend() const {
        const int64_t some = std::clamp<int64_t>(rows * num_heads / (4 * thread_count()), 1, kMostHeads);
        const int64_t groups = pieces(num_heads, some);
        Phase phase;
        phase.count = rows * groups;
        phase.work = [=, this](int64_t piece, Streams) {
            const int64_t i = piece / groups, first = piece % groups * some;
            for (int64_t head = first; head < std::min(num_heads, first + some); ++head) attend(i, head);
        };
        return phase;
    }

    void attend(int64_t i, int64_t head) const {
        const Place& place = places[i];
        const int64_t keys = place.slot - place.start + 1, column = head * head_size;
        const int64_t start = at(place, place.start) + column;
        float* const scores = scratch(Use::scores, keys);
        multiply_few(queries + i * hidden + column, hidden, 1, head_size, key_cache + start, hidden, keys, {},
                     scores, keys);
        softmax(scores, 1.0f / std::sqrt(static_cast<float>(head_size)), keys);
        mix(scores, value_cache + start, hidden, keys, head_size, attended + i * hidden + column);
    }

    Phase phase_of(const Linear& linear) const {
        Phase phase;
        phase.count = linear.count();
        phase.reads = [&linear](int64_t piece) { return linear.reads(piece); };
        return phase;
    }

    // to = rest + from W^T + b
    Phase add_product(const Linear& linear, const float* from, const float* rest, float* to) const {
        Phase phase = phase_of(linear);
        phase.work = [=, this, &linear](int64_t piece, Streams next) {
            multiply(linear, from, piece, next, [&](int64_t i, int64_t first, int64_t width, const float* y) {
                const int64_t begin = i * hidden + first;
                add_to(y, linear.bias + first, rest + begin, width, to + begin);
            });
        };
        return phase;
    }

    Phase expand() const {
        Phase phase = phase_of(up);
        phase.enter = [this] { normalize_all(middle, gamma2, beta2); };
        phase.work = [this](int64_t piece, Streams next) {
            multiply(up, normed(), piece, next, [&](int64_t i, int64_t first, int64_t width, const float* y) {
                gelu(y, up.bias + first, width, wide + i * up.outputs + first);
            });
        };
        return phase;
    }

    void run() const {
        const Phase phases[] = {project(), attend(), add_product(output, attended, x, middle), expand(),
                                add_product(down, wide, middle, out)};
        run_phases(phases, std::size(phases));
    }
};

}  // namespace

// (key cache [R, C, H], value cache [R, C, H], x [T, H], places int32 [T, 3] of row, slot and first visible slot,
// heads int32 [N], epsilon [1], gamma and beta of both norms [H], then weight [O, I] and bias [O] of query, key, value,
// output, up and down, and unless the layer asks itself, query [T, H]) -> [T, H]. It writes the caches in place.
KERNEL(CachedLayer) {
    ARGUMENTS;
    const Layer layer(given);
    if (!layer.places_exist()) return 1;
    layer.run();
    return 0;
}

}  // namespace pangu
