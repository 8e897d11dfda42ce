// The gradient by a table whose rows are looked up and that is also used elsewhere.
#include <algorithm>
#include <vector>

#include "kernel.h"
#include "threads.h"

namespace pangu {
namespace {

constexpr int64_t kRows = 64;  // rows of the table in a piece

FOR_EACH_PROCESSOR void add_row(const float* x, int64_t count, float* y) {
    for (int64_t j = 0; j < count; ++j) y[j] += x[j];
}

}  // namespace

// (ids int32 [T elements], drows [T, H], dtable [V, H]) -> [V, H]: dtable plus, for each word, the sum of its rows from
// the first to the last. An id that is no row of the table adds nothing.
KERNEL(EmbeddingGradient) {
    ARGUMENTS;
    const int64_t places = given.elements(0), words = given.size(2, 0), columns = given.size(2, 1);
    const int32_t* const ids = given.ints(0);
    const float *const drows = given.floats(1), *const dtable = given.floats(2);
    float* const result = given.floats(3);
    for_each(pieces(words, kRows), [=](int64_t piece) {
        const int64_t first = piece * kRows, end = std::min(words, first + kRows);
        bool used[kRows] = {};
        for (int64_t i = 0; i < places; ++i) {
            if (ids[i] < first || ids[i] >= end) continue;
            float* const row = result + ids[i] * columns;
            if (!used[ids[i] - first]) std::fill_n(row, columns, 0.0f);
            used[ids[i] - first] = true;
            add_row(drows + i * columns, columns, row);
        }
        for (int64_t word = first; word < end; ++word) {
            const float* const from = dtable + word * columns;
            float* const to = result + word * columns;
            if (used[word - first]) add_row(from, columns, to);
            else std::copy_n(from, columns, to);
        }
    });
    return 0;
}

}  // namespace pangu
