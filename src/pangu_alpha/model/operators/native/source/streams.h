// Memory that is read as several runs at the same time.
#pragma once
#include <cstdint>

namespace pangu {

constexpr int64_t kStreams = 4;

struct Streams {
    const float* data = nullptr;  // null for none
    int64_t pitch = 0;            // floats from the beginning of a run to that of the next one
    int64_t length = 0;           // floats of a run

    // Fetches a cache line of each run into the thread's own cache. An address that is no memory does no harm.
    void fetch(int64_t at) const {
        for (int64_t k = 0; k < kStreams; ++k) __builtin_prefetch(data + k * pitch + at, 0, 2);
    }

    static constexpr int64_t kLine = 16;  // floats of a cache line
};

}  // namespace pangu
