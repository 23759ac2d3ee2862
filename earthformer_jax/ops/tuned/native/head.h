// Softmax attention of one head inside one cuboid, and its gradient.
//
// Scores are turned, keys by queries, so that vectors hold queries, and maxima and sums
// over keys need no sums inside vectors.

#pragma once

#include <cfloat>

#include "dropout.h"
#include "vectors.h"

namespace earthformer {

// Sizes of one head of one cuboid; far keys are those of global vectors.
struct HeadSizes {
  int64_t queries, near_keys, far_keys, width;

  int64_t keys() const { return near_keys + far_keys; }
  int64_t across() const { return whole_vectors(queries); }  // a row of scores
  int64_t wide() const { return whole_vectors(width); }      // a row of a head
  int64_t scores() const { return keys() * across(); }
};

// The rows of one head: queries, keys and values, and those of global vectors.
struct HeadRows {
  Rows query, key, value, far_query, far_key, far_value;
};

// What else one head of one cuboid needs.
struct HeadPlace {
  const float* bias;    // of `Biases`
  const bool* visible;  // [queries, near keys]; null if all are
  uint32_t number;      // of this head among all of the call, for dropout
};

inline void copy(Rows from, int64_t rows, int64_t columns, Rows to, float scale = 1.0f,
                 bool add = false) {
  for (int64_t row = 0; row < rows; row++)
    for (int64_t column = 0; column < columns; column++) {
      const float before = add ? to.row(row)[column] : 0.0f;
      to.row(row)[column] = before + scale * from.row(row)[column];
    }
}

// Rows that consist of whole vectors: the given ones, or a copy with zeros after them.
class Widened {
 public:
  Widened(const HeadSizes& sizes, int64_t rows, Scratch& scratch)
      : width_(sizes.width), rows_(rows), own_{nullptr, sizes.wide()} {
    if (sizes.wide() != width_) own_.at = scratch.take(rows * sizes.wide());
  }

  Rows operator()(Rows given) const {
    if (!own_.at) return given;
    copy(given, rows_, width_, own_);
    return own_;
  }

  // Where to compute what belongs into `wanted`, before `finish` takes it there.
  Rows begin(Rows wanted) const { return own_.at ? own_ : wanted; }

  void finish(Rows wanted, bool add = false) const {
    if (own_.at) copy(own_, rows_, width_, wanted, 1.0f, add);
  }

 private:
  const int64_t width_, rows_;
  Rows own_;
};

class HeadAttention {
 public:
  // separate: whether far keys have queries of their own.
  HeadAttention(const HeadSizes& sizes, float scale, bool separate, Dropout dropout,
                Scratch& scratch)
      : sizes_(sizes),
        scale_(scale),
        separate_(separate),
        dropout_(dropout),
        query_(turned(scratch)),
        far_query_(separate ? turned(scratch) : query_),
        before_(scores(scratch)),
        after_(dropout.on() ? scores(scratch) : before_),
        of_near_(sizes, sizes.near_keys, scratch),
        of_far_(sizes, sizes.far_keys, scratch),
        of_queries_(sizes, sizes.queries, scratch) {}

  // Scratch that `forward` needs.
  static int64_t floats(const HeadSizes& sizes) {
    return 2 * sizes.width * sizes.across() + 2 * sizes.scores() +
           (sizes.keys() + sizes.queries) * sizes.wide();
  }

  void forward(const HeadRows& given, const HeadPlace& place, Rows out) const {
    weigh(given, place);
    drop(place, [&](int64_t n, Floats factors) {
      store(after_.at + n, load(before_.at + n) * factors);
    });
    gather(given, out);
  }

 protected:
  Rows turned(Scratch& scratch) const {
    return {scratch.take(sizes_.width * sizes_.across()), sizes_.across()};
  }
  Rows scores(Scratch& scratch) const {
    return {scratch.take(sizes_.scores()), sizes_.across()};
  }

  // The softmax of scaled scores, biases and mask, before dropout.
  void weigh(const HeadRows& given, const HeadPlace& place) const {
    const auto& [queries, near_keys, far_keys, width] = sizes_;
    const int64_t across = sizes_.across();
    const size_t bytes = sizeof(float) * sizes_.scores();
    turn(given.query, queries, width, scale_, query_);
    if (place.bias)
      std::memcpy(before_.at, place.bias, bytes);
    else
      std::memset(before_.at, 0, bytes);
    multiply(given.key.matrix(), near_keys, width, query_, across, before_, true);
    if (place.visible) hide(place.visible);
    if (far_keys) {
      if (separate_) turn(given.far_query, queries, width, scale_, far_query_);
      multiply(given.far_key.matrix(), far_keys, width, far_query_, across,
               before_.from_row(near_keys), true);
    }
    softmax();
  }

  // Calls use(offset, factors) for every vector of turned scores, if dropout is on.
  template <typename Use>
  void drop(const HeadPlace& place, Use use) const {
    if (!dropout_.on()) return;
    const uint32_t keys = sizes_.keys(), queries = sizes_.queries;
    const Words query = counted(keys);
    for (uint32_t key = 0; key < keys; key++)
      for (uint32_t first = 0; first < queries; first += kLanes) {
        const uint32_t position = (place.number * queries + first) * keys + key;
        use(key * sizes_.across() + first, dropout_.factors(query + position));
      }
  }

  // Sums of values by the weights after dropout.
  void gather(const HeadRows& given, Rows out) const {
    const auto& [queries, near_keys, far_keys, width] = sizes_;
    const Rows found = of_queries_.begin(out);
    multiply(after_.matrix().turned(), queries, near_keys, of_near_(given.value),
             sizes_.wide(), found);
    if (far_keys)
      multiply(after_.from_row(near_keys).matrix().turned(), queries, far_keys,
               of_far_(given.far_value), sizes_.wide(), found, true);
    of_queries_.finish(out);
  }

  const HeadSizes sizes_;
  const float scale_;
  const bool separate_;
  const Dropout dropout_;
  const Rows query_, far_query_;  // turned and scaled
  const Rows before_, after_;     // turned weights, before and after dropout
  const Widened of_near_, of_far_, of_queries_;

 private:
  void hide(const bool* visible) const {
    for (int64_t query = 0; query < sizes_.queries; query++)
      for (int64_t key = 0; key < sizes_.near_keys; key++)
        if (!*visible++) before_.row(key)[query] = -FLT_MAX;
  }

  void softmax() const {
    const int64_t across = sizes_.across(), end = sizes_.scores();
    for (float* column = before_.at; column < before_.at + across; column += kLanes) {
      Floats highest = all(-FLT_MAX), total{};
      for (int64_t n = 0; n < end; n += across) {
        const Floats score = load(column + n);
        highest = score > highest ? score : highest;
      }
      for (int64_t n = 0; n < end; n += across) {
        const Floats weight = exp(load(column + n) - highest);
        total += weight;
        store(column + n, weight);
      }
      const Floats share = 1.0f / total;
      for (int64_t n = 0; n < end; n += across)
        store(column + n, load(column + n) * share);
    }
  }
};

// The gradient (Dao et al. 2022, appendix B), from weights that are computed again.
class HeadGradient : public HeadAttention {
 public:
  HeadGradient(const HeadSizes& sizes, float scale, bool separate, Dropout dropout,
               Scratch& scratch)
      : HeadAttention(sizes, scale, separate, dropout, scratch),
        dscores_(scores(scratch)),
        gradient_(turned(scratch)),
        scaled_{scratch.take(sizes.queries * sizes.wide()), sizes.wide()},
        of_dqueries_(sizes, sizes.queries, scratch) {}

  static int64_t floats(const HeadSizes& sizes) {
    return HeadAttention::floats(sizes) + sizes.scores() +
           sizes.width * sizes.across() + 2 * sizes.queries * sizes.wide();
  }

  // dbias: to be added to, as scores are turned; null if there is no bias. Gradients of
  //   far keys and values are added to what is there.
  // out: where to write the result of `forward`, if it is needed.
  void backward(const HeadRows& given, const HeadPlace& place, Rows dout,
                const HeadRows& found, float* dbias, const Rows* out = nullptr) const {
    const auto& [queries, near, far, width] = sizes_;
    const int64_t across = sizes_.across(), wide = sizes_.wide();
    turn(dout, queries, width, 1.0f, gradient_);
    weigh(given, place);
    multiply(given.value.matrix(), near, width, gradient_, across, dscores_);
    if (far)
      multiply(given.far_value.matrix(), far, width, gradient_, across,
               dscores_.from_row(near));
    drop(place, [&](int64_t n, Floats factors) {
      store(dscores_.at + n, load(dscores_.at + n) * factors);
      store(after_.at + n, load(before_.at + n) * factors);
    });
    if (out) gather(given, *out);

    const Rows wide_dout = of_queries_(dout);
    multiply(after_.matrix(), near, queries, wide_dout, wide,
             of_near_.begin(found.value));
    of_near_.finish(found.value);
    if (far) add_far(after_.from_row(near).matrix(), wide_dout, found.far_value);
    through_softmax(dbias);

    copy(given.query, queries, width, scaled_, scale_);
    multiply(dscores_.matrix(), near, queries, scaled_, wide,
             of_near_.begin(found.key));
    of_near_.finish(found.key);
    const Rows dquery = of_dqueries_.begin(found.query);
    multiply(dscores_.matrix().turned(), queries, near, of_near_(given.key), wide,
             dquery);
    if (far) {
      const Matrix dfar_scores = dscores_.from_row(near).matrix();
      if (separate_) copy(given.far_query, queries, width, scaled_, scale_);
      add_far(dfar_scores, scaled_, found.far_key);
      const Rows far_key = of_far_(given.far_key);
      const Rows into = separate_ ? of_queries_.begin(found.far_query) : dquery;
      multiply(dfar_scores.turned(), queries, far, far_key, wide, into, !separate_);
      if (separate_) {
        of_queries_.finish(found.far_query);
        copy(found.far_query, queries, width, found.far_query, scale_);
      }
    }
    of_dqueries_.finish(found.query);
    copy(found.query, queries, width, found.query, scale_);
  }

 private:
  void add_far(Matrix left, Rows right, Rows sum) const {
    const Rows into = of_far_.begin(sum);
    multiply(left, sizes_.far_keys, sizes_.queries, right, sizes_.wide(), into,
             into.at == sum.at);
    of_far_.finish(sum, true);
  }

  // From gradients of weights to those of scores.
  void through_softmax(float* dbias) const {
    const int64_t across = sizes_.across(), end = sizes_.scores();
    for (int64_t first = 0; first < across; first += kLanes) {
      Floats along{};
      for (int64_t n = first; n < end; n += across)
        along += load(before_.at + n) * load(dscores_.at + n);
      for (int64_t n = first; n < end; n += across) {
        const Floats change = load(before_.at + n) * (load(dscores_.at + n) - along);
        store(dscores_.at + n, change);
        if (dbias) store(dbias + n, load(dbias + n) + change);
      }
    }
  }

  const Rows dscores_, gradient_, scaled_;
  const Widened of_dqueries_;
};

// Biases `[shares, heads, queries, near keys]` of equal shares of the examples, or sums
// of their gradients, turned as scores are. There may be one head for all.
class Biases {
 public:
  struct Shape {
    int64_t shares, heads;  // both 0 if there is no bias
  };

  static int64_t floats(const HeadSizes& sizes, Shape shape) {
    return shape.shares * shape.heads * sizes.scores();
  }

  // examples: of the call.
  Biases(const HeadSizes& sizes, Shape shape, int64_t examples, Scratch& scratch)
      : sizes_(sizes),
        shape_(shape),
        examples_(examples),
        turned_(scratch.take(floats(sizes, shape))) {}

  void read(const float* biases) const {
    for (int64_t n = 0; n < shape_.shares * shape_.heads; n++)
      turn({const_cast<float*>(biases) + n * of_head(), sizes_.near_keys},
           sizes_.queries, sizes_.near_keys, 1.0f, rows(n));
  }

  void write(float* biases) const {
    for (int64_t n = 0; n < shape_.shares * shape_.heads; n++)
      turn(rows(n), sizes_.near_keys, sizes_.queries, 1.0f,
           {biases + n * of_head(), sizes_.near_keys});
  }

  // Of a head in an example; null if there is none.
  float* at(int64_t example, int64_t head) const {
    if (!shape_.heads) return nullptr;
    const int64_t share = example * shape_.shares / examples_;
    return rows(share * shape_.heads + (shape_.heads == 1 ? 0 : head)).at;
  }

 private:
  int64_t of_head() const { return sizes_.queries * sizes_.near_keys; }
  Rows rows(int64_t n) const {
    return {turned_ + n * sizes_.scores(), sizes_.across()};
  }

  const HeadSizes sizes_;
  const Shape shape_;
  const int64_t examples_;
  float* const turned_;
};

}  // namespace earthformer
