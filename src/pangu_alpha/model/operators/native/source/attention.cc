// softmax(q k^T / sqrt(d) + mask) v by blocks of queries, with dropout by position, and its gradients.
//
// Head h is columns h d to (h + 1) d of [T, H], so heads are neither split off nor joined. No [B, N, S, C] is kept:
// the gradients compute the weights again. Keys before the first and after the last one to which any query of a
// block may attend are left out; their weight would be exp(-10000), which is 0.
#include <algorithm>
#include <cmath>
#include <vector>

#include "dropout.h"
#include "elementary.h"
#include "product.h"

namespace pangu {
namespace {

constexpr int64_t kQueries = 64;  // queries of a block
constexpr float kMasked = -10000.0f;

FOR_EACH_PROCESSOR void softmax(float* row, float scale, const float* mask, int64_t count) {
    float largest = -INFINITY;
#pragma omp simd reduction(max : largest)
    for (int64_t j = 0; j < count; ++j) {
        row[j] = row[j] * scale + (1.0f - mask[j]) * kMasked;
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

// Turns the gradients of a row's weights into those of its scores. The row sum is that of w dw; that of out dout
// is equal except for rounding, but a query with a single key must get exactly 0.
FOR_EACH_PROCESSOR void scores_gradient(const float* weights, float* dweights, float scale, int64_t count) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < count; ++j) sum += weights[j] * dweights[j];
    for (int64_t j = 0; j < count; ++j) dweights[j] = weights[j] * (dweights[j] - sum) * scale;
}

// The scores and the result of one query, without the preparations of a matrix product.
FOR_EACH_PROCESSOR void dots(const float* query, const float* key, int64_t stride, int64_t size, int64_t keys,
                             float* scores) {
    for (int64_t j = 0; j < keys; ++j) {
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < size; ++c) sum += query[c] * key[j * stride + c];
        scores[j] = sum;
    }
}

FOR_EACH_PROCESSOR void mix(const float* weights, const float* value, int64_t stride, int64_t size, int64_t keys,
                            float* out) {
    for (int64_t c = 0; c < size; ++c) out[c] = 0;
    for (int64_t j = 0; j < keys; ++j)
        for (int64_t c = 0; c < size; ++c) out[c] += weights[j] * value[j * stride + c];
}

// The keys [first, end) that any query of a block may attend to; all keys if a query may attend to none.
struct Range {
    int64_t first, end;
};

Range visible(const float* mask, int64_t queries, int64_t keys) {
    Range all{keys, 0};
    for (int64_t i = 0; i < queries; ++i) {
        const float* row = mask + i * keys;
        int64_t first = 0, end = keys;
        while (first < keys && row[first] == 0.0f) ++first;
        if (first == keys) return {0, keys};
        while (row[end - 1] == 0.0f) --end;
        all = {std::min(all.first, first), std::max(all.end, end)};
    }
    return all;
}

// The range of a call with a cache, where a key must have the same place in every sum however a text is divided into
// calls: sums begin at whole blocks of a product, and end at whole vectors.
Range widened(Range seen, int64_t keys) {
    return {seen.first / kBlock * kBlock, std::min(keys, pieces(seen.end, kQueries) * kQueries)};
}

// One call of a kernel: the tensors and sizes that all heads and blocks share.
struct Setting {
    const float *query, *key, *value, *mask;
    const int32_t *heads, *rows, *numbers;  // for dropout; rows is null without it
    int32_t threshold;
    float factor;
    int64_t batch, queries, keys, hidden, num_heads, head_size, blocks;
    std::vector<Range> ranges;

    // Inputs: query, key, value [T, H], mask [B, S, C], heads int32 [N], and with dropout rows int32 [B, S],
    // numbers int32 [C], threshold int32 [1], factor [1], from number `extra` on.
    Setting(const Arguments& given, int extra, bool drops)
        : query(given.floats(0)), key(given.floats(1)), value(given.floats(2)), mask(given.floats(3)),
          heads(given.ints(4)), rows(drops ? given.ints(extra) : nullptr),
          numbers(drops ? given.ints(extra + 1) : nullptr), threshold(drops ? *given.ints(extra + 2) : 0),
          factor(drops ? *given.floats(extra + 3) : 1), batch(given.size(3, 0)), queries(given.size(3, 1)),
          keys(given.size(3, 2)), hidden(given.size(0, 1)), num_heads(given.size(4, 0)),
          head_size(hidden / num_heads), blocks(pieces(queries, kQueries)), ranges(batch * blocks) {
        for_each(batch * blocks, [this](int64_t i) {
            const int64_t first = i % blocks * kQueries;
            ranges[i] = visible(mask + (i / blocks * queries + first) * keys, height(first), keys);
            if (queries > 1 && queries != keys) ranges[i] = widened(ranges[i], keys);
        });
    }

    int64_t height(int64_t first) const { return std::min(kQueries, queries - first); }

    float scale() const { return 1.0f / std::sqrt(static_cast<float>(head_size)); }

    // Element of a [B * places, H] tensor at which a head begins.
    int64_t at(int64_t row, int64_t place, int64_t places, int64_t head) const {
        return (row * places + place) * hidden + head * head_size;
    }

    // Weights [height, width] of a block, before dropout.
    void weights(int64_t row, int64_t first, int64_t head, Range seen, float* result) const {
        const int64_t width = seen.end - seen.first;
        const float* const q = query + at(row, first, queries, head);
        const float* const k = key + at(row, seen.first, keys, head);
        if (queries == 1)
            dots(q, k, hidden, head_size, width, result);
        else
            multiply(height(first), width, head_size, {q, hidden}, {k, hidden, true}, false, result, width);
        for (int64_t i = 0; i < height(first); ++i)
            softmax(result + i * width, scale(), mask + (row * queries + first + i) * keys + seen.first, width);
    }

    // Applies the dropout of a block to x [height, width], which may be y.
    void dropped(int64_t row, int64_t first, int64_t head, Range seen, const float* x, float* y) const {
        const int64_t width = seen.end - seen.first;
        for (int64_t i = 0; i < height(first); ++i) {
            const uint32_t number = static_cast<uint32_t>(rows[row * queries + first + i]);
            drop(x + i * width, number * static_cast<uint32_t>(heads[head]), numbers + seen.first, threshold, factor,
                 width, y + i * width);
        }
    }
};

void forward(const Setting& all, int64_t row, int64_t head, int64_t block, float* out) {
    const int64_t first = block * kQueries;
    const Range seen = all.ranges[row * all.blocks + block];
    const int64_t width = seen.end - seen.first;
    float* const weights = scratch(Use::weights, kQueries * all.keys);
    all.weights(row, first, head, seen, weights);
    if (all.rows) all.dropped(row, first, head, seen, weights, weights);
    const float* const value = all.value + all.at(row, seen.first, all.keys, head);
    float* const result = out + all.at(row, first, all.queries, head);
    if (all.queries == 1) {
        mix(weights, value, all.hidden, all.head_size, width, result);
        return;
    }
    multiply(all.height(first), all.head_size, width, {weights, width}, {value, all.hidden}, false, result, all.hidden);
}

void clear(float* x, int64_t rows, int64_t columns, int64_t stride) {
    for (int64_t i = 0; i < rows; ++i) std::fill_n(x + i * stride, columns, 0.0f);
}

// The gradients of one head of one row of the batch.
void backward(const Setting& all, int64_t row, int64_t head, const float* dout, float* dquery, float* dkey,
              float* dvalue) {
    const int64_t hidden = all.hidden, size = all.head_size, start = all.at(row, 0, all.keys, head);
    clear(dkey + start, all.keys, size, hidden);
    clear(dvalue + start, all.keys, size, hidden);
    float* const weights = scratch(Use::weights, 2 * kQueries * all.keys);
    float* const kept = weights + kQueries * all.keys;  // weights after dropout
    float* const dweights = scratch(Use::gradients, kQueries * all.keys);
    for (int64_t block = 0; block < all.blocks; ++block) {
        const int64_t first = block * kQueries, height = all.height(first);
        const Range seen = all.ranges[row * all.blocks + block];
        const int64_t width = seen.end - seen.first, keys_at = all.at(row, seen.first, all.keys, head);
        const int64_t queries_at = all.at(row, first, all.queries, head);
        all.weights(row, first, head, seen, weights);
        if (all.rows) all.dropped(row, first, head, seen, weights, kept);
        const Matrix out_gradient{dout + queries_at, hidden};
        multiply(width, size, height, {all.rows ? kept : weights, width, true}, out_gradient, true, dvalue + keys_at,
                 hidden);
        multiply(height, width, size, out_gradient, {all.value + keys_at, hidden, true}, false, dweights, width);
        if (all.rows) all.dropped(row, first, head, seen, dweights, dweights);
        for (int64_t i = 0; i < height; ++i)
            scores_gradient(weights + i * width, dweights + i * width, all.scale(), width);
        multiply(height, size, width, {dweights, width}, {all.key + keys_at, hidden}, false, dquery + queries_at, hidden);
        multiply(width, size, height, {dweights, width, true}, {all.query + queries_at, hidden}, true, dkey + keys_at,
                 hidden);
    }
}

}  // namespace

// (query, key, value, mask, heads, and with dropout rows, numbers, threshold, factor) -> [T, H]
KERNEL(Attention) {
    ARGUMENTS;
    const Setting all(given, 5, count == 10);
    float* const out = given.floats(count - 1);
    for_each(all.batch * all.num_heads * all.blocks, [&](int64_t i) {
        const int64_t item = i / all.blocks;
        forward(all, item / all.num_heads, item % all.num_heads, i % all.blocks, out);
    });
    return 0;
}

// (query, key, value, mask, heads, dout, and with dropout as above) -> dquery, dkey, dvalue
KERNEL(AttentionGradient) {
    ARGUMENTS;
    const Setting all(given, 6, count == 13);
    const float* dout = given.floats(5);
    for_each(all.batch * all.num_heads, [&](int64_t i) {
        backward(all, i / all.num_heads, i % all.num_heads, dout, given.floats(count - 3), given.floats(count - 2),
                 given.floats(count - 1));
    });
    return 0;
}

}  // namespace pangu
