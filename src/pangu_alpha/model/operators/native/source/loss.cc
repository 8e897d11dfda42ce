// -log(softmax(x E^T)[label] + 1e-24) over a vocabulary, and its gradients, with products of two precisions.
#include <algorithm>
#include <cmath>
#include <vector>

#include "bfloat16.h"
#include "product.h"
#include "softmax.h"

namespace pangu {
namespace {

FOR_EACH_PROCESSOR void softmax(float* row, int64_t count) {
    softmax_of(row, count, [=](int64_t j) { return row[j]; });
}

FOR_EACH_PROCESSOR void scale(const float* x, float factor, int64_t count, float* y) {
    for (int64_t j = 0; j < count; ++j) y[j] = x[j] * factor;
}

// y = (y - x) * factor
FOR_EACH_PROCESSOR void subtract_and_scale(float* y, const float* x, float factor, int64_t count) {
    for (int64_t j = 0; j < count; ++j) y[j] = (y[j] - x[j]) * factor;
}

// y = (y - share x) * factor, with x rounded
FOR_EACH_PROCESSOR void subtract_rounded_and_scale(float* y, const float* x, float share, float factor, int64_t count) {
    for (int64_t j = 0; j < count; ++j) y[j] = (y[j] - share * round_to_bfloat16(x[j])) * factor;
}

int cross_entropy(const Arguments& given, Precision precision) {
    const int64_t rows = given.size(0, 0), hidden = given.size(0, 1), words = given.size(1, 0);
    const int32_t* labels = given.ints(2);
    float *nats = given.floats(3), *probabilities = given.floats(4);
    const Product scores{rows, words, hidden, {given.floats(0), hidden}, {given.floats(1), hidden, true}, probabilities,
                         precision};
    multiply_all(scores);
    for_each(rows, [=](int64_t i) {
        float* const row = probabilities + i * words;
        softmax(row, words);
        const bool known = labels[i] >= 0 && labels[i] < words;
        nats[i] = known ? -std::log(row[labels[i]] + 1e-24f) : NAN;
    });
    return 0;
}

int cross_entropy_gradient(const Arguments& given, Precision precision) {
    const int64_t rows = given.size(0, 0), hidden = given.size(0, 1), words = given.size(1, 0);
    const float *x = given.floats(0), *table = given.floats(1), *probabilities = given.floats(3);
    const int32_t* labels = given.ints(2);
    const float* upstream = given.floats(4);
    float *dx = given.floats(5), *dtable = given.floats(6);
    const auto known = [=](int64_t i) { return labels[i] >= 0 && labels[i] < words; };
    // The gradient of the scores is p - onehot: the label's row is subtracted from the products with p. Where there
    // is no such label the loss is NaN, and so is the gradient. In medium precision the products hold round(p) of the
    // label, so 1 + round(p) - p is subtracted: p - 1 must not be rounded where p is almost 1.
    const bool medium = precision == Precision::medium;
    const auto share = [=](int64_t i) {
        const float p = probabilities[i * words + labels[i]];
        return 1.0f + (round_to_bfloat16(p) - p);
    };
    const Product by_x{rows, hidden, words, {probabilities, words}, {table, hidden}, dx, precision};
    multiply_all(by_x, [=](int64_t row, int64_t height, int64_t column, int64_t width) {
        for (int64_t i = row; i < row + height; ++i) {
            float* const part = dx + i * hidden + column;
            if (!known(i)) {
                std::fill_n(part, width, NAN);
                continue;
            }
            const float* const word = table + labels[i] * hidden + column;
            if (medium) subtract_rounded_and_scale(part, word, share(i), upstream[i], width);
            else subtract_and_scale(part, word, upstream[i], width);
        }
    });
    std::vector<float> scaled(rows * hidden);
    float* const weighted = scaled.data();
    for_each(rows, [=](int64_t i) { scale(x + i * hidden, upstream[i], hidden, weighted + i * hidden); });
    const Product by_table{words, hidden, rows, {probabilities, words, true}, {weighted, hidden}, dtable, precision};
    multiply_all(by_table);
    constexpr int64_t kColumns = 64;
    for_each(pieces(hidden, kColumns), [=](int64_t piece) {
        const int64_t begin = piece * kColumns, end = std::min(hidden, begin + kColumns);
        for (int64_t i = 0; i < rows; ++i) {
            if (!known(i)) continue;
            float* const word = dtable + labels[i] * hidden;
            const float* const row = weighted + i * hidden;
            if (medium) subtract_rounded_and_scale(word + begin, row + begin, share(i), 1.0f, end - begin);
            else for (int64_t j = begin; j < end; ++j) word[j] -= row[j];
        }
    });
    return 0;
}

}  // namespace

// (x [T, H], E [V, H], labels int32 [T]) -> nats [T], probabilities [T, V]
KERNEL(CrossEntropy) { return cross_entropy({count, data, ranks, shapes}, Precision::highest); }
KERNEL(CrossEntropyMedium) {
    return has_bfloat16() ? cross_entropy({count, data, ranks, shapes}, Precision::medium) : 1;
}

// (x [T, H], E [V, H], labels int32 [T], probabilities [T, V], dnats [T]) -> dx [T, H], dE [V, H]
KERNEL(CrossEntropyGradient) { return cross_entropy_gradient({count, data, ranks, shapes}, Precision::highest); }
KERNEL(CrossEntropyGradientMedium) {
    return has_bfloat16() ? cross_entropy_gradient({count, data, ranks, shapes}, Precision::medium) : 1;
}

}  // namespace pangu
