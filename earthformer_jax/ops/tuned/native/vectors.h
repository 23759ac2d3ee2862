// Vectors of floats as wide as the processor has them, and products of small matrices.
//
// Written with the vector types of GCC and Clang, which compile them for any processor.

#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace earthformer {

#ifdef __AVX512F__
constexpr int kLanes = 16;
#else
constexpr int kLanes = 8;
#endif
typedef float Floats __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef uint32_t Words __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

inline int64_t whole_vectors(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }
inline Floats load(const float* at) { return *reinterpret_cast<const Floats*>(at); }
inline void store(float* at, Floats x) { *reinterpret_cast<Floats*>(at) = x; }
inline Floats all(float x) { return Floats{} + x; }

// x where `condition` is true in all bits, elsewhere 0.
inline Floats only_where(Ints condition, Floats x) {
  return (Floats)((Ints)x & condition);
}

// e to the power of x for x <= 0, within two units in the last place; NaN stays NaN.
// 2^n times a polynomial in the rest, with the coefficients of the Cephes library.
inline Floats exp(Floats x) {
  const Ints not_zero = ~(x < -87.0f);
  x = x < -87.0f ? all(-87.0f) : x;
  const Floats rounding = all(12582912.0f);  // 1.5 * 2^23: no place after the point
  const Floats n = (x * 1.44269504f + rounding) - rounding;
  const Floats r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  Floats y = all(1.9875691500e-4f);
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.0f;
  const Ints scaled = (Ints)y + (__builtin_convertvector(n, Ints) << 23);
  return only_where(not_zero, (Floats)scaled);
}

// Memory for intermediate results, all zeros in the beginning.
class Scratch {
 public:
  explicit Scratch(int64_t floats) : memory_(floats), next_(memory_.data()) {}

  float* take(int64_t floats) {
    float* taken = next_;
    next_ += floats;
    return taken;
  }

 private:
  std::vector<float> memory_;
  float* next_;
};

// A matrix in memory; `rows` and `columns` are the steps to the next of them.
struct Matrix {
  const float* at;
  int64_t rows, columns;

  Matrix from_row(int64_t row) const { return {at + row * rows, rows, columns}; }
  Matrix turned() const { return {at, columns, rows}; }
};

// A matrix whose rows lie in one piece, made of whole vectors.
struct Rows {
  float* at;
  int64_t step;

  float* row(int64_t n) const { return at + n * step; }
  Rows from_row(int64_t n) const { return {row(n), step}; }
  Matrix matrix() const { return {at, step, 1}; }
};

template <int kRows>
inline void product_of_few_rows(Matrix left, int64_t depth, const float* right,
                                int64_t right_step, float* out, int64_t out_step,
                                bool add) {
  Floats sums[kRows];
  for (int i = 0; i < kRows; i++) sums[i] = add ? load(out + i * out_step) : Floats{};
  for (int64_t k = 0; k < depth; k++) {
    const Floats row = load(right + k * right_step);
    for (int i = 0; i < kRows; i++)
      sums[i] += left.at[i * left.rows + k * left.columns] * row;
  }
  for (int i = 0; i < kRows; i++) store(out + i * out_step, sums[i]);
}

// out = left right, or out += left right.
//
// Up to eight rows times one vector of columns are summed in registers.
inline void multiply(Matrix left, int64_t rows, int64_t depth, Rows right,
                     int64_t columns, Rows out, bool add = false) {
  for (int64_t first = 0; first < rows;) {
    const int64_t rest = rows - first;
    // Blocks of nearly equal size: 10 rows are 5 and 5, not 8 and 2.
    const int64_t count = rest >= 16 ? 8 : rest > 8 ? (rest + 1) / 2 : rest;
    for (int64_t column = 0; column < columns; column += kLanes) {
#define FEW_ROWS(n)                                                               \
  case n:                                                                         \
    product_of_few_rows<n>(left.from_row(first), depth, right.at + column,        \
                           right.step, out.row(first) + column, out.step, add);   \
    break
      switch (count) {
        FEW_ROWS(1);
        FEW_ROWS(2);
        FEW_ROWS(3);
        FEW_ROWS(4);
        FEW_ROWS(5);
        FEW_ROWS(6);
        FEW_ROWS(7);
        FEW_ROWS(8);
      }
#undef FEW_ROWS
    }
    first += count;
  }
}

// to[column][row] = scale * from[row][column].
inline void turn(Rows from, int64_t rows, int64_t columns, float scale, Rows to) {
  for (int64_t row = 0; row < rows; row++)
    for (int64_t column = 0; column < columns; column++)
      to.row(column)[row] = scale * from.row(row)[column];
}

}  // namespace earthformer
