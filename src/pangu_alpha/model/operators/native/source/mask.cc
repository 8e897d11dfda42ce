// Which positions may attend to which.
#include <algorithm>

#include "kernel.h"
#include "threads.h"

namespace pangu {
namespace {

constexpr int64_t kRows = 16;  // rows of a piece

// row[j] = 1 where a position of this document stands, else 0
FOR_EACH_PROCESSOR void compare(const int32_t* ids, int32_t document, int64_t count, float* row) {
    for (int64_t j = 0; j < count; ++j) row[j] = ids[j] == document ? 1.0f : 0.0f;
}

}  // namespace

// (documents int32 [B, S]) -> [B, S, S], 1 where a position may attend: to itself and to earlier ones of its document
KERNEL(DocumentMask) {
    ARGUMENTS;
    const int64_t length = given.size(0, 1), rows = given.size(0, 0) * length;
    const int32_t* const documents = given.ints(0);
    float* const mask = given.floats(1);
    for_each(pieces(rows, kRows), [=](int64_t piece) {
        for (int64_t i = piece * kRows; i < std::min(rows, (piece + 1) * kRows); ++i) {
            const int64_t place = i % length;
            float* const row = mask + i * length;
            compare(documents + i - place, documents[i], place + 1, row);
            std::fill(row + place + 1, row + length, 0.0f);
        }
    });
    return 0;
}

}  // namespace pangu
