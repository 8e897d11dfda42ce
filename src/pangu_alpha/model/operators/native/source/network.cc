// The whole network for one new token of each of few rows, from ids to logits, as one run of phases.
#include "layer.h"
#include "norm.h"

namespace pangu {
namespace {

class Network {
  public:
    explicit Network(const Arguments& given)
        : ids_(given.ints(0)), norm_first_(*given.ints(3) != 0), words_(given.floats(4)),
          positions_(given.floats(5)), query_positions_(given.floats(6)), vocabulary_(given.size(4, 0)),
          length_(given.size(5, 0)), norm_{given.floats(7), given.floats(8)},
          table_{words_, nullptr, given.size(4, 1), vocabulary_}, logits_(given.floats(given.count - 1)) {
        const int count = (given.count - kFirst - 1) / Layer::kTensors;
        const int64_t rows = given.size(0, 0), hidden = given.size(4, 1), wide = given.size(kFirst + 14, 0);
        float* const memory = scratch(Use::between, rows * (5 * hidden + wide));
        const auto part = [=](int64_t i) { return memory + i * rows * hidden; };
        all_ = {reinterpret_cast<const Place*>(given.ints(1)), rows, hidden, *given.floats(2),
                part(0), part(1), part(2), part(3), part(5)};
        asks_ = part(4);
        layers_.reserve(count);
        for (int i = 0; i < count; ++i)
            layers_.emplace_back(given, kFirst + i * Layer::kTensors, all_, i + 1 < count ? nullptr : asks_);
    }

    bool inputs_exist() const {
        for (int64_t i = 0; i < all_.rows; ++i)
            if (ids_[i] < 0 || ids_[i] >= vocabulary_ || position(i) >= length_) return false;
        return std::all_of(layers_.begin(), layers_.end(), [](const Layer& each) { return each.places_exist(); });
    }

    void run() const {
        for (int64_t i = 0; i < all_.rows; ++i) embed(i);
        std::vector<Phase> phases;
        for (const Layer& layer : layers_) {
            if (norm_first_ && &layer == &layers_.back()) phases.push_back(normalize_x());
            layer.append(phases);
        }
        phases.push_back(logits());
        run_phases(phases.data(), std::ssize(phases), true);
    }

  private:
    static constexpr int kFirst = 9;  // tensor of the first layer

    int64_t position(int64_t i) const { return all_.places[i].slot - all_.places[i].start; }

    void embed(int64_t i) const {
        const int64_t hidden = all_.hidden;
        const float *const word = words_ + ids_[i] * hidden, *const place = positions_ + position(i) * hidden;
        std::transform(word, word + hidden, place, all_.x + i * hidden, std::plus<float>());
        std::copy_n(query_positions_ + position(i) * hidden, hidden, asks_ + i * hidden);
    }

    // x is normalised before the query layer, whose residual connection begins there.
    Phase normalize_x() const {
        Phase phase;
        phase.count = 1;
        phase.work = [this](int64_t, Streams) {
            all_.normalize_all(all_.x, norm_);
            std::copy_n(all_.normed(), all_.rows * all_.hidden, all_.x);
        };
        return phase;
    }

    Phase logits() const {
        Phase phase = table_.phase();
        if (!norm_first_) phase.enter = [this] { all_.normalize_all(all_.x, norm_); };
        phase.work = [this](int64_t piece, Streams next) {
            multiply_few(norm_first_ ? all_.x : all_.normed(), all_.hidden, all_.rows, all_.hidden, table_.part(piece),
                         all_.hidden, table_.width(piece), next, logits_ + table_.first(piece), vocabulary_);
        };
        return phase;
    }

    const int32_t* const ids_;
    const bool norm_first_;
    const float *const words_, *const positions_, *const query_positions_;
    const int64_t vocabulary_, length_;
    const Norm norm_;
    const Linear table_;
    float *const logits_, *asks_;
    Positions all_;
    std::vector<Layer> layers_;
};

}  // namespace

// (ids int32 [T], places int32 [T, 3] of row, slot and first visible slot, epsilon [1], int32 [1] that is not 0 if the
// final norm comes before the query layer, tables of words [V, H], positions [P, H] and the query layer's positions
// [P, H], gamma and beta [H] of the final norm, and the tensors of each layer, of which the last is the query layer)
// -> logits [T, V]. It writes the caches in place; no two places may have the same row and slot.
KERNEL(CachedNetwork) {
    ARGUMENTS;
    const Network network(given);
    if (!network.inputs_exist()) return 1;
    network.run();
    return 0;
}

}  // namespace pangu
