// Dropout from hashed positions, with the bits of `tuned.hashed_key`.

#pragma once

#include "vectors.h"

namespace earthformer {

inline Words mixed(Words x) {  // `tuned.hashed_key.mix`
  x = (x ^ (x >> 16)) * 0x7FEB352Du;
  x = (x ^ (x >> 15)) * 0x846CA68Bu;
  return x ^ (x >> 16);
}

// 0, 1, 2 and so on, times a step.
inline Words counted(uint32_t step) {
  Words found;
  for (int i = 0; i < kLanes; i++) found[i] = i * step;
  return found;
}

// What the elements at certain positions are multiplied by.
class Dropout {
 public:
  // words: of a key, two or three; null if nothing is dropped.
  // numbers: drawn by the call. The third word is the number of a part, whose elements
  //   come after those of the parts before it.
  // threshold: elements whose 32 bits are less are dropped.
  Dropout(const uint32_t* words, int64_t count, int64_t numbers, int64_t threshold,
          float factor)
      : on_(count > 0), threshold_(threshold), factor_(factor) {
    if (!on_) return;
    step_ = words[1] | 1;
    start_ = words[0];
    if (count == 3) start_ += words[2] * static_cast<uint32_t>(numbers) * step_;
  }

  bool on() const { return on_; }

  Floats factors(Words position) const { return drawn(position * step_ + start_); }

  // Calls use(column, factors) for a row whose first element is at a position.
  template <typename Use>
  void each(uint32_t position, int64_t columns, Use use) const {
    Words at = (counted(1) + position) * step_ + start_;
    for (int64_t i = 0; i < columns; i += kLanes, at += kLanes * step_)
      use(i, on_ ? drawn(at) : all(1.0f));
  }

 private:
  Floats drawn(Words counter) const {
    const Ints kept = mixed(counter) >= threshold_;
    return only_where(kept, all(factor_));
  }

  const bool on_;
  const uint32_t threshold_;
  const float factor_;
  uint32_t start_ = 0, step_ = 1;
};

}  // namespace earthformer
