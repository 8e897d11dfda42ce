#include "phases.h"

#include <algorithm>
#include <atomic>
#include <memory>

#include "threads.h"

namespace pangu {
namespace {

constexpr int64_t kAhead = 1 << 15;  // floats of a run that are fetched while a thread waits: all runs fill half a cache

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
        const int64_t length = std::min(next.length, kAhead);
        Spin spin;
        for (int64_t at = 0; !ready(); at += Streams::kLine)
            if (at < length)
                next.fetch(at);
            else
                spin.turn();
    }

    const Phase* const phases_;
    const int64_t count_;
    const std::unique_ptr<Counter[]> done_;
    Counter taken_;
};

// Makes helpers fetch the beginning of a phase until the next call.
void fetch_beginning(const Phase& first) {
    for (int64_t helper = 1; helper < thread_count(); ++helper) {
        Streams read = first.reads(std::min(2 * helper, first.count - 1));  // by then each thread has taken two pieces
        read.length = std::min(read.length, kAhead);
        fetch_while_waiting(helper, read);
    }
}

}  // namespace

void run_phases(const Phase* phases, int64_t count, bool again) {
    Run run(phases, count);
    for_each(thread_count(), [&](int64_t) { run.work(); });
    if (again && phases[0].reads) fetch_beginning(phases[0]);
}

}  // namespace pangu
