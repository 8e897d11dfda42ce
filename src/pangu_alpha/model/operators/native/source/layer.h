// A transformer layer for few new positions, whose keys and values go to a cache, as phases of a run.
//
// A token of one row needs so little arithmetic that its time is that of reading the weights. As one run, the threads
// stay with the network from its first to its last product and fetch weights while they wait for each other. What a
// row gets does not depend on the other rows, nor on how many there are.
#pragma once
#include <algorithm>
#include <vector>

#include "few_rows.h"
#include "kernel.h"
#include "phases.h"
#include "scratch.h"
#include "threads.h"

namespace pangu {

struct Linear {
    const float *weight, *bias;
    int64_t inputs, outputs;

    static Linear of(const Arguments& given, int i) {
        return {given.floats(i), given.floats(i + 1), given.size(i, 1), given.size(i, 0)};
    }

    int64_t height() const { return few_rows_height(inputs, outputs); }
    int64_t count() const { return pieces(outputs, height()); }
    int64_t first(int64_t piece) const { return piece * height(); }
    int64_t width(int64_t piece) const { return std::min(height(), outputs - first(piece)); }
    const float* part(int64_t piece) const { return weight + first(piece) * inputs; }
    Streams reads(int64_t piece) const { return streams(part(piece), inputs, width(piece)); }

    // All pieces of the product, without its work.
    Phase phase() const {
        Phase phase;
        phase.count = count();
        phase.reads = [this](int64_t piece) { return reads(piece); };
        return phase;
    }
};

struct Norm {
    const float *gamma, *beta;
};

// Where a new position goes, and the first one that it attends to.
struct Place {
    int32_t row, slot, start;
};

// The new positions, and what the phases of all layers hand on; nothing of it is used by two layers at once.
struct Positions {
    const Place* places;
    int64_t rows, hidden;
    float epsilon;
    float *x, *queries, *attended, *middle, *wide;  // [T, H], the last one [T, F]

    // The normalised rows, which each thread makes for itself because that is quicker than to wait for another one.
    void normalize_all(const float* from, const Norm& norm) const;
    float* normed() const { return scratch(Use::normed, rows * hidden); }
};

// The layer's tensors. It reads x, and leaves its result there.
class Layer {
  public:
    static constexpr int kTensors = 18;

    // Its tensors begin with number `first`: caches of keys and values [R, N, C, d], gamma and beta [H] of both norms,
    // then weight [O, I] and bias [O] of query, key, value, output, up and down. `asks` [T, H] is that of which the
    // queries are made; null for the layer's own input.
    Layer(const Arguments& given, int first, const Positions& all, const float* asks)
        : all_(all), asks_(asks), key_cache_(given.floats(first)), value_cache_(given.floats(first + 1)),
          cached_rows_(given.size(first, 0)), num_heads_(given.size(first, 1)), slots_(given.size(first, 2)),
          head_size_(given.size(first, 3)), norm_{given.floats(first + 2), given.floats(first + 3)},
          norm2_{given.floats(first + 4), given.floats(first + 5)}, query_(Linear::of(given, first + 6)),
          key_(Linear::of(given, first + 8)), value_(Linear::of(given, first + 10)),
          output_(Linear::of(given, first + 12)), up_(Linear::of(given, first + 14)),
          down_(Linear::of(given, first + 16)) {}

    bool places_exist() const;

    // The phases refer to the layer, which must stay where it is until they are run.
    void append(std::vector<Phase>& phases) const;

  private:
    Phase project() const;
    Phase attend() const;
    Phase expand() const;
    Phase add_product(const Linear& linear, const float* from, const float* rest, float* to) const;

    template <typename Finish>
    void multiply(const Linear& linear, const float* from, int64_t piece, Streams next, const Finish& finish) const;
    void keep(const Linear& linear, int64_t i, int64_t first, int64_t width, const float* y) const;
    void attend(int64_t i, int64_t head) const;
    int64_t at(const Place& place, int64_t head, int64_t slot) const {
        return ((place.row * num_heads_ + head) * slots_ + slot) * head_size_;
    }

    const Positions& all_;
    const float* const asks_;
    float *const key_cache_, *const value_cache_;
    const int64_t cached_rows_, num_heads_, slots_, head_size_;
    const Norm norm_, norm2_;
    const Linear query_, key_, value_, output_, up_, down_;
};

}  // namespace pangu
