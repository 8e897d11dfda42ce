#include "product.h"

#include <cstring>

#include "bfloat16.h"
#include "kernel.h"

namespace pangu {
namespace {

constexpr int64_t kLine = Rows::kLine;

template <int kLanes>
struct Of {
    typedef float Vector __attribute__((vector_size(4 * kLanes)));
    typedef float Anywhere __attribute__((vector_size(4 * kLanes), aligned(4)));
    typedef uint32_t Bits __attribute__((vector_size(4 * kLanes)));
};

// sum += factor * row; in medium precision these are lanes, and both products of a lane are added.
template <Precision kPrecision, int kLanes>
INLINE void add_product(typename Of<kLanes>::Vector& sum, float factor, typename Of<kLanes>::Vector row) {
    if constexpr (kPrecision == Precision::highest) {
        sum += factor * row;
    } else {
#if defined(__x86_64__)
        uint32_t bits;
        std::memcpy(&bits, &factor, sizeof bits);
        const typename Of<kLanes>::Bits factors = bits - typename Of<kLanes>::Bits{};
        // An intrinsic could only be called by functions that are compiled for such processors, unlike this template.
        asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(factors), "v"(row));
#endif
    }
}

// Where a part of A lies, as in Rows.
struct Part {
    const float* data;
    int64_t line, row, inner;
    int64_t ahead;  // elements from here to rows that are read next from memory; 0 if there are none
    const Terms* terms;
};

// Fetches a row of C, or a line of x, before it is needed. Out of memory a product loses a twentieth of its speed
// to waiting: what the processor fetches by itself comes too late for so many short rows.
constexpr int64_t kFetched = 16;  // floats that are fetched at a time
constexpr int64_t kRowsAhead = 16, kLinesAhead = 4;

// C [kRows, kVectors * kLanes] = A B or C += A B, all of whose sums stay in registers.
template <Precision kPrecision, int kLanes, int kRows, int kVectors>
INLINE void multiply_block(int64_t inner, Part a, const float* b, bool add, float* c, int64_t stride) {
    using Vector = typename Of<kLanes>::Vector;
    using Anywhere = typename Of<kLanes>::Anywhere;
    Vector sums[kRows][kVectors] = {};
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) __builtin_prefetch(c + i * stride + v * kLanes, 1);
    const float* const ahead = a.data + a.ahead;
    for (int64_t k = 0; k < inner; ++k) {
        __builtin_prefetch(ahead + (k & 7) * a.row + k, 0, 2);  // one of eight rows at a time, into the second cache
        Vector row[kVectors];
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) row[v] = *reinterpret_cast<const Vector*>(b + v * kLanes);
#pragma GCC unroll 8
        for (int i = 0; i < kRows; ++i) {
            const float factor = a.data[i * a.row];
#pragma GCC unroll 8
            for (int v = 0; v < kVectors; ++v) add_product<kPrecision, kLanes>(sums[i][v], factor, row[v]);
        }
        a.data += a.inner;
        b += kVectors * kLanes;
    }
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) {
            Anywhere& place = *reinterpret_cast<Anywhere*>(c + i * stride + v * kLanes);
            place = add ? place + sums[i][v] : sums[i][v];
        }
}

template <Precision kPrecision, int kLanes, int kRows>
INLINE void multiply_rows(int64_t vectors, int64_t inner, Part a, const float* b, bool add, float* c, int64_t stride) {
    if (vectors == 3)
        multiply_block<kPrecision, kLanes, kRows, 3>(inner, a, b, add, c, stride);
    else if (vectors == 2)
        multiply_block<kPrecision, kLanes, kRows, 2>(inner, a, b, add, c, stride);
    else
        multiply_block<kPrecision, kLanes, kRows, 1>(inner, a, b, add, c, stride);
}

// The product of some rows of A, all in one line, with one panel.
template <Precision kPrecision, int kLanes, int kRows>
INLINE void multiply_in_line(int64_t i, int64_t vectors, int64_t inner, Part a, const float* b, bool add, float* c, int64_t stride) {
    const Terms terms = a.terms ? a.terms[i / kLine] : Terms{0, inner};
    const float* const from = a.data + i / kLine * a.line + i % kLine * a.row + terms.first * a.inner;
    multiply_rows<kPrecision, kLanes, kRows>(vectors, terms.end - terms.first, {from, a.line, a.row, a.inner, a.ahead, nullptr},
                                             b + terms.first * vectors * kLanes, add, c + i * stride, stride);
}

// The product of some rows of A with one panel.
template <Precision kPrecision, int kLanes, int kRows>
INLINE void multiply_panel(int64_t rows, int64_t vectors, int64_t inner, Part a, const float* b, bool add, float* c,
                           int64_t stride) {
    int64_t i = 0;
    for (; i + kRows <= rows; i += kRows) multiply_in_line<kPrecision, kLanes, kRows>(i, vectors, inner, a, b, add, c, stride);
    for (; i + 4 <= rows; i += 4) multiply_in_line<kPrecision, kLanes, 4>(i, vectors, inner, a, b, add, c, stride);
    for (; i < rows; ++i) multiply_in_line<kPrecision, kLanes, 1>(i, vectors, inner, a, b, add, c, stride);
}

// Kinds of processors: how many floats a vector has, and the functions for it.
struct Kind {
    int64_t lanes;
    void (*multiply)(int64_t rows, int64_t vectors, int64_t inner, Part a, const float* b, bool add, float* c,
                     int64_t stride);
    decltype(multiply) multiply_pairs = nullptr;  // null where a processor cannot
};

void multiply_by_4(int64_t rows, int64_t vectors, int64_t inner, Part a, const float* b, bool add, float* c,
                   int64_t stride) {
    multiply_panel<Precision::highest, 4, 4>(rows, vectors, inner, a, b, add, c, stride);
}

#if defined(__x86_64__)
__attribute__((target("arch=x86-64-v3"))) void multiply_by_8(int64_t rows, int64_t vectors, int64_t inner, Part a,
                                                             const float* b, bool add, float* c, int64_t stride) {
    multiply_panel<Precision::highest, 8, 4>(rows, vectors, inner, a, b, add, c, stride);
}

__attribute__((target("arch=x86-64-v4"))) void multiply_by_16(int64_t rows, int64_t vectors, int64_t inner, Part a,
                                                              const float* b, bool add, float* c, int64_t stride) {
    multiply_panel<Precision::highest, 16, 8>(rows, vectors, inner, a, b, add, c, stride);
}

__attribute__((target("arch=x86-64-v4"))) void multiply_pairs_by_16(int64_t rows, int64_t vectors, int64_t inner,
                                                                    Part a, const float* b, bool add, float* c,
                                                                    int64_t stride) {
    multiply_panel<Precision::medium, 16, 8>(rows, vectors, inner, a, b, add, c, stride);
}
#endif

constexpr int64_t kVectors = 3;  // of the widest panel
constexpr int64_t kWidest = kVectors * 16;

#ifndef MOST_LANES  // tests set it to the width of other processors
#define MOST_LANES 16
#endif

Kind choose() {
#if defined(__x86_64__)
    if (MOST_LANES >= 16 && __builtin_cpu_supports("x86-64-v4"))
        return {16, multiply_by_16, __builtin_cpu_supports("avx512bf16") ? multiply_pairs_by_16 : nullptr};
    if (MOST_LANES >= 8 && __builtin_cpu_supports("x86-64-v3")) return {8, multiply_by_8};
#endif
    return {4, multiply_by_4};
}

const Kind& kind() {
    static const Kind chosen = choose();
    return chosen;
}

// y = the transpose of x, both kSide x kSide: four times, rows i and i + 8 are interleaved to rows 2 i and 2 i + 1.
constexpr int64_t kSide = 16;

INLINE void transpose_square(const float* x, int64_t stride, float* y, int64_t pitch) {
    typedef float Row __attribute__((vector_size(4 * kSide)));
    typedef float Anywhere __attribute__((vector_size(4 * kSide), aligned(4)));
    typedef int32_t Order __attribute__((vector_size(4 * kSide)));
    constexpr Order low = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
    constexpr Order high = {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    Row rows[kSide], next[kSide];
#pragma GCC unroll 16
    for (int64_t i = 0; i < kSide; ++i) rows[i] = *reinterpret_cast<const Anywhere*>(x + i * stride);
#pragma GCC unroll 4
    for (int times = 0; times < 4; ++times) {
#pragma GCC unroll 8
        for (int64_t i = 0; i < 8; ++i) {
            next[2 * i] = __builtin_shuffle(rows[i], rows[i + 8], low);
            next[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + 8], high);
        }
#pragma GCC unroll 16
        for (int64_t i = 0; i < kSide; ++i) rows[i] = next[i];
    }
#pragma GCC unroll 16
    for (int64_t i = 0; i < kSide; ++i) *reinterpret_cast<Anywhere*>(y + i * pitch) = rows[i];
}

// y [columns, pitch] = the transpose of x [rows, stride]
FOR_EACH_PROCESSOR void transpose(const float* x, int64_t rows, int64_t columns, int64_t stride, float* y,
                                  int64_t pitch) {
    int64_t i = 0;
    for (; i + kSide <= rows; i += kSide) {
        int64_t j = 0;
        for (; j + kSide <= columns; j += kSide) {
            for (int64_t r = 0; r < kSide; ++r) __builtin_prefetch(x + (i + r) * stride + j + kLinesAhead * kSide);
            transpose_square(x + i * stride + j, stride, y + j * pitch + i, pitch);
        }
        for (; j < columns; ++j)
            for (int64_t r = 0; r < kSide; ++r) y[j * pitch + i + r] = x[(i + r) * stride + j];
    }
    for (; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j) y[j * pitch + i] = x[i * stride + j];
}

// y [rows, pitch] = x [rows, columns], and 0 behind it
FOR_EACH_PROCESSOR void copy(const float* x, int64_t rows, int64_t columns, int64_t stride, float* y, int64_t pitch) {
    for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < columns; j += kFetched) __builtin_prefetch(x + (i + kRowsAhead) * stride + j);
        for (int64_t j = 0; j < columns; ++j) y[i * pitch + j] = x[i * stride + j];
        for (int64_t j = columns; j < pitch; ++j) y[i * pitch + j] = 0;
    }
}

// y [lanes, pitch] = the pairs of neighbouring columns of x [rows, terms], transposed
void transpose_pairs(const float* x, int64_t rows, int64_t terms, int64_t stride, float* y, int64_t pitch) {
    constexpr int64_t kSide = 16, kLanes = 64;
    alignas(64) float pairs[kSide * kLanes];
    for (int64_t i = 0; i < rows; i += kSide)
        for (int64_t j = 0; j < terms; j += 2 * kLanes) {
            const int64_t height = std::min(kSide, rows - i), width = std::min(2 * kLanes, terms - j);
            pair_columns(x + i * stride + j, height, width, stride, pairs, kLanes);
            transpose(pairs, height, pieces(width, 2), kLanes, y + j / 2 * pitch + i, pitch);
        }
}

void clear_columns(float* x, int64_t rows, int64_t width, int64_t pitch) {
    for (int64_t k = 0; width < pitch && k < rows; ++k) std::fill(x + k * pitch + width, x + (k + 1) * pitch, 0.0f);
}

}  // namespace

bool has_bfloat16() { return kind().multiply_pairs; }

Panels::Panels(int64_t columns)
    : columns_(columns), lanes_(kind().lanes), vectors_(pieces(columns, lanes_)), count_(pieces(vectors_, kVectors)) {}

void Packed::fill(int64_t i, Matrix from) const {
    const int64_t first = panels.first_column(i), width = panels.width(i, i + 1), pitch = panels.first_column(i + 1) - first;
    float* const to = panel(i);
    const Matrix part = from.from(0, first);
    if (!part.transposed) return copy(part.data, rows, width, part.stride, to, pitch);
    transpose(part.data, width, rows, part.stride, to, pitch);
    clear_columns(to, rows, width, pitch);
}

void Packed::fill_pairs(int64_t i, Matrix from, int64_t terms) const {
    const int64_t first = panels.first_column(i), width = panels.width(i, i + 1), pitch = panels.first_column(i + 1) - first;
    float* const to = panel(i);
    const Matrix part = from.from(0, first);
    if (part.transposed)
        transpose_pairs(part.data, width, terms, part.stride, to, pitch);
    else
        for (int64_t k = 0; k < terms; k += 2) {
            const float* const row = part.data + k * part.stride;
            pair_rows(row, k + 1 < terms ? row + part.stride : nullptr, width, to + k / 2 * pitch);
        }
    clear_columns(to, rows, width, pitch);
}

Rows Rows::stack(Matrix A, int64_t rows, int64_t columns, float* to) {
    for (int64_t k = 0; k < columns; ++k) {
        const float* const from = A.data + k * A.stride;
        int64_t i = 0;
        for (int64_t r = 0; r < rows; r += kFetched) __builtin_prefetch(from + kRowsAhead * A.stride + r);
        for (; i + kLine <= rows; i += kLine) std::memcpy(to + i * columns + k * kLine, from + i, kLine * sizeof(float));
        for (int64_t r = i; r < rows; ++r) to[i * columns + k * kLine + r - i] = from[r];
    }
    return stored(true, to, columns);
}

Rows Rows::pair(Matrix A, int64_t rows, int64_t terms, float* to) {
    const int64_t lanes = pieces(terms, 2);
    if (!A.transposed) {
        pair_columns(A.data, rows, terms, A.stride, to, lanes);
        return stored(false, to, lanes);
    }
    const int64_t even = terms / 2 * 2, whole = rows / kLine * kLine;
    pair_lines(A.data, even, whole, A.stride, to, lanes);
    for (int64_t k = 0; k < terms; k += 2)  // what is left: the rest of the rows, and an odd last term
        for (int64_t i = k < even ? whole : 0; i < rows; i += kLine) {
            const float* const row = A.data + k * A.stride + i;
            pair_rows(row, k < even ? row + A.stride : nullptr, std::min(kLine, rows - i), to + i * lanes + k / 2 * kLine);
        }
    return stored(true, to, lanes);
}

void multiply(Precision precision, int64_t rows, Rows A, const Packed& B, int64_t first, int64_t end, bool add, float* C,
              int64_t stride) {
    const auto multiply_part = precision == Precision::medium ? kind().multiply_pairs : kind().multiply;
    for (int64_t p = first; p < end; ++p) {
        const int64_t width = B.panels.width(p, p + 1), pitch = B.pitch(p);
        float* const c = C + B.panels.first_column(p);
        const int64_t ahead = p == first && A.inner == 1 ? A.line : 0;
        if (width == pitch) {
            multiply_part(rows, B.panels.vectors(p), B.rows, {A.data, A.line, A.row, A.inner, ahead, A.terms}, B.panel(p), add, c, stride);
            continue;
        }
        for (int64_t i = 0; i < rows; i += kLine) {
            const Rows a = A.from(i, 0);
            const int64_t height = std::min(kLine, rows - i);
            float edge[kLine * kWidest];
            multiply_part(height, B.panels.vectors(p), B.rows, {a.data, a.line, a.row, a.inner, ahead, a.terms}, B.panel(p), false, edge, kWidest);
            for (int64_t r = 0; r < height; ++r)
                for (int64_t j = 0; j < width; ++j) {
                    float& place = c[(i + r) * stride + j];
                    place = add ? place + edge[r * kWidest + j] : edge[r * kWidest + j];
                }
        }
    }
}

void multiply(int64_t rows, int64_t columns, int64_t inner, Matrix A, Matrix B, bool add, float* C, int64_t stride) {
    const Panels panels(columns);
    Product::blocks(0, inner, [&](int64_t k, int64_t count) {
        const Packed packed{panels, count, scratch(Use::small_panels, Packed::size(panels, count)), 0, count};
        for (int64_t i = 0; i < panels.count(); ++i) packed.fill(i, B.from(k, 0));
        const Matrix from = A.from(0, k);
        const Rows a = A.transposed ? Rows::stack(from, rows, count, scratch(Use::small_lines, Rows::size(rows, count)))
                                    : Rows::of(from);
        multiply(Precision::highest, rows, a, packed, 0, panels.count(), add || k > 0, C, stride);
    });
}

}  // namespace pangu

// Whether products can have medium precision on this processor.
extern "C" int pangu_has_bfloat16() { return pangu::has_bfloat16(); }
