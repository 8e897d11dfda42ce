#include "threads.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

namespace pangu {
namespace {

constexpr int kSpins = 20000;  // looks for a next kernel, about half a millisecond, before a thread sleeps
constexpr int64_t kFetching = 64;  // helpers that fetch while they wait

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
        for (int64_t i = 1; i <= helpers_; ++i) std::thread([this, i] { help(i); }).detach();
    }

    void run(int64_t count, const std::function<void(int64_t)>& piece) {
        // While the round is closed, a helper that is late can take no piece of it, nor of the last one.
        const uint64_t round = ((state_.load(std::memory_order_relaxed) >> 32) + 1) << 32;
        state_.store(round | kClosed);
        for (int64_t i = 0; i < std::min(helpers_, kFetching); ++i) next_[i].store(nullptr, std::memory_order_relaxed);
        piece_.store(&piece);
        mode_.store(FloatMode::now());
        count_.store(count);
        done_.store(0);
        state_.store(round);
        rounds_.fetch_add(1);
        rounds_.notify_all();
        take();
        for (Spin wait; done_.load(std::memory_order_acquire) != count;) wait.turn();
    }

    void fetch(int64_t helper, Streams next) {
        if (helper < 1 || helper > std::min(helpers_, kFetching)) return;
        pitch_.store(next.pitch, std::memory_order_relaxed);
        length_.store(next.length, std::memory_order_relaxed);
        next_[helper - 1].store(next.data, std::memory_order_relaxed);
    }

  private:
    static constexpr uint64_t kClosed = 0xffffffff;

    // Computes pieces as long as there are any. A helper that never took one need not wake for the kernel to end.
    void take() {
        for (uint64_t state = state_.load();;) {
            const auto* const piece = piece_.load();
            const int64_t index = static_cast<int64_t>(state & kClosed);
            if (index >= count_.load()) return;
            if (!state_.compare_exchange_weak(state, state + 1)) continue;
            FloatMode::set(mode_.load());  // that of the calling thread, so that all pieces compute the same
            (*piece)(index);
            done_.fetch_add(1, std::memory_order_release);
            state = state_.load();
        }
    }

    void help(int64_t number) {
        for (uint32_t seen = 0;;) {
            for (int64_t i = 0, at = 0; i < kSpins && rounds_.load() == seen; ++i)
                if (fetched(number, at)) pause();
            rounds_.wait(seen);
            seen = rounds_.load();
            take();
        }
    }

    // Fetches a bit more of what comes next; true if there is nothing more.
    bool fetched(int64_t number, int64_t& at) const {
        const float* const data = number <= kFetching ? next_[number - 1].load(std::memory_order_relaxed) : nullptr;
        const Streams next{data, pitch_.load(std::memory_order_relaxed), length_.load(std::memory_order_relaxed)};
        if (!data || at >= next.length) return true;
        next.fetch(at);
        at += Streams::kLine;
        return false;
    }

    const int64_t helpers_;
    std::atomic<const std::function<void(int64_t)>*> piece_{nullptr};
    std::atomic<int64_t> count_{0}, done_{0};
    std::atomic<uint32_t> mode_{0};
    std::atomic<uint64_t> state_{0};  // number of the round, and in the lower half that of its next piece
    std::atomic<uint32_t> rounds_{0};
    std::atomic<const float*> next_[kFetching] = {};  // what each helper fetches while it waits
    std::atomic<int64_t> pitch_{0}, length_{0};       // of all of them; one that does not fit costs only time
};

std::mutex in_use;
thread_local bool inside = false;

Threads& all_threads() {
    static Threads* const threads = new Threads;  // never destroyed: its threads outlive static objects
    return *threads;
}

}  // namespace

int64_t thread_count() { return wanted; }

void for_each(int64_t count, const std::function<void(int64_t)>& piece) {
    std::unique_lock<std::mutex> hold(in_use, std::defer_lock);
    if (count > 1 && wanted > 1 && !inside && hold.try_lock()) {
        Threads& threads = all_threads();
        static const pid_t owner = getpid();
        if (getpid() == owner) {  // a forked child has no helpers
            inside = true;
            threads.run(count, piece);
            inside = false;
            return;
        }
    }
    for (int64_t i = 0; i < count; ++i) piece(i);
}

void fetch_while_waiting(int64_t helper, Streams next) {
    if (wanted > 1) all_threads().fetch(helper, next);
}

}  // namespace pangu

// Says how many threads the kernels may use, before the first of them runs.
extern "C" void pangu_use_threads(int count) { pangu::wanted = count > 1 ? count : 1; }

extern "C" int pangu_threads() { return static_cast<int>(pangu::wanted); }
