// Reads memory as fast as the processor can: several streams a thread, with or without prefetch.
// Compiled by machine.py when it is needed.

#include <pthread.h>
#include <sched.h>

#include <chrono>
#include <cstddef>
#include <thread>
#include <vector>

namespace {

typedef float Line __attribute__((vector_size(64)));  // a cache line; the compiler splits it for AVX2 or NEON

// Adds up lines of STREAMS runs that lie one after another, all runs at the same pace.
template <int STREAMS, bool PREFETCH>
float read_part(const Line* data, size_t lines, size_t ahead) {
    const size_t run = lines / STREAMS;
    Line sums[STREAMS] = {};
    for (size_t i = 0; i < run; i++) {
        for (int s = 0; s < STREAMS; s++) {
            const Line* place = data + s * run + i;
            if (PREFETCH) __builtin_prefetch(place + ahead);
            sums[s] += *place;
        }
    }
    float total = 0;
    for (int s = 0; s < STREAMS; s++)
        for (int k = 0; k < 16; k++) total += sums[s][k];
    return total;
}

template <int STREAMS>
float read_streams(const Line* data, size_t lines, size_t ahead) {
    return ahead ? read_part<STREAMS, true>(data, lines, ahead) : read_part<STREAMS, false>(data, lines, 0);
}

float read_by(int streams, const Line* data, size_t lines, size_t ahead) {
    switch (streams) {
        case 1: return read_streams<1>(data, lines, ahead);
        case 2: return read_streams<2>(data, lines, ahead);
        case 4: return read_streams<4>(data, lines, ahead);
        case 8: return read_streams<8>(data, lines, ahead);
        default: return read_streams<16>(data, lines, ahead);
    }
}

// Pins the calling thread to the n-th of the processors that the process may use.
void pin(int n) {
    cpu_set_t allowed, one;
    sched_getaffinity(0, sizeof allowed, &allowed);
    n %= CPU_COUNT(&allowed);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &allowed) && n-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            pthread_setaffinity_np(pthread_self(), sizeof one, &one);
            return;
        }
    }
}

}  // namespace

// Seconds to read `bytes` (a multiple of 64 x threads x 16) at `data`, which is aligned to 64 bytes.
// `ahead`: cache lines by which the prefetch leads, 0 for none.
extern "C" double read_seconds(const void* data, size_t bytes, int threads, int streams, size_t ahead, int pinned) {
    const size_t lines = bytes / sizeof(Line) / threads;
    std::vector<float> totals(threads * 16);
    std::vector<std::thread> workers;
    const auto began = std::chrono::steady_clock::now();
    for (int t = 0; t < threads; t++) {
        workers.emplace_back([=, &totals] {
            if (pinned) pin(t);
            totals[t * 16] = read_by(streams, static_cast<const Line*>(data) + t * lines, lines, ahead);
        });
    }
    for (auto& worker : workers) worker.join();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    volatile float kept = 0;
    for (float each : totals) kept = kept + each;
    return took.count();
}
