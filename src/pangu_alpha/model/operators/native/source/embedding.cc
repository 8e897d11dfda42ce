// Rows of a table by index, and the gradient of the table.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "kernel.h"
#include "threads.h"

namespace pangu {
namespace {

constexpr int64_t kRows = 32;  // rows of the table in a piece

FOR_EACH_PROCESSOR void add(const float* x, int64_t count, float* y) {
    for (int64_t i = 0; i < count; ++i) y[i] += x[i];
}

// y = x + 0, which turns -0 into 0
FOR_EACH_PROCESSOR void add_nothing(const float* x, int64_t count, float* y) {
    for (int64_t i = 0; i < count; ++i) y[i] = x[i] + 0.0f;
}

// Which places hold each index of [0, count), from the first place to the last one.
class Places {
  public:
    Places(const int32_t* ids, int64_t number, int64_t count) : begins_(count + 2), places_(number) {
        const auto known = [=](int64_t i) { return ids[i] >= 0 && ids[i] < count; };
        for (int64_t i = 0; i < number; ++i)
            if (known(i)) ++begins_[ids[i] + 2];
        for (int64_t id = 2; id <= count; ++id) begins_[id] += begins_[id - 1];
        for (int64_t i = 0; i < number; ++i)
            if (known(i)) places_[begins_[ids[i] + 1]++] = i;
    }

    const int64_t* begin(int64_t id) const { return places_.data() + begins_[id]; }
    const int64_t* end(int64_t id) const { return places_.data() + begins_[id + 1]; }

  private:
    std::vector<int64_t> begins_, places_;
};

// table [V, H] = the sums of the rows of dy [T, H] by index, and `more` [V, H] added to them if it is not null.
int gradient(const Arguments& given, const float* more) {
    const int64_t number = given.elements(1), rows = given.size(2, 0), columns = given.size(2, 1);
    const float* const dy = given.floats(0);
    float* const table = given.floats(3);
    const Places places(given.ints(1), number, rows);
    for_each(pieces(rows, kRows), [&](int64_t piece) {
        for (int64_t id = piece * kRows; id < std::min(rows, (piece + 1) * kRows); ++id) {
            float* const row = table + id * columns;
            const int64_t *const begin = places.begin(id), *const end = places.end(id);
            if (begin == end && more) {
                add_nothing(more + id * columns, columns, row);
                continue;
            }
            std::fill_n(row, columns, 0.0f);
            for (const int64_t* place = begin; place < end; ++place) add(dy + *place * columns, columns, row);
            if (more) add(more + id * columns, columns, row);
        }
    });
    return 0;
}

}  // namespace

// (table [V, H], ids int32 [B, S]) -> the rows [T, H]. As with Gather, an index below 0 counts from the end, and one that
// is none is an error.
KERNEL(LookUp) {
    ARGUMENTS;
    const int64_t number = given.elements(1), rows = given.size(0, 0), columns = given.size(0, 1);
    const float* const table = given.floats(0);
    const int32_t* const ids = given.ints(1);
    float* const found = given.floats(2);
    for (int64_t i = 0; i < number; ++i)
        if (ids[i] < -rows || ids[i] >= rows) {
            std::fprintf(stderr, "LookUp: index %d is not one of a table of %ld rows\n", ids[i], static_cast<long>(rows));
            return 1;
        }
    for_each(pieces(number, kRows), [=](int64_t piece) {
        for (int64_t i = piece * kRows; i < std::min(number, (piece + 1) * kRows); ++i)
            std::copy_n(table + (ids[i] < 0 ? ids[i] + rows : ids[i]) * columns, columns, found + i * columns);
    });
    return 0;
}

// (dy [T, H], ids int32 [B, S], the table [V, H]) -> its gradient [V, H]
KERNEL(LookUpGradient) { return gradient({count, data, ranks, shapes}, nullptr); }

// (dy [T, H], ids int32 [B, S], what is added to the gradient of the table [V, H]) -> the sum [V, H]
KERNEL(ForkedLookUpGradient) {
    ARGUMENTS;
    return gradient(given, given.floats(2));
}

}  // namespace pangu
