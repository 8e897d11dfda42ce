// The gradient of a table of which rows were looked up by index.
#include <algorithm>
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

// (dy [T, H], ids int32 [B, S], the table [V, H]) -> its gradient [V, H]
KERNEL(LookUpGradient) { return gradient({count, data, ranks, shapes}, nullptr); }

// (dy [T, H], ids int32 [B, S], what is added to the gradient of the table [V, H]) -> the sum [V, H]
KERNEL(ForkedLookUpGradient) {
    ARGUMENTS;
    return gradient(given, given.floats(2));
}

}  // namespace pangu
