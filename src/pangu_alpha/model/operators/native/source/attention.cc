// softmax(q k^T / sqrt(d) + mask) v by blocks of queries, with dropout by position, and its gradients.
//
// Head h is columns h d to (h + 1) d of [T, H], so heads are neither split off nor joined. No [B, N, S, C] is kept:
// the gradients compute the weights again. Keys before the first and after the last one to which any query of a
// block may attend are left out; their weight would be exp(-10000), which is 0. So are, for each line of queries, most
// of those behind the last one that the line may attend to: of a causal mask, what lies behind the diagonal.
#include <algorithm>
#include <cmath>
#include <vector>

#include "dropout.h"
#include "product.h"
#include "softmax.h"

namespace pangu {
namespace {

constexpr int64_t kQueries = 64;  // queries of a block
constexpr int64_t kPieces = 4;    // for each thread, at least
constexpr float kMasked = -10000.0f;

FOR_EACH_PROCESSOR void softmax(float* row, float scale, const float* mask, int64_t count) {
    softmax_of(row, count, [=](int64_t j) { return row[j] * scale + (1.0f - mask[j]) * kMasked; });
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

constexpr int64_t kLines = kQueries / Rows::kLine;  // of a block
constexpr int64_t kStep = 16;  // a line's keys end behind a multiple of it, so that sums of the rest are the same bits

// The keys [first, end) that any query of a block may attend to; all keys if a query may attend to none. Each line of
// queries may attend to none from `ends` on, which do not decrease; the last one is `end`.
struct Range {
    int64_t first, end;
    int64_t ends[kLines];

    // The first query of those lines that may attend to this key.
    int64_t first_query(int64_t key) const {
        int64_t line = 0;
        while (ends[line] <= key) ++line;
        return line * Rows::kLine;
    }

    int64_t end_of(int64_t query) const { return ends[query / Rows::kLine]; }
};

Range visible(const float* mask, int64_t queries, int64_t keys) {
    Range all{keys, 0, {}};
    for (int64_t i = 0; i < queries; ++i) {
        const float* row = mask + i * keys;
        int64_t first = 0, end = keys;
        while (first < keys && row[first] == 0.0f) ++first;
        if (first == keys) {
            all = {0, keys, {}};
            std::fill_n(all.ends, kLines, keys);
            return all;
        }
        while (row[end - 1] == 0.0f) --end;
        all.first = std::min(all.first, first);
        all.end = std::max(all.end, end);
        std::fill(all.ends + i / Rows::kLine, all.ends + kLines, all.end);
    }
    return all;
}

// The range of a call with a cache, where a key must have the same place in every sum however a text is divided into
// calls: sums begin at whole blocks of a product, and end at whole vectors.
Range widened(Range seen, int64_t keys) {
    seen.first = seen.first / kBlock * kBlock;
    seen.end = std::min(keys, pieces(seen.end, kQueries) * kQueries);
    return seen;
}

// The range whose lines end at whole steps, or at its end.
Range in_steps(Range seen) {
    const int64_t last = seen.ends[kLines - 1];
    for (int64_t& end : seen.ends)
        end = end == last ? seen.end : std::min(seen.end, seen.first + pieces(end - seen.first, kStep) * kStep);
    return seen;
}

// One call of a kernel: the tensors and sizes that all heads and blocks share.
struct Setting {
    const float *query, *key, *value, *mask;
    const int32_t *heads, *rows, *numbers;  // for dropout; rows is null without it
    int32_t threshold;
    float factor;
    int64_t batch, queries, keys, hidden, num_heads, head_size, blocks;
    bool heads_apart;   // whether the keys of a head lie together, as in a cache
    int64_t key_pitch;  // elements from one key of a head to the next
    std::vector<Range> ranges;

    // Inputs: query [T, H], key and value [T, H] or [B, N, C, d], mask [B, S, C], heads int32 [N], and with dropout rows int32 [B, S],
    // numbers int32 [C], threshold int32 [1], factor [1], from number `extra` on.
    Setting(const Arguments& given, int extra, bool drops)
        : query(given.floats(0)), key(given.floats(1)), value(given.floats(2)), mask(given.floats(3)),
          heads(given.ints(4)), rows(drops ? given.ints(extra) : nullptr),
          numbers(drops ? given.ints(extra + 1) : nullptr), threshold(drops ? *given.ints(extra + 2) : 0),
          factor(drops ? *given.floats(extra + 3) : 1), batch(given.size(3, 0)), queries(given.size(3, 1)),
          keys(given.size(3, 2)), hidden(given.size(0, 1)), num_heads(given.size(4, 0)),
          head_size(hidden / num_heads), blocks(pieces(queries, kQueries)),
          heads_apart(given.ranks[1] == 4), key_pitch(heads_apart ? head_size : hidden), ranges(batch * blocks) {
        for_each(batch * blocks, [this](int64_t i) {
            const int64_t first = i % blocks * kQueries;
            ranges[i] = visible(mask + (i / blocks * queries + first) * keys, height(first), keys);
            if (queries > 1 && queries != keys) ranges[i] = widened(ranges[i], keys);
            ranges[i] = in_steps(ranges[i]);
        });
    }

    int64_t height(int64_t first) const { return std::min(kQueries, queries - first); }

    float scale() const { return 1.0f / std::sqrt(static_cast<float>(head_size)); }

    // Element of a [B * places, H] tensor at which a head begins.
    int64_t at(int64_t row, int64_t place, int64_t places, int64_t head) const {
        return (row * places + place) * hidden + head * head_size;
    }

    // The same of the keys or values.
    int64_t key_at(int64_t row, int64_t key, int64_t head) const {
        if (!heads_apart) return at(row, key, keys, head);
        return ((row * num_heads + head) * keys + key) * head_size;
    }

    // Applies the dropout of a block to x, whose rows begin at key 0 and are `pitch` apart. x may be y.
    void dropped(int64_t row, int64_t first, int64_t head, const Range& seen, const float* x, float* y, int64_t pitch) const {
        for (int64_t i = 0; i < height(first); ++i) {
            const uint32_t number = static_cast<uint32_t>(rows[row * queries + first + i]);
            const int64_t begin = i * pitch + seen.first;
            drop(x + begin, number * static_cast<uint32_t>(heads[head]), numbers + seen.first, threshold, factor,
                 seen.end_of(i) - seen.first, y + begin);
        }
    }
};

// The keys and values of one head of a row of the batch, packed once for all blocks of queries. Weights have a row
// for each query, which begins at key 0; of a row only the keys that the block sees are defined.
class Head {
  public:
    // Packs the keys that the blocks [first, end) see. `gradient` says which products are meant.
    Head(const Setting& all, int64_t row, int64_t head, int64_t first, int64_t end, bool gradient)
        : all_(all), row_(row), head_(head), by_key_(all.keys), by_column_(all.head_size),
          pitch_(spread_out(by_key_.padded_columns())), used_(used(first, end)),
          keys_(across(Use::keys, all.key)), values_(gradient ? across(Use::values, all.value) : keys_),
          down_(down(gradient ? all.key : all.value)) {}

    int64_t pitch() const { return pitch_; }
    const Range& seen(int64_t block) const { return all_.ranges[row_ * all_.blocks + block]; }

    // Weights of the queries from `first` on, before dropout.
    void weights(int64_t first, const Range& seen, float* result) const {
        const float* const query = all_.query + all_.at(row_, first, all_.queries, head_);
        by_keys(first, query, keys_, seen, result);
        for (int64_t i = 0; i < all_.height(first); ++i)
            softmax(result + i * pitch_ + seen.first, all_.scale(),
                    all_.mask + (row_ * all_.queries + first + i) * all_.keys + seen.first, seen.end_of(i) - seen.first);
    }

    // Gradients of the weights after dropout.
    void weights_gradient(int64_t first, const float* dout, const Range& seen, float* result) const {
        by_keys(first, dout, values_, seen, result);
    }

    // result [height, d] = weights x the values, or the keys for a gradient.
    void mix(int64_t first, const float* weights, const Range& seen, float* result) const {
        Product::blocks(seen.first, seen.end, [&](int64_t k, int64_t count) {
            Terms terms[kLines];
            for (int64_t i = 0; i < kLines; ++i) terms[i] = {0, std::clamp<int64_t>(seen.ends[i] - k, 0, count)};
            multiply(Precision::highest, all_.height(first), Rows::of({weights + k, pitch_}).with(terms), down_.part(k, count), 0,
                     by_column_.count(), k > seen.first, result, all_.hidden);
        });
    }

    // result [seen keys, d] += the transposed weights x a block of [height, d].
    void spread(int64_t first, const float* weights, const Range& seen, const float* block, float* result) const {
        const int64_t height = all_.height(first);
        const Packed packed{by_column_, height, scratch(Use::small_panels, Packed::size(by_column_, height)), 0, height};
        for (int64_t p = 0; p < by_column_.count(); ++p) packed.fill(p, {block, all_.hidden});
        for (int64_t begin = seen.first, end; begin < seen.end; begin = end) {  // the keys that the same queries see
            const int64_t query = seen.first_query(begin);
            end = seen.end_of(query);
            multiply(Precision::highest, end - begin, Rows::across({weights + begin + query * pitch_, pitch_}),
                     packed.part(query, height - query), 0, by_column_.count(), true,
                     result + (begin - seen.first) * all_.hidden, all_.hidden);
        }
    }

  private:
    // A pitch with which a column's elements do not all fall on the same few places of the cache.
    static int64_t spread_out(int64_t columns) {
        const int64_t lines = pieces(columns, 16);
        return (lines + (lines % 2 == 0)) * 16;
    }

    Range used(int64_t first, int64_t end) const {
        Range all{all_.keys, 0, {}};
        for (int64_t block = first; block < end; ++block) {
            all.first = std::min(all.first, seen(block).first);
            all.end = std::max(all.end, seen(block).end);
        }
        return all;
    }

    // The transposed keys or values.
    Packed across(Use use, const float* from) const {
        const int64_t size = all_.head_size;
        const Packed packed{by_key_, size, scratch(use, Packed::size(by_key_, size)), 0, size};
        const Matrix whole{from + all_.key_at(row_, 0, head_), all_.key_pitch, true};
        for (int64_t p = by_key_.at(used_.first); p <= by_key_.at(used_.end - 1); ++p) packed.fill(p, whole);
        return packed;
    }

    // The keys or values as they are.
    Packed down(const float* from) const {
        const Packed packed{by_column_, all_.keys, scratch(Use::columns, Packed::size(by_column_, all_.keys)), 0, all_.keys};
        const Packed part = packed.part(used_.first, used_.end - used_.first);
        const Matrix whole{from + all_.key_at(row_, used_.first, head_), all_.key_pitch};
        for (int64_t p = 0; p < by_column_.count(); ++p) part.fill(p, whole);
        return packed;
    }

    // The products with the keys that queries see; in a row, what lies between its line's end and the block's is not
    // defined.
    void by_keys(int64_t first, const float* block, const Packed& packed, const Range& seen, float* result) const {
        for (int64_t p = by_key_.at(seen.first); p <= by_key_.at(seen.end - 1); ++p) {
            const int64_t query = seen.first_query(by_key_.first_column(p));
            multiply(Precision::highest, all_.height(first) - query, Rows::of({block + query * all_.hidden, all_.hidden}), packed, p,
                     p + 1, false, result + query * pitch_, pitch_);
        }
    }

    const Setting& all_;
    const int64_t row_, head_;
    const Panels by_key_, by_column_;
    const int64_t pitch_;  // elements from one row of weights to the next
    const Range used_;
    const Packed keys_, values_, down_;
};

// The result of a single query, without the preparations of a matrix product.
void forward_one(const Setting& all, int64_t row, int64_t head, float* out) {
    const Range seen = all.ranges[row];
    const int64_t width = seen.end - seen.first, start = all.key_at(row, seen.first, head);
    float* const weights = scratch(Use::weights, all.keys);
    dots(all.query + all.at(row, 0, 1, head), all.key + start, all.key_pitch, all.head_size, width, weights + seen.first);
    softmax(weights + seen.first, all.scale(), all.mask + row * all.keys + seen.first, width);
    if (all.rows) all.dropped(row, 0, head, seen, weights, weights, all.keys);
    mix(weights + seen.first, all.value + start, all.key_pitch, all.head_size, width, out + all.at(row, 0, 1, head));
}

// The results of the blocks [first, end) of one head of one row of the batch.
void forward(const Setting& all, int64_t row, int64_t head, int64_t first, int64_t end, float* out) {
    const Head packed(all, row, head, first, end, false);
    float* const weights = scratch(Use::weights, kQueries * packed.pitch());
    for (int64_t block = first; block < end; ++block) {
        const int64_t query = block * kQueries;
        const Range& seen = packed.seen(block);
        packed.weights(query, seen, weights);
        if (all.rows) all.dropped(row, query, head, seen, weights, weights, packed.pitch());
        packed.mix(query, weights, seen, out + all.at(row, query, all.queries, head));
    }
}

void clear(float* x, int64_t rows, int64_t columns, int64_t stride) {
    for (int64_t i = 0; i < rows; ++i) std::fill_n(x + i * stride, columns, 0.0f);
}

// The gradients of one head of one row of the batch.
void backward(const Setting& all, int64_t row, int64_t head, const float* dout, float* dquery, float* dkey,
              float* dvalue) {
    const int64_t start = all.at(row, 0, all.keys, head);
    clear(dkey + start, all.keys, all.head_size, all.hidden);
    clear(dvalue + start, all.keys, all.head_size, all.hidden);
    const Head packed(all, row, head, 0, all.blocks, true);
    const int64_t pitch = packed.pitch();
    float* const weights = scratch(Use::weights, 2 * kQueries * pitch);
    float* const kept = all.rows ? weights + kQueries * pitch : weights;  // weights after dropout
    float* const dweights = scratch(Use::gradients, kQueries * pitch);
    for (int64_t block = 0; block < all.blocks; ++block) {
        const int64_t first = block * kQueries, queries_at = all.at(row, first, all.queries, head);
        const Range& seen = packed.seen(block);
        const int64_t keys_at = start + seen.first * all.hidden;
        packed.weights(first, seen, weights);
        if (all.rows) all.dropped(row, first, head, seen, weights, kept, pitch);
        packed.spread(first, kept, seen, dout + queries_at, dvalue + keys_at);
        packed.weights_gradient(first, dout + queries_at, seen, dweights);
        if (all.rows) all.dropped(row, first, head, seen, dweights, dweights, pitch);
        for (int64_t i = 0; i < all.height(first); ++i)
            scores_gradient(weights + i * pitch + seen.first, dweights + i * pitch + seen.first, all.scale(),
                            seen.end_of(i) - seen.first);
        packed.mix(first, dweights, seen, dquery + queries_at);
        packed.spread(first, dweights, seen, all.query + queries_at, dkey + keys_at);
    }
}

}  // namespace

// (query, key, value, mask, heads, and with dropout rows, numbers, threshold, factor) -> [T, H]
KERNEL(Attention) {
    ARGUMENTS;
    const Setting all(given, 5, count == 10);
    float* const out = given.floats(count - 1);
    const int64_t heads = all.batch * all.num_heads;
    if (all.queries == 1) {
        for_each(heads, [&](int64_t i) { forward_one(all, i / all.num_heads, i % all.num_heads, out); });
        return 0;
    }
    const int64_t parts = std::min(all.blocks, pieces(kPieces * thread_count(), heads));  // of a head's blocks
    for_each(heads * parts, [&](int64_t i) {
        const int64_t head = i / parts, part = i % parts;
        forward(all, head / all.num_heads, head % all.num_heads, part * all.blocks / parts,
                (part + 1) * all.blocks / parts, out);
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
