// Work in several phases, of which each needs the results of those before it, without the threads leaving it.
#pragma once
#include <cstdint>
#include <functional>

#include "streams.h"

namespace pangu {

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
// the thread. A thread that has to wait fetches what its next piece reads; with `again`, helpers fetch afterwards what
// the first phase reads, because the same phases will be run again.
void run_phases(const Phase* phases, int64_t count, bool again = false);

}  // namespace pangu
