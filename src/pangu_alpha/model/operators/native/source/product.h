// Matrix products of float32 matrices, whose elements are multiplied as they are or rounded to bfloat16.
//
// An element of a product is a sum in one order: the inner dimension is cut into blocks of kBlock, each is summed
// up from its first to its last term, and the sums are added from the first block to the last. So the result does
// not depend on tiles, threads, or the width of the processor's vectors (as long as it multiplies and adds in one
// instruction). With bfloat16 a term of these sums is a pair of products, in a lane of its own (see bfloat16.h).
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "scratch.h"
#include "threads.h"

namespace pangu {

constexpr int64_t kBlock = 512;

// By the names of torch.set_float32_matmul_precision: factors as they are, or rounded to bfloat16, whose products
// are added up in float32.
enum class Precision { highest, medium };

// Whether this processor multiplies pairs of bfloat16 numbers.
bool has_bfloat16();

// A matrix in row-major order, or the transpose of one.
struct Matrix {
    const float* data;
    int64_t stride;  // elements from one stored row to the next
    bool transposed = false;

    // The part of the matrix that begins at this row and column.
    Matrix from(int64_t row, int64_t column) const {
        return {data + (transposed ? column * stride + row : row * stride + column), stride, transposed};
    }
};

// How the columns of a matrix B are divided into panels as wide as the accumulators of the processor's registers.
// A panel is stored row after row, filled up with zeros to whole vectors.
class Panels {
  public:
    explicit Panels(int64_t columns);

    int64_t count() const { return count_; }
    int64_t first_column(int64_t panel) const { return first_vector(panel) * lanes_; }
    int64_t vectors(int64_t panel) const { return first_vector(panel + 1) - first_vector(panel); }
    int64_t width(int64_t first, int64_t end) const {
        return std::min(columns_, first_column(end)) - first_column(first);
    }
    // The panel of a column.
    int64_t at(int64_t column) const {
        int64_t panel = column / lanes_ * count_ / vectors_;
        while (first_column(panel + 1) <= column) ++panel;
        return panel;
    }
    int64_t padded_columns() const { return vectors_ * lanes_; }

  private:
    int64_t first_vector(int64_t panel) const { return panel * vectors_ / count_; }

    int64_t columns_, lanes_, vectors_, count_;
};

// Rows of a matrix B by panels, each of which is stored as a whole.
struct Packed {
    const Panels& panels;
    int64_t stored;  // rows of a panel
    float* data;
    int64_t row, rows;  // the part that is meant

    Packed part(int64_t first, int64_t count) const { return {panels, stored, data, row + first, count}; }
    int64_t pitch(int64_t i) const { return panels.first_column(i + 1) - panels.first_column(i); }
    float* panel(int64_t i) const { return data + panels.first_column(i) * stored + row * pitch(i); }

    // Fills panel i from the rows of a matrix.
    void fill(int64_t i, Matrix from) const;

    // The same by pairs of rows, with as many rows of a matrix as there are, at most twice those of the panel.
    void fill_pairs(int64_t i, Matrix from, int64_t terms) const;

    static int64_t size(const Panels& panels, int64_t rows) { return panels.padded_columns() * rows; }
};

// The terms [first, end) of a sum.
struct Terms {
    int64_t first, end;
};

// Where the elements of a matrix A lie that is read row by row. The rows of a transpose are stored side by side, so
// that they are read one after the other.
struct Rows {
    static constexpr int64_t kLine = 8;  // rows that are stored side by side

    const float* data;
    int64_t line;   // elements from kLine rows to the next
    int64_t row;    // from one row of a line to the next
    int64_t inner;  // from one column to the next
    const Terms* terms = nullptr;  // of each line, those that are not 0 and so are added up; null for all

    // The part that begins at this row and column.
    Rows from(int64_t i, int64_t k) const {
        return {data + i / kLine * line + k * inner, line, row, inner, terms ? terms + i / kLine : nullptr};
    }

    Rows with(const Terms* of_lines) const { return {data, line, row, inner, of_lines}; }

    static Rows of(Matrix A) { return {A.data, kLine * A.stride, A.stride, 1}; }

    // The columns of a matrix, where they lie in the cache; others are stacked.
    static Rows across(Matrix A) { return {A.data, kLine, 1, A.stride}; }

    // Stores a transposed A in `to`, which holds size(rows, columns) floats.
    static Rows stack(Matrix A, int64_t rows, int64_t columns, float* to);

    // Stores an A, transposed or not, by pairs of columns.
    static Rows pair(Matrix A, int64_t rows, int64_t terms, float* to);
    static Rows stored(bool stacked, const float* data, int64_t columns) {
        return stacked ? Rows{data, kLine * columns, 1, kLine} : of({data, columns});
    }
    static int64_t size(int64_t rows, int64_t columns) { return pieces(rows, kLine) * kLine * columns; }
};

// C = A B, or C += A B, of some rows and the panels [first, end) in the calling thread, with A [rows, B.rows] and at
// most kBlock rows of B; C [rows, stride] begins at the first column of B. In medium precision A and B are pairs.
void multiply(Precision precision, int64_t rows, Rows A, const Packed& B, int64_t first, int64_t end, bool add, float* C, int64_t stride);

// The same for all columns and any number of rows of a B that is not packed.
void multiply(int64_t rows, int64_t columns, int64_t inner, Matrix A, Matrix B, bool add, float* C, int64_t stride);

// C [rows, columns] = A B. What threads read several times is packed once, and so small that it stays in the cache
// that they share; what only one of them reads it packs itself. Steps and blocks of the inner dimension are counted
// in lanes, each of which has kTerms terms.
struct Product {
    int64_t rows, columns, inner;
    Matrix A, B;
    float* C;
    Precision precision = Precision::highest;

    static constexpr int64_t kPacked = 1 << 21;  // floats that are packed for all threads at a time
    static constexpr int64_t kSmall = 1 << 20;   // lanes of an A that are worth storing anew for all
    static constexpr int64_t kRows = 64;         // of a tile
    static constexpr int64_t kPanels = 3;        // of a tile
    static constexpr int64_t kTiles = 4;         // for each thread

    bool by_pairs() const { return precision == Precision::medium; }
    bool stored_anew() const { return A.transposed || by_pairs(); }  // otherwise A is read where it lies
    int64_t terms() const { return by_pairs() ? 2 : 1; }             // of a lane
    int64_t lanes() const { return pieces(inner, terms()); }

    int64_t length(int64_t other) const {
        return std::min(lanes(), std::max<int64_t>(1, kPacked / other / kBlock) * kBlock);
    }

    // Calls work(k, inner) for each block of the inner dimension in [begin, end).
    template <typename Work>
    static void blocks(int64_t begin, int64_t end, const Work& work) {
        for (int64_t k = begin; k < end; k += kBlock) work(k, std::min(kBlock, end - k));
    }

    // For as many rows as columns or more: B is packed for all threads, and an A that is stored anew as well if it is
    // small.
    template <typename Finish>
    void by_rows(const Finish& finish) const {
        const Panels panels(columns);
        const int64_t all = lanes();
        const bool shared = !stored_anew() || rows * length(columns) <= kSmall;
        const int64_t down = pieces(rows, kRows);
        const int64_t across = parts(panels.count(), pieces(kTiles * thread_count(), down), shared);
        for (int64_t step = 0, end; step < all; step = end) {
            end = std::min(all, step + length(columns));
            const Packed packed{panels, end - step, scratch(Use::all, Packed::size(panels, end - step)), 0, end - step};
            for_each(panels.count(), [&](int64_t i) { fill(packed, i, step, 0); });
            const Rows whole = shared && stored_anew() ? store_all(step, end - step) : Rows::of(A.from(0, step));
            for_each(down * across, [&](int64_t i) {  // a thread keeps its part of B in its cache
                const int64_t row = i % down * kRows, height = std::min(kRows, rows - row), part = i / down;
                const int64_t first = part * panels.count() / across, last = (part + 1) * panels.count() / across;
                blocks(step, end, [&](int64_t k, int64_t count) {
                    const Rows a = shared ? whole.from(row, k - step)
                                          : store(row, height, k, count, scratch(Use::own, Rows::size(height, count)));
                    multiply(precision, height, a, packed.part(k - step, count), first, last, k > 0, C + row * columns, columns);
                });
                if (end == all) finish(row, height, panels.first_column(first), panels.width(first, last));
            });
        }
    }

    // For more columns: a thread packs its part of B; A is stored anew for all threads if it must be.
    template <typename Finish>
    void by_columns(const Finish& finish) const {
        const Panels panels(columns);
        const Turns turns(panels.count());
        const int64_t all = lanes();
        for (int64_t step = 0, end; step < all; step = end) {
            end = stored_anew() ? std::min(all, step + length(rows)) : all;
            const Rows a = stored_anew() ? store_all(step, end - step) : Rows::of(A.from(0, step));
            for_each(turns.count(), [&](int64_t i) {
                const int64_t first = turns.first(i), last = turns.first(i + 1);
                blocks(step, end, [&](int64_t k, int64_t count) {
                    const Panels own(panels.width(first, last));
                    const Packed packed{own, count, scratch(Use::own, Packed::size(own, count)), 0, count};
                    for (int64_t p = 0; p < own.count(); ++p) fill(packed, p, k, panels.first_column(first));
                    for (int64_t row = 0; row < rows; row += kRows)
                        multiply(precision, std::min(kRows, rows - row), a.from(row, k - step), packed, 0, own.count(), k > 0,
                                 C + row * columns + panels.first_column(first), columns);
                });
                if (end == all) finish(0, rows, panels.first_column(first), panels.width(first, last));
            });
        }
    }

    // How threads take turns at panels: kPanels at a time, and at the end single ones, so that no thread waits long for
    // another one that began the last part.
    class Turns {
      public:
        explicit Turns(int64_t panels)
            : single_(std::min(panels, 2 * thread_count())), wide_(pieces(panels - single_, kPanels)),
              panels_(panels) {}
        int64_t count() const { return wide_ + single_; }
        int64_t first(int64_t i) const {
            return i < wide_ ? i * (panels_ - single_) / wide_ : panels_ - single_ + i - wide_;
        }

      private:
        const int64_t single_, wide_, panels_;
    };

    // Number of parts of B: at least so many, as small as fits into a thread's own cache if that costs nothing, and
    // the same number for each thread.
    static int64_t parts(int64_t panels, int64_t least, bool small) {
        const int64_t threads = thread_count();
        const int64_t wanted = small ? std::max(least, pieces(panels, kPanels)) : least;
        return std::min(panels, pieces(wanted, threads) * threads);
    }

    // Fills panel i of rows of B, from lane k on.
    void fill(const Packed& packed, int64_t i, int64_t k, int64_t column) const {
        const Matrix from = B.from(k * terms(), column);
        if (by_pairs())
            packed.fill_pairs(i, from, std::min(packed.rows * terms(), inner - k * terms()));
        else
            packed.fill(i, from);
    }

    // Stores `count` lanes of some rows of A, from lane k on.
    Rows store(int64_t row, int64_t height, int64_t k, int64_t count, float* to) const {
        const Matrix from = A.from(row, k * terms());
        if (!by_pairs()) return Rows::stack(from, height, count, to);
        return Rows::pair(from, height, std::min(count * terms(), inner - k * terms()), to);
    }

    Rows store_all(int64_t k, int64_t count) const {
        float* const to = scratch(Use::all_lines, Rows::size(rows, count));
        for_each(pieces(rows, kRows), [&](int64_t i) {
            const int64_t row = i * kRows;
            store(row, std::min(kRows, rows - row), k, count, to + row * count);
        });
        return Rows::stored(A.transposed, to, count);
    }
};

// Computes a product on all threads, and calls finish(row, rows, column, columns) for each tile of C when it is
// complete and still in the cache.
template <typename Finish>
void multiply_all(const Product& product, const Finish& finish) {
    if (product.columns > product.rows)
        product.by_columns(finish);
    else
        product.by_rows(finish);
}

inline void multiply_all(const Product& product) {
    multiply_all(product, [](int64_t, int64_t, int64_t, int64_t) {});
}

}  // namespace pangu
