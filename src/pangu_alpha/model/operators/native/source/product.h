// Matrix products in float32 by the oneDNN library that MindSpore brings along.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>

#include "threads.h"

namespace pangu {

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

// C = a * A B + b * C in the calling thread, with A [rows, inner], B [inner, columns], C [rows, stride]. False if
// oneDNN is not there.
bool multiply(int64_t rows, int64_t columns, int64_t inner, float a, Matrix A, Matrix B, float b, float* C,
              int64_t stride);

// Rows and columns of the tiles in which all threads compute a product. They follow from the sizes of C alone, not
// from the number of threads: in what order oneDNN adds up an element of C depends on the sizes of its tile.
struct Tile {
    static constexpr int64_t kEnough = 16;  // tiles, so that this many threads have work
    int64_t rows = 256, columns = 512;

    Tile(int64_t all_rows, int64_t all_columns) {
        const auto few = [&] { return pieces(all_rows, rows) * pieces(all_columns, columns) < kEnough; };
        while (few() && columns > 128) columns /= 2;
        while (few() && rows > 64) rows /= 2;
    }
};

// C = A B in tiles, each of which may be computed by itself.
struct Product {
    int64_t rows, columns, inner;
    Matrix A, B;
    float* C;
    Tile tile{rows, columns};

    int64_t tiles() const { return pieces(rows, tile.rows) * pieces(columns, tile.columns); }

    // Computes a tile and calls finish(row, rows, column, columns) while it is in the cache.
    template <typename Finish>
    bool compute(int64_t index, const Finish& finish) const {
        const int64_t across = pieces(columns, tile.columns);
        const int64_t row = index / across * tile.rows, column = index % across * tile.columns;
        const int64_t height = std::min(tile.rows, rows - row), width = std::min(tile.columns, columns - column);
        const bool good = multiply(height, width, inner, 1, A.from(row, 0), B.from(0, column), 0,
                                   C + row * columns + column, columns);
        finish(row, height, column, width);
        return good;
    }

    bool compute(int64_t index) const {
        return compute(index, [](int64_t, int64_t, int64_t, int64_t) {});
    }
};

// Computes a product on all threads.
template <typename Finish>
bool multiply_tiles(const Product& product, const Finish& finish) {
    std::atomic<bool> good{true};
    for_each(product.tiles(), [&](int64_t i) {
        if (!product.compute(i, finish)) good = false;
    });
    return good;
}

}  // namespace pangu
