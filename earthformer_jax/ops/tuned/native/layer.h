// What layers share that take blocks of rows through several steps: weights in panels,
// layer norm, and memory for blocks.

#pragma once

#include <cmath>

#include "vectors.h"

namespace earthformer {

constexpr int64_t kPanel = kMostVectors * kLanes;
constexpr int64_t kApart = 16;  // floats between rows, so that they share no cache set

// Memory for a block of rows.
inline Rows block(int64_t rows, int64_t columns, Scratch& scratch) {
  return {scratch.take(rows * (columns + kApart)), columns + kApart};
}

inline int64_t floats_of_block(int64_t rows, int64_t columns) {
  return rows * (columns + kApart);
}

// A matrix of weights in panels of columns, each of which lies in one piece.
class Panels {
 public:
  // Of from[row][column].
  Panels(Matrix from, int64_t rows, int64_t columns, Scratch& scratch)
      : rows_(rows), columns_(columns), data_(scratch.take(rows * columns)) {
    for (int64_t first = 0; first < columns; first += kPanel) {
      const Rows panel = at(first);
      for (int64_t row = 0; row < rows; row++)
        for (int64_t column = 0; column < panel.step; column++)
          panel.row(row)[column] =
              from.at[row * from.rows + (first + column) * from.columns];
    }
  }

  // out = left times the matrix.
  void multiply_by(Rows left, int64_t rows, Rows out) const {
    for (int64_t first = 0; first < columns_; first += kPanel) {
      const Rows panel = at(first);
      multiply(left.matrix(), rows, rows_, panel, panel.step,
               {out.at + first, out.step});
    }
  }

 private:
  Rows at(int64_t first) const {
    return {data_ + first * rows_, std::min(kPanel, columns_ - first)};
  }

  const int64_t rows_, columns_;
  float* const data_;
};

inline float sum(Floats x) {
  float parts[kLanes];
  store(parts, x);
  for (int step = kLanes / 2; step; step /= 2)
    for (int i = 0; i < step; i++) parts[i] += parts[i + step];
  return parts[0];
}

inline void add_to(float* sum, Floats x) { store(sum, load(sum) + x); }

// Layer norm of rows of whole vectors.
struct Norm {
  const float *scale, *offset;
  float epsilon;
  int64_t channels;

  // `standard` is the row before scale and offset.
  // Returns one over the standard deviation.
  float forward(const float* x, float* standard, float* normed) const {
    Floats total{}, square{};
    for (int64_t i = 0; i < channels; i += kLanes) total += load(x + i);
    const float mean = sum(total) / channels;
    for (int64_t i = 0; i < channels; i += kLanes) {
      const Floats centred = load(x + i) - mean;
      square += centred * centred;
    }
    const float inverse = 1.0f / std::sqrt(sum(square) / channels + epsilon);
    for (int64_t i = 0; i < channels; i += kLanes) {
      const Floats own = (load(x + i) - mean) * inverse;
      store(standard + i, own);
      store(normed + i, own * load(scale + i) + load(offset + i));
    }
    return inverse;
  }

  // The gradient of a row, in place; adds to those of scale and offset.
  void backward(const float* standard, float inverse, float* gradient, float* dscale,
                float* doffset) const {
    Floats total{}, along{};
    for (int64_t i = 0; i < channels; i += kLanes) {
      const Floats change = load(gradient + i), own = load(standard + i);
      add_to(dscale + i, change * own);
      add_to(doffset + i, change);
      const Floats scaled = change * load(scale + i);
      store(gradient + i, scaled);
      total += scaled;
      along += scaled * own;
    }
    const float level = sum(total) / channels, tilt = sum(along) / channels;
    for (int64_t i = 0; i < channels; i += kLanes)
      store(gradient + i,
            (load(gradient + i) - level - load(standard + i) * tilt) * inverse);
  }
};

}  // namespace earthformer
