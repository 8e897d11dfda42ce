// Work in several phases, of which each needs the results of those before it, without the threads leaving it.
#pragma once
#include <cstdint>
#include <functional>

namespace pangu {

constexpr int64_t kStreams = 4;

// Memory that is read as kStreams runs at the same time.
struct Streams {
    const float* data = nullptr;  // null for none
    int64_t pitch = 0;            // floats from the beginning of a run to that of the next one
    int64_t length = 0;           // floats of a run
};

struct Phase {
    int64_t count;  // pieces

    // Computes a piece. `next` is what the thread will read afterwards.
    std::function<void(int64_t piece, Streams next)> work;

    // What a piece reads that no earlier phase writes; empty for nothing.
    std::function<Streams(int64_t piece)> reads;

    // Called by every thread that takes part before its first piece, when the phases before are complete.
    std::function<void()> enter;
};

// Runs phases on all threads of the process, each after the one before it. What a piece computes must not depend on
// the thread. A thread that has to wait fetches what its next piece reads.
void run_phases(const Phase* phases, int64_t count);

}  // namespace pangu
