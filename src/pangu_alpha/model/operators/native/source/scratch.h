// Memory that a thread keeps from one kernel to the next.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace pangu {

// For what memory is used; what is in use at the same time has names of its own.
enum class Use {
    all, all_lines, own, small_panels, small_lines, keys, values, columns, weights, gradients, sums, normed, scores, between, kUses
};

// At least `size` floats of the calling thread, from an address that is a multiple of 64 on. What they hold is not
// defined. They are valid until the thread asks for memory for the same use. Hidden, because the loader would otherwise
// share the static table among all libraries of a process, also with one of another version that has other uses.
__attribute__((visibility("hidden"))) inline float* scratch(Use use, int64_t size) {
    struct Free {
        void operator()(float* data) const { std::free(data); }
    };
    struct Kept {
        std::unique_ptr<float, Free> data;
        int64_t size = 0;
    };
    static thread_local Kept all[static_cast<int>(Use::kUses)];
    Kept& kept = all[static_cast<int>(use)];
    if (kept.size < size) {
        kept.data.reset();
        kept.data.reset(static_cast<float*>(std::aligned_alloc(64, (size * sizeof(float) + 63) / 64 * 64)));
        if (!kept.data) throw std::bad_alloc();
        kept.size = size;
    }
    return kept.data.get();
}

}  // namespace pangu
