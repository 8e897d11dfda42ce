#include "layer.h"

#include <cmath>

#include "elementary.h"
#include "norm.h"
#include "softmax.h"

namespace pangu {
namespace {

constexpr float kLinear = 0.7978845608028654f;  // of the tanh form of GELU, see pointwise.cc
constexpr float kCubic = 0.044715f * kLinear;
constexpr int64_t kMostHeads = 4;  // of a piece of the attention

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
    softmax_of(row, count, [=](int64_t j) { return row[j] * scale; });
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

}  // namespace

void Positions::normalize_all(const float* from, const Norm& norm) const {
    float* const to = normed();
    float mean, inverse;
    for (int64_t i = 0; i < rows; ++i)
        normalize(from + i * hidden, norm.gamma, norm.beta, epsilon, hidden, to + i * hidden, &mean, &inverse);
}

bool Layer::places_exist() const {
    return std::all_of(all_.places, all_.places + all_.rows, [this](const Place& at) {
        return at.row >= 0 && at.row < cached_rows_ && at.start >= 0 && at.start <= at.slot && at.slot < slots_;
    });
}

void Layer::append(std::vector<Phase>& phases) const {
    phases.push_back(project());
    phases.push_back(attend());
    phases.push_back(add_product(output_, all_.attended, all_.x, all_.middle));
    phases.push_back(expand());
    phases.push_back(add_product(down_, all_.wide, all_.middle, all_.x));
}

// Calls finish(row, first column, columns, values) with a piece of a product, before the bias is added.
template <typename Finish>
void Layer::multiply(const Linear& linear, const float* from, int64_t piece, Streams next, const Finish& finish) const {
    const int64_t width = linear.width(piece), first = linear.first(piece);
    float* const product = scratch(Use::own, all_.rows * width);
    multiply_few(from, linear.inputs, all_.rows, linear.inputs, linear.part(piece), linear.inputs, width, next, product,
                 width);
    for (int64_t i = 0; i < all_.rows; ++i) finish(i, first, width, product + i * width);
}

// The queries, keys and values, which go to where they are needed.
Phase Layer::project() const {
    const int64_t each = key_.count();
    const auto linear = [=, this](int64_t piece) -> const Linear& {
        return piece < each ? key_ : piece < 2 * each ? value_ : query_;
    };
    Phase phase;
    phase.count = 3 * each;
    phase.enter = [this] { all_.normalize_all(all_.x, norm_); };
    phase.reads = [=](int64_t piece) { return linear(piece).reads(piece % each); };
    phase.work = [=, this](int64_t piece, Streams next) {
        const Linear& chosen = linear(piece);
        const float* const from = &chosen == &query_ && asks_ ? asks_ : all_.normed();
        multiply(chosen, from, piece % each, next, [&](int64_t i, int64_t first, int64_t width, const float* y) {
            keep(chosen, i, first, width, y);
        });
    };
    return phase;
}

// Stores some columns of the query, key or value of a row; in a cache, each head has a place of its own.
void Layer::keep(const Linear& linear, int64_t i, int64_t first, int64_t width, const float* y) const {
    if (&linear == &query_) return add(y, linear.bias + first, width, all_.queries + i * all_.hidden + first);
    float* const cache = &linear == &key_ ? key_cache_ : value_cache_;
    for (int64_t done = 0, count; done < width; done += count) {
        const int64_t head = (first + done) / head_size_, column = (first + done) % head_size_;
        count = std::min(head_size_ - column, width - done);
        add(y + done, linear.bias + first + done, count, cache + at(all_.places[i], head, all_.places[i].slot) + column);
    }
}

// Some heads of one row.
Phase Layer::attend() const {
    const int64_t some = std::clamp<int64_t>(all_.rows * num_heads_ / (4 * thread_count()), 1, kMostHeads);
    const int64_t groups = pieces(num_heads_, some);
    Phase phase;
    phase.count = all_.rows * groups;
    phase.work = [=, this](int64_t piece, Streams) {
        const int64_t i = piece / groups, first = piece % groups * some;
        for (int64_t head = first; head < std::min(num_heads_, first + some); ++head) attend(i, head);
    };
    return phase;
}

void Layer::attend(int64_t i, int64_t head) const {
    const Place& place = all_.places[i];
    const int64_t keys = place.slot - place.start + 1, column = i * all_.hidden + head * head_size_;
    const int64_t start = at(place, head, place.start);
    float* const scores = scratch(Use::scores, keys);
    multiply_few(all_.queries + column, all_.hidden, 1, head_size_, key_cache_ + start, head_size_, keys, {}, scores,
                 keys);
    softmax(scores, 1.0f / std::sqrt(static_cast<float>(head_size_)), keys);
    mix(scores, value_cache_ + start, head_size_, keys, head_size_, all_.attended + column);
}

// to = rest + from W^T + b
Phase Layer::add_product(const Linear& linear, const float* from, const float* rest, float* to) const {
    Phase phase = linear.phase();
    phase.work = [=, this, &linear](int64_t piece, Streams next) {
        multiply(linear, from, piece, next, [&](int64_t i, int64_t first, int64_t width, const float* y) {
            const int64_t begin = i * all_.hidden + first;
            add_to(y, linear.bias + first, rest + begin, width, to + begin);
        });
    };
    return phase;
}

Phase Layer::expand() const {
    Phase phase = up_.phase();
    phase.enter = [this] { all_.normalize_all(all_.middle, norm2_); };
    phase.work = [this](int64_t piece, Streams next) {
        multiply(up_, all_.normed(), piece, next, [&](int64_t i, int64_t first, int64_t width, const float* y) {
            gelu(y, up_.bias + first, width, all_.wide + i * up_.outputs + first);
        });
    };
    return phase;
}

}  // namespace pangu
