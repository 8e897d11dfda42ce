#include "threads.h"

#include <unistd.h>

#include <atomic>
#include <mutex>
#include <thread>

namespace pangu {
namespace {

constexpr int kSpins = 20000;  // looks for a next kernel, about 50 microseconds, before a thread sleeps

int64_t wanted = 1;  // threads, the calling one included

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

// Threads that live as long as the process. They are started by the first kernel with more than one piece.
class Threads {
  public:
    Threads() : helpers_(thread_count() - 1) {
        for (int64_t i = 0; i < helpers_; ++i) std::thread([this] { help(); }).detach();
    }

    void run(int64_t count, const std::function<void(int64_t)>& piece) {
        // While the round is closed, a helper that is late can take no piece of it, nor of the last one.
        const uint64_t round = ((state_.load(std::memory_order_relaxed) >> 32) + 1) << 32;
        state_.store(round | kClosed);
        piece_.store(&piece);
        count_.store(count);
        done_.store(0);
        state_.store(round);
        rounds_.fetch_add(1);
        rounds_.notify_all();
        take();
        while (done_.load(std::memory_order_acquire) != count) pause();
    }

    int64_t helpers() const { return helpers_; }

  private:
    static constexpr uint64_t kClosed = 0xffffffff;

    // Computes pieces as long as there are any. A helper that never took one need not wake for the kernel to end.
    void take() {
        for (uint64_t state = state_.load();;) {
            const auto* const piece = piece_.load();
            const int64_t index = static_cast<int64_t>(state & kClosed);
            if (index >= count_.load()) return;
            if (!state_.compare_exchange_weak(state, state + 1)) continue;
            (*piece)(index);
            done_.fetch_add(1, std::memory_order_release);
            state = state_.load();
        }
    }

    void help() {
        for (uint32_t seen = 0;;) {
            for (int i = 0; i < kSpins && rounds_.load() == seen; ++i) pause();
            rounds_.wait(seen);
            seen = rounds_.load();
            take();
        }
    }

    const int64_t helpers_;
    std::atomic<const std::function<void(int64_t)>*> piece_{nullptr};
    std::atomic<int64_t> count_{0}, done_{0};
    std::atomic<uint64_t> state_{0};  // number of the round, and in the lower half that of its next piece
    std::atomic<uint32_t> rounds_{0};
};

std::mutex in_use;
thread_local bool inside = false;

}  // namespace

int64_t thread_count() { return wanted; }

void for_each(int64_t count, const std::function<void(int64_t)>& piece) {
    std::unique_lock<std::mutex> hold(in_use, std::defer_lock);
    if (count > 1 && wanted > 1 && !inside && hold.try_lock()) {
        static Threads* threads = new Threads;  // never destroyed: its threads outlive static objects
        static const pid_t owner = getpid();
        if (getpid() == owner) {  // a forked child has no helpers
            inside = true;
            threads->run(count, piece);
            inside = false;
            return;
        }
    }
    for (int64_t i = 0; i < count; ++i) piece(i);
}

}  // namespace pangu

// Says how many threads the kernels may use, before the first of them runs.
extern "C" void pangu_use_threads(int count) { pangu::wanted = count > 1 ? count : 1; }

extern "C" int pangu_threads() { return static_cast<int>(pangu::wanted); }
