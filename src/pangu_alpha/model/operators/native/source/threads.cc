#include "threads.h"

#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <thread>

namespace pangu {
namespace {

constexpr int kSpins = 2000;  // looks for a next kernel, about 50 microseconds, before a thread sleeps

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

int usable_threads() {
    cpu_set_t set;
    const int usable = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    const char* text = std::getenv("OMP_NUM_THREADS");
    const int wished = text ? std::atoi(text) : 0;
    return wished > 0 ? wished : usable;
}

// Threads that live as long as the process. They are started by the first kernel with more than one piece.
class Threads {
  public:
    Threads() : helpers_(static_cast<int>(thread_count()) - 1) {
        for (int i = 0; i < helpers_; ++i) std::thread([this] { help(); }).detach();
    }

    void run(int64_t count, const std::function<void(int64_t)>& piece) {
        piece_ = &piece;
        count_ = count;
        next_.store(0, std::memory_order_relaxed);
        running_.store(helpers_, std::memory_order_relaxed);
        round_.fetch_add(1, std::memory_order_release);
        round_.notify_all();
        take();
        while (running_.load(std::memory_order_acquire) != 0) pause();
    }

    int helpers() const { return helpers_; }

  private:
    void take() {
        for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) (*piece_)(i);
    }

    void help() {
        for (uint32_t seen = 0;;) {
            for (int i = 0; i < kSpins && round_.load(std::memory_order_acquire) == seen; ++i) pause();
            round_.wait(seen, std::memory_order_acquire);
            seen = round_.load(std::memory_order_acquire);
            take();
            running_.fetch_sub(1, std::memory_order_release);
        }
    }

    const int helpers_;
    const std::function<void(int64_t)>* piece_ = nullptr;
    int64_t count_ = 0;
    std::atomic<int64_t> next_{0};
    std::atomic<int> running_{0};
    std::atomic<uint32_t> round_{0};
};

std::mutex in_use;
thread_local bool inside = false;

}  // namespace

int64_t thread_count() {
    static const int64_t count = usable_threads();
    return count;
}

void for_each(int64_t count, const std::function<void(int64_t)>& piece) {
    std::unique_lock<std::mutex> hold(in_use, std::defer_lock);
    if (count > 1 && !inside && hold.try_lock()) {
        static Threads* threads = new Threads;  // never destroyed: its threads outlive static objects
        static const pid_t owner = getpid();
        if (threads->helpers() > 0 && getpid() == owner) {  // a forked child has no helpers
            inside = true;
            threads->run(count, piece);
            inside = false;
            return;
        }
    }
    for (int64_t i = 0; i < count; ++i) piece(i);
}

}  // namespace pangu
