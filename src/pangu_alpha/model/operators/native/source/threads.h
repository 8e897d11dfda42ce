// Runs the pieces of a kernel on all threads of the process.
//
// What a piece computes must not depend on the thread, nor on how many threads there are: then a kernel's result
// is the same, bit for bit, with any number of threads.
#pragma once
#include <cstdint>
#include <functional>
#include <thread>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "streams.h"

namespace pangu {

// Whether a thread takes numbers below the smallest normal one for 0. MindSpore 2.9 calls kernels from threads that
// differ in it, and chooses the thread by time; the pieces of a kernel compute as the thread that calls it.
class FloatMode {
  public:
    static uint32_t now() {
#if defined(__x86_64__)
        return _mm_getcsr();
#else
        return 0;
#endif
    }

    static void set([[maybe_unused]] uint32_t mode) {
#if defined(__x86_64__)
        if (_mm_getcsr() != mode) _mm_setcsr(mode);
#endif
    }

    // In this scope they are taken for 0, whichever thread it is.
    FloatMode() : before_(now()) { set(before_ | kFlush); }
    ~FloatMode() { set(before_); }
    FloatMode(const FloatMode&) = delete;
    FloatMode& operator=(const FloatMode&) = delete;

  private:
    static constexpr uint32_t kFlush = 0x8040;  // of results, and of factors
    const uint32_t before_;
};

// Calls piece(0) ... piece(count - 1), each once, and returns when all are done. A call from within a piece, or
// while another kernel uses the threads, computes its pieces in the calling thread.
void for_each(int64_t count, const std::function<void(int64_t)>& piece);

// What a helper, from 1 on, fetches from now until the next call of for_each.
void fetch_while_waiting(int64_t helper, Streams next);

// Number of threads that for_each uses, the calling one included.
int64_t thread_count();

// Waiting for another thread without giving the core away, unless it takes so long that the other one has none.
class Spin {
  public:
    void turn() {
        if (++turns_ > kTurns) return std::this_thread::yield();
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }

  private:
    static constexpr int kTurns = 4096;  // about 100 microseconds
    int turns_ = 0;
};

// Number of pieces of `size` that cover `count`.
inline int64_t pieces(int64_t count, int64_t size) { return (count + size - 1) / size; }

}  // namespace pangu
