// Writes into the cache of keys and values, in place. R is its number of rows.
#include <algorithm>

#include "kernel.h"
#include "threads.h"

namespace pangu {
namespace {

// A cache [R, N, C, d], in which the slots of a head lie together.
struct Cache {
    float* const data;
    const int64_t rows, heads, slots, size;

    Cache(const Arguments& given, int i)
        : data(given.floats(i)), rows(given.size(i, 0)), heads(given.size(i, 1)), slots(given.size(i, 2)),
          size(given.size(i, 3)) {}

    bool has_row(int64_t row) const { return row >= 0 && row < rows; }
    float* at(int64_t row, int64_t head, int64_t slot) const {
        return data + ((row * heads + head) * slots + slot) * size;
    }
};

}  // namespace

// (cache [R, N, C, d], new [B*S, H], places int32 [B, N, S, 3] of row, head and slot) -> [1]. It stores the new entries
// in their slots.
KERNEL(StoreInCache) {
    ARGUMENTS;
    const Cache cache(given, 0);
    const int64_t batch = given.size(2, 0), length = given.size(2, 2);
    const float* fresh = given.floats(1);
    for (int64_t i = 0; i < batch * length; ++i) {
        const int32_t* const place = given.ints(2) + (i / length * cache.heads * length + i % length) * 3;
        const int64_t row = place[0], slot = place[2];
        if (!cache.has_row(row) || slot < 0 || slot >= cache.slots) return 1;
        for (int64_t head = 0; head < cache.heads; ++head, fresh += cache.size)
            std::copy_n(fresh, cache.size, cache.at(row, head, slot));
    }
    *given.floats(3) = 0;
    return 0;
}

// (cache [R, N, C, d], numbers int32 [3] of source, destination and slots) -> [1]. It copies the first slots of one row
// to another.
KERNEL(CopyInCache) {
    ARGUMENTS;
    const Cache cache(given, 0);
    const int64_t source = given.ints(1)[0], target = given.ints(1)[1], length = given.ints(1)[2];
    if (!cache.has_row(source) || !cache.has_row(target) || length < 0 || length > cache.slots) return 1;
    for_each(source == target ? 0 : cache.heads, [=](int64_t head) {
        std::copy_n(cache.at(source, head, 0), length * cache.size, cache.at(target, head, 0));
    });
    *given.floats(2) = 0;
    return 0;
}

}  // namespace pangu
