// Vectors of floats as wide as the processor has them, and products of small matrices.
//
// Written with the vector types of GCC and Clang, which compile them for any processor.

#pragma once

#include <algorithm>
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
inline Floats all(float x) { return x - Floats{}; }

// x where `condition` is true in all bits, elsewhere 0.
inline Floats only_where(Ints condition, Floats x) {
  return (Floats)((Ints)x & condition);
}

// 2 to the power of x for -126 <= x <= 0, with relative errors within 1e-7; NaN stays
// NaN. It is 2^n times a polynomial in the rest, fitted to least relative error.
inline Floats exp2(Floats x) {
  const Floats rounding = all(12582912.0f);  // 1.5 * 2^23: no place after the point
  const Floats n = (x + rounding) - rounding, r = x - n;
  Floats y = all(1.5170517e-4f);
  y = y * r + 1.3398007e-3f;
  y = y * r + 9.6192965e-3f;
  y = y * r + 5.5503432e-2f;
  y = y * r + 2.4022639e-1f;
  y = y * r + 6.9314718e-1f;
  y = y * r + 1.0f;
  return (Floats)((Ints)y + (__builtin_convertvector(n, Ints) << 23));
}

inline Floats at_least(float lowest, Floats x) { return x < lowest ? all(lowest) : x; }

// e to the power of x for x <= 0, within 1e-7; 0 where it is less than 2^-126.
inline Floats exp(Floats x) {
  const Floats power = x * 1.44269504f;
  return only_where(~(power < -126.0f), exp2(at_least(-126.0f, power)));
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

// How many products are summed up: `each` in every one of `runs`, which lie `apart` in
// the rows of the left matrix.
struct Depth {
  int64_t each, runs = 1, apart = 0;

  Depth(int64_t each) : each(each) {}
  Depth(int64_t each, int64_t runs, int64_t apart)
      : each(each), runs(runs), apart(apart) {}
};

// Loops of a few rounds that have to be written out early, so that what they compute
// stays in registers.
#define WRITTEN_OUT _Pragma("GCC unroll 8")

// clang-format off

// A few rows and vectors of columns of a product, summed in registers.
template <int kRows, int kVectors>
void part_of_product(Matrix left, Depth depth, Rows right, Rows out, bool add) {
  Floats sums[kRows][kVectors];
  WRITTEN_OUT for (int i = 0; i < kRows; i++)
    WRITTEN_OUT for (int j = 0; j < kVectors; j++) sums[i][j] = Floats{};
  for (int64_t run = 0; run < depth.runs; run++) {
    for (int64_t k = 0; k < depth.each; k++) {
      Floats row[kVectors];
      WRITTEN_OUT for (int j = 0; j < kVectors; j++)
        row[j] = load(right.row(k) + j * kLanes);
      WRITTEN_OUT for (int i = 0; i < kRows; i++) {
        const Floats factor = all(left.at[i * left.rows + k * left.columns]);
        WRITTEN_OUT for (int j = 0; j < kVectors; j++) sums[i][j] += factor * row[j];
      }
    }
    left.at += depth.apart;
    right.at += depth.each * right.step;
  }
  WRITTEN_OUT for (int i = 0; i < kRows; i++)
    WRITTEN_OUT for (int j = 0; j < kVectors; j++) {
      float* const at = out.row(i) + j * kLanes;
      store(at, add ? load(at) + sums[i][j] : sums[i][j]);
    }
}

// clang-format on

// All rows of a few vectors of columns, in blocks of nearly equal size: of 10 rows,
// 5 and 5 rather than 8 and 2.
template <int kVectors>
void columns_of_product(Matrix left, int64_t rows, Depth depth, Rows right, Rows out,
                        bool add) {
  constexpr int64_t kMost = kVectors == 1 || (kLanes == 16 && kVectors < 4) ? 8 : 6;
  for (int64_t first = 0; first < rows;) {
    const int64_t rest = rows - first;
    const int64_t count = rest >= 2 * kMost ? kMost
                          : rest > kMost    ? (rest + 1) / 2
                                            : rest;
    const Matrix from = left.from_row(first);
    const Rows to = out.from_row(first);
    switch (count) {
#define ROWS(n)                                                \
  case n:                                                      \
    part_of_product<n, kVectors>(from, depth, right, to, add); \
    break;
      ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6) ROWS(7) ROWS(8)
#undef ROWS
    }
    first += count;
  }
}

// How many vectors of columns are computed at once, as registers allow.
constexpr int kMostVectors = kLanes == 16 ? 4 : 2;

// out = left right, or out += left right; columns are whole vectors.
inline void multiply(Matrix left, int64_t rows, Depth depth, Rows right,
                     int64_t columns, Rows out, bool add = false) {
  for (int64_t column = 0; column < columns;) {
    const Rows from{right.at + column, right.step}, to{out.at + column, out.step};
    const int64_t vectors =
        std::min<int64_t>(kMostVectors, (columns - column) / kLanes);
    switch (vectors) {
      case 1:
        columns_of_product<1>(left, rows, depth, from, to, add);
        break;
      case 2:
        columns_of_product<2>(left, rows, depth, from, to, add);
        break;
      case 3:
        columns_of_product<3>(left, rows, depth, from, to, add);
        break;
      case 4:
        columns_of_product<4>(left, rows, depth, from, to, add);
        break;
    }
    column += vectors * kLanes;
  }
}

// to[column][row] = scale * from[row][column].
inline void turn(Rows from, int64_t rows, int64_t columns, float scale, Rows to) {
  for (int64_t row = 0; row < rows; row++)
    for (int64_t column = 0; column < columns; column++)
      to.row(column)[row] = scale * from.row(row)[column];
}

}  // namespace earthformer
