// Writes into the cache of keys and values, in place. R is its number of rows.
#include <algorithm>

#include "kernel.h"
#include "threads.h"

namespace pangu {

// (cache [R, C, H], new [B*S, H], places int32 [B, N, S, 3] of row, head and slot) -> [1]. It stores the new entries in
// their slots.
KERNEL(StoreInCache) {
    ARGUMENTS;
    const int64_t rows = given.size(0, 0), slots = given.size(0, 1), hidden = given.size(0, 2);
    const int64_t batch = given.size(2, 0), heads = given.size(2, 1), length = given.size(2, 2);
    float* const cache = given.floats(0);
    const float* fresh = given.floats(1);
    for (int64_t i = 0; i < batch * length; ++i) {
        const int32_t* const place = given.ints(2) + (i / length * heads * length + i % length) * 3;
        const int64_t row = place[0], slot = place[2];
        if (row < 0 || row >= rows || slot < 0 || slot >= slots) return 1;
        std::copy_n(fresh + i * hidden, hidden, cache + (row * slots + slot) * hidden);
    }
    *given.floats(3) = 0;
    return 0;
}

// (cache [R, C, H], numbers int32 [3] of source, destination and slots) -> [1]. It copies the first slots of one row to
// another.
KERNEL(CopyInCache) {
    ARGUMENTS;
    const int64_t rows = given.size(0, 0), slots = given.size(0, 1), hidden = given.size(0, 2);
    const int64_t source = given.ints(1)[0], target = given.ints(1)[1], length = given.ints(1)[2];
    if (source < 0 || source >= rows || target < 0 || target >= rows || length < 0 || length > slots) return 1;
    float* const cache = given.floats(0);
    constexpr int64_t kSlots = 64;  // of a piece
    for_each(source == target ? 0 : pieces(length, kSlots), [=](int64_t piece) {
        const int64_t slot = piece * kSlots, count = std::min(kSlots, length - slot);
        std::copy_n(cache + (source * slots + slot) * hidden, count * hidden, cache + (target * slots + slot) * hidden);
    });
    *given.floats(2) = 0;
    return 0;
}

}  // namespace pangu
