// Matrix products in float32.
//
// An element of a product is a sum in one order: the inner dimension is cut into blocks of kBlock, each is summed
// up from its first to its last term, and the sums are added from the first block to the last. So the result does
// not depend on tiles, threads, or the width of the processor's vectors (as long as it multiplies and adds in one
// instruction).
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "scratch.h"
#include "threads.h"

namespace pangu {

constexpr int64_t kBlock = 512;

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

    static int64_t size(const Panels& panels, int64_t rows) { return panels.padded_columns() * rows; }
};

// Where the elements of a matrix A lie that is read row by row. The rows of a transpose are stored side by side, so
// that they are read one after the other.
struct Rows {
    static constexpr int64_t kLine = 8;  // rows that are stored side by side

    const float* data;
    int64_t line;   // elements from kLine rows to the next
    int64_t row;    // from one row of a line to the next
    int64_t inner;  // from one column to the next

    Rows from(int64_t i, int64_t k) const { return {data + i / kLine * line + k * inner, line, row, inner}; }

    static Rows of(Matrix A) { return {A.data, kLine * A.stride, A.stride, 1}; }

    // The columns of a matrix, where they lie in the cache; others are stacked.
    static Rows across(Matrix A) { return {A.data, kLine, 1, A.stride}; }

    // Stores a transposed A in `to`, which holds size(rows, columns) floats.
    static Rows stack(Matrix A, int64_t rows, int64_t columns, float* to);
    static Rows stacked(const float* data, int64_t columns) { return {data, kLine * columns, 1, kLine}; }
    static int64_t size(int64_t rows, int64_t columns) { return pieces(rows, kLine) * kLine * columns; }
};

// C = A B, or C += A B, of some rows and the panels [first, end) in the calling thread, with A [rows, B.rows] and at
// most kBlock rows of B; C [rows, stride] begins at the first column of B.
void multiply(int64_t rows, Rows A, const Packed& B, int64_t first, int64_t end, bool add, float* C, int64_t stride);

// The same for all columns and any number of rows of a B that is not packed.
void multiply(int64_t rows, int64_t columns, int64_t inner, Matrix A, Matrix B, bool add, float* C, int64_t stride);

// C [rows, columns] = A B. What threads read several times is packed once, and so small that it stays in the cache
// that they share; what only one of them reads it packs itself.
struct Product {
    int64_t rows, columns, inner;
    Matrix A, B;
    float* C;

    static constexpr int64_t kPacked = 1 << 21;  // floats that are packed for all threads at a time
    static constexpr int64_t kSmall = 1 << 20;   // floats of a transposed A that are worth packing for all
    static constexpr int64_t kRows = 64;         // of a tile
    static constexpr int64_t kPanels = 3;        // of a tile
    static constexpr int64_t kTiles = 4;         // for each thread

    int64_t length(int64_t other) const { return std::min(inner, std::max<int64_t>(1, kPacked / other / kBlock) * kBlock); }

    // Calls work(k, inner) for each block of the inner dimension in [begin, end).
    template <typename Work>
    static void blocks(int64_t begin, int64_t end, const Work& work) {
        for (int64_t k = begin; k < end; k += kBlock) work(k, std::min(kBlock, end - k));
    }

    // For as many rows as columns or more: B is packed for all threads, and a transposed A as well if it is small.
    template <typename Finish>
    void by_rows(const Finish& finish) const {
        const Panels panels(columns);
        const bool shared = !A.transposed || rows * std::min(inner, length(columns)) <= kSmall;
        const int64_t down = pieces(rows, kRows);
        const int64_t across = parts(panels.count(), pieces(kTiles * thread_count(), down), shared);
        for (int64_t step = 0, end; step < inner; step = end) {
            end = std::min(inner, step + length(columns));
            const Packed packed{panels, end - step, scratch(Use::all, Packed::size(panels, end - step)), 0, end - step};
            for_each(panels.count(), [&](int64_t i) { packed.fill(i, B.from(step, 0)); });
            const Rows whole = shared && A.transposed ? stack_all(step, end - step) : Rows::of(A.from(0, step));
            for_each(down * across, [&](int64_t i) {  // a thread keeps its part of B in its cache
                const int64_t row = i % down * kRows, height = std::min(kRows, rows - row), part = i / down;
                const int64_t first = part * panels.count() / across, last = (part + 1) * panels.count() / across;
                blocks(step, end, [&](int64_t k, int64_t count) {
                    const Rows a = shared ? whole.from(row, k - step)
                                          : Rows::stack(A.from(row, k), height, count,
                                                        scratch(Use::own, Rows::size(height, count)));
                    multiply(height, a, packed.part(k - step, count), first, last, k > 0, C + row * columns, columns);
                });
                if (end == inner) finish(row, height, panels.first_column(first), panels.width(first, last));
            });
        }
    }

    // For more columns: a thread packs its part of B; A is packed for all threads if it is transposed.
    template <typename Finish>
    void by_columns(const Finish& finish) const {
        const Panels panels(columns);
        const int64_t across = parts(panels.count(), kTiles * thread_count(), true);
        for (int64_t step = 0, end; step < inner; step = end) {
            end = A.transposed ? std::min(inner, step + length(rows)) : inner;
            const Rows a = A.transposed ? stack_all(step, end - step) : Rows::of(A.from(0, step));
            for_each(across, [&](int64_t i) {
                const int64_t first = i * panels.count() / across, last = (i + 1) * panels.count() / across;
                blocks(step, end, [&](int64_t k, int64_t count) {
                    const Panels own(panels.width(first, last));
                    const Packed packed{own, count, scratch(Use::own, Packed::size(own, count)), 0, count};
                    for (int64_t p = 0; p < own.count(); ++p) packed.fill(p, B.from(k, panels.first_column(first)));
                    for (int64_t row = 0; row < rows; row += kRows)
                        multiply(std::min(kRows, rows - row), a.from(row, k - step), packed, 0, own.count(), k > 0,
                                 C + row * columns + panels.first_column(first), columns);
                });
                if (end == inner) finish(0, rows, panels.first_column(first), panels.width(first, last));
            });
        }
    }

    // Number of parts of B: at least so many, as small as fits into a thread's own cache if that costs nothing, and
    // the same number for each thread.
    static int64_t parts(int64_t panels, int64_t least, bool small) {
        const int64_t threads = thread_count();
        const int64_t wanted = small ? std::max(least, pieces(panels, kPanels)) : least;
        return std::min(panels, pieces(wanted, threads) * threads);
    }

    Rows stack_all(int64_t k, int64_t count) const {
        float* const to = scratch(Use::all_lines, Rows::size(rows, count));
        for_each(pieces(rows, kRows), [&](int64_t i) {
            const int64_t row = i * kRows;
            Rows::stack(A.from(row, k), std::min(kRows, rows - row), count, to + row * count);
        });
        return Rows::stacked(to, count);
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
