// What every kernel needs: its arguments as MindSpore passes them, and loops for several kinds of processors.
//
// Letters: T rows, I inputs, O outputs, H hidden, V vocabulary, B batch, N heads, S queries, C keys, d head size.
#pragma once
#include <cstdint>

// Compiles a function once for each of these kinds of processors; the process takes the best one that it can run.
// Such a function must be a plain loop over arrays, without templates and without calls that are not inlined.
#if defined(__x86_64__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif
#define INLINE inline __attribute__((always_inline))

// Begins the definition of a kernel, a function that MindSpore's Custom operator calls; it returns 0 if it did its
// work. The inputs come first in `data`, then the outputs; all are dense arrays in row-major order.
#define KERNEL(name) \
    extern "C" int name(int count, void** data, int* ranks, int64_t** shapes, const char**, void*, void*)

#define ARGUMENTS const pangu::Arguments given{count, data, ranks, shapes}

namespace pangu {

struct Arguments {
    int count;
    void** data;
    int* ranks;
    int64_t** shapes;

    float* floats(int i) const { return static_cast<float*>(data[i]); }
    int32_t* ints(int i) const { return static_cast<int32_t*>(data[i]); }
    int64_t size(int i, int axis) const { return shapes[i][axis]; }
    int64_t elements(int i) const {
        int64_t product = 1;
        for (int axis = 0; axis < ranks[i]; ++axis) product *= shapes[i][axis];
        return product;
    }
};

}  // namespace pangu
