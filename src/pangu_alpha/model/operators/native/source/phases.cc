#include "phases.h"

#include <atomic>
#include <memory>

#include "threads.h"

namespace pangu {
namespace {

constexpr int64_t kLine = 16;  // floats of a cache line

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

struct alignas(64) Counter {
    std::atomic<int64_t> value{0};
};

// Pieces of all phases are taken in order. So the piece with the lowest number never waits, and one thread alone
// comes to the end as well.
class Run {
  public:
    Run(const Phase* phases, int64_t count) : phases_(phases), count_(count), done_(new Counter[count]) {}

    void work() {
        Place place = take(0, 0);
        for (int64_t entered = -1; place.phase < count_;) {
            const Phase& phase = phases_[place.phase];
            const Place after = take(place.phase, place.first);  // early, to know what is read next
            wait(place);
            if (phase.enter && entered != place.phase) phase.enter();
            entered = place.phase;
            phase.work(place.piece, reads(after));
            done_[place.phase].value.fetch_add(1, std::memory_order_release);
            place = after;
        }
    }

  private:
    struct Place {
        int64_t phase, piece, first;  // `first` is the number of the phase's first piece among those of all
    };

    Place take(int64_t phase, int64_t first) {
        const int64_t number = taken_.value.fetch_add(1, std::memory_order_relaxed);
        while (phase < count_ && number >= first + phases_[phase].count) first += phases_[phase++].count;
        return {phase, number - first, first};
    }

    Streams reads(const Place& place) const {
        if (place.phase == count_ || !phases_[place.phase].reads) return {};
        return phases_[place.phase].reads(place.piece);
    }

    void wait(const Place& place) const {
        if (place.phase == 0) return;
        const auto ready = [&, before = place.phase - 1] {
            return done_[before].value.load(std::memory_order_acquire) == phases_[before].count;
        };
        if (ready()) return;
        const Streams next = reads(place);
        for (int64_t j = 0; !ready(); j += kLine) {
            if (j >= next.length) pause();
            for (int64_t k = 0; j < next.length && k < kStreams; ++k)
                __builtin_prefetch(next.data + k * next.pitch + j, 0, 2);
        }
    }

    const Phase* const phases_;
    const int64_t count_;
    const std::unique_ptr<Counter[]> done_;
    Counter taken_;
};

}  // namespace

void run_phases(const Phase* phases, int64_t count) {
    Run run(phases, count);
    for_each(thread_count(), [&](int64_t) { run.work(); });
}

}  // namespace pangu
