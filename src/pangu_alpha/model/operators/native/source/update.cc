// The sum of squares of a tensor, and an update of all parameters by AdamW that clips, decays and writes in place.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "kernel.h"
#include "threads.h"

namespace pangu {
namespace {

constexpr int64_t kElements = 65536;  // elements of a piece

FOR_EACH_PROCESSOR float squares(const float* x, int64_t count) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; ++i) sum += x[i] * x[i];
    return sum;
}

// What the update of all parameters shares; `decay` is that of a parameter which is decayed.
struct Recipe {
    float factor, rate, beta1, beta2, epsilon, decay;
};

FOR_EACH_PROCESSOR void adamw(float* parameter, float* moment1, float* moment2, const float* gradient, Recipe recipe,
                              int64_t count) {
    const auto [factor, rate, beta1, beta2, epsilon, decay] = recipe;
    for (int64_t i = 0; i < count; ++i) {
        const float g = gradient[i] * factor;
        const float m = beta1 * moment1[i] + (1 - beta1) * g;
        const float v = beta2 * moment2[i] + (1 - beta2) * g * g;
        moment1[i] = m;
        moment2[i] = v;
        parameter[i] -= rate * (m / (std::sqrt(v) + epsilon) + decay * parameter[i]);
    }
}

// Sum of what the pieces of a tensor add up to.
float total(const float* parts, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += parts[i];
    return static_cast<float>(sum);
}

// n parameters with their moments and gradients, cut into pieces that threads take one by one, so that they share all
// of them evenly, however small some are.
class Tensors {
  public:
    Tensors(const Arguments& given, int number) : given_(given), number_(number), firsts_(number + 1) {
        for (int i = 0; i < number; ++i) {
            const int64_t elements = given.elements(i);
            firsts_[i] = static_cast<int64_t>(all_.size());
            for (int64_t at = 0; at < elements; at += kElements) all_.push_back({i, at, std::min(kElements, elements - at)});
        }
        firsts_[number] = static_cast<int64_t>(all_.size());
    }

    int number() const { return number_; }

    // The sum of the gradients' square sums, in the order of the parameters.
    float square_sum() const {
        std::vector<float> parts(all_.size());
        for_each(static_cast<int64_t>(all_.size()), [&](int64_t i) {
            parts[i] = squares(of(3, all_[i]), all_[i].size);
        });
        float sum = 0;
        for (int i = 0; i < number_; ++i) sum += total(parts.data() + firsts_[i], firsts_[i + 1] - firsts_[i]);
        return sum;
    }

    // It begins with what was read last, which may still be in the cache.
    void update(Recipe recipe, const float* decayed) const {
        for_each(static_cast<int64_t>(all_.size()), [&](int64_t i) {
            const Piece& piece = all_[all_.size() - 1 - i];
            Recipe own = recipe;
            own.decay *= decayed[piece.tensor];
            adamw(of(0, piece), of(1, piece), of(2, piece), of(3, piece), own, piece.size);
        });
    }

  private:
    struct Piece {
        int tensor;
        int64_t begin, size;
    };

    // A piece of the parameters (0), the moments (1, 2), or the gradients (3).
    float* of(int kind, const Piece& piece) const { return given_.floats(kind * number_ + piece.tensor) + piece.begin; }

    const Arguments& given_;
    const int number_;
    std::vector<Piece> all_;
    std::vector<int64_t> firsts_;  // number of each tensor's first piece
};

std::atomic<int (*)()> before_update{nullptr};

}  // namespace

// (x) -> sum of x^2, scalar
KERNEL(SquareSum) {
    ARGUMENTS;
    const int64_t elements = given.elements(0);
    const float* x = given.floats(0);
    std::vector<float> parts(pieces(elements, kElements));
    float* const sums = parts.data();
    for_each(static_cast<int64_t>(parts.size()), [=](int64_t i) {
        sums[i] = squares(x + i * kElements, std::min(kElements, elements - i * kElements));
    });
    *given.floats(1) = total(sums, static_cast<int64_t>(parts.size()));
    return 0;
}

// (n parameters, n first moments, n second moments, n gradients, whether each is decayed [n], weight, scale, largest,
// recipe [3]: rate, epsilon, decay, constants [3]: beta1, beta2, largest norm after clipping) -> norm [1], applied bool
// [1]. It changes the first 3 n in place if it applies the update. Everything but the sums is what training/step.py and
// training/optimizer.py compute, operation by operation.
KERNEL(ClippedAdamW) {
    ARGUMENTS;
    const FloatMode mode;  // a run that resumes must not depend on MindSpore's choice of a thread
    const Tensors tensors(given, (count - 8) / 4);
    const int at = 4 * tensors.number();
    const float *decayed = given.floats(at), *recipe = given.floats(at + 4), *constants = given.floats(at + 5);
    const float weight = *given.floats(at + 1), scale = *given.floats(at + 2), largest = *given.floats(at + 3);
    const float unscale = 1.0f / (scale * (weight + 1e-5f));
    const float norm = std::sqrt(tensors.square_sum()) * unscale;
    const float factor = unscale / std::max(norm / constants[2], 1.0f);
    const auto call = before_update.load();
    const bool applied = !(call && call() != 0) && norm <= largest;  // not if the norm is NaN
    *given.floats(count - 2) = norm;
    *static_cast<bool*>(given.data[count - 1]) = applied;
    if (applied) tensors.update({factor, recipe[0], constants[0], constants[1], recipe[1], recipe[2]}, decayed);
    return 0;
}

}  // namespace pangu

// Has a function called before parameters and moments change; null for none. If it does not return 0, they do not.
extern "C" void pangu_before_update(int (*function)()) { pangu::before_update = function; }
