#include "product.h"

#include <dlfcn.h>

namespace pangu {
namespace {

using Sgemm = int (*)(char, char, int64_t, int64_t, int64_t, float, const float*, int64_t, const float*, int64_t,
                      float, float*, int64_t);

// MindSpore has loaded the library by the time a kernel runs. Without a thread pool of the caller's, this build
// of oneDNN computes in the calling thread.
Sgemm find() {
    void* library = dlopen("libdnnl.so.3", RTLD_NOW | RTLD_NOLOAD);
    if (!library) library = dlopen("libdnnl.so.3", RTLD_NOW);
    return library ? reinterpret_cast<Sgemm>(dlsym(library, "dnnl_sgemm")) : nullptr;
}

}  // namespace

bool multiply(int64_t rows, int64_t columns, int64_t inner, float a, Matrix A, Matrix B, float b, float* C,
              int64_t stride) {
    static const Sgemm sgemm = find();
    return sgemm && sgemm(A.transposed ? 'T' : 'N', B.transposed ? 'T' : 'N', rows, columns, inner, a, A.data,
                          A.stride, B.data, B.stride, b, C, stride) == 0;
}

}  // namespace pangu

// 0 if products can be computed here.
extern "C" int pangu_kernels_ready() {
    const float one = 1;
    float result = 0;
    return !(pangu::multiply(1, 1, 1, 1, {&one, 1}, {&one, 1}, 0, &result, 1) && result == 1);
}
