// A linear layer, x W^T + b, and its gradients; what is not a product is always float32.
#pragma once
#include "few_rows.h"
#include "product.h"
#include "some_rows.h"

namespace pangu {

struct LinearLayer {
    int64_t rows, inputs, outputs;
    Precision precision;

    // y [rows, outputs] = x W^T + b; the bias may be null. finish(row, rows, column, columns) is called for each tile
    // of y when it is complete and still in the cache.
    template <typename Finish>
    void forward(const float* x, const float* weight, const float* bias, float* y, const Finish& finish) const {
        if (rows <= kFewRows && precision == Precision::highest) {
            multiply_few(x, rows, inputs, weight, outputs, bias, y);
            return finish(0, rows, 0, outputs);
        }
        const auto complete = [=, this](int64_t row, int64_t height, int64_t column, int64_t width) {
            if (bias) add_to_rows(height, width, bias + column, y + row * outputs + column);
            finish(row, height, column, width);
        };
        if (rows <= kSomeRows && precision == Precision::highest)
            return multiply_some(x, rows, inputs, weight, outputs, y, complete);
        multiply_all({rows, outputs, inputs, {x, inputs}, {weight, inputs, true}, y, precision}, complete);
    }

    void forward(const float* x, const float* weight, const float* bias, float* y) const {
        forward(x, weight, bias, y, [](int64_t, int64_t, int64_t, int64_t) {});
    }

    // dx [rows, inputs], with a finish as above.
    template <typename Finish>
    void input_gradient(const float* weight, const float* dy, float* dx, const Finish& finish) const {
        multiply_all({rows, inputs, outputs, {dy, outputs}, {weight, inputs}, dx, precision}, finish);
    }

    void input_gradient(const float* weight, const float* dy, float* dx) const {
        input_gradient(weight, dy, dx, [](int64_t, int64_t, int64_t, int64_t) {});
    }

    // dW [outputs, inputs] and db [outputs]
    void parameter_gradients(const float* x, const float* dy, float* dweight, float* dbias) const;

  private:
    // Adds the bias to each row of a tile of y.
    void add_to_rows(int64_t height, int64_t width, const float* bias, float* y) const;
};

}  // namespace pangu
