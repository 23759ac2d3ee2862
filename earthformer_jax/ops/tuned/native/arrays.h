// Arrays of JAX as functions in C++ take them.

#pragma once

#include "dropout.h"
#include "head.h"
#include "xla/ffi/api/ffi.h"

namespace earthformer {

namespace ffi = xla::ffi;
using F32 = ffi::Buffer<ffi::F32>;
using S32 = ffi::Buffer<ffi::S32>;
using U32 = ffi::Buffer<ffi::U32>;
using Bools = ffi::Buffer<ffi::PRED>;
using Out = ffi::ResultBuffer<ffi::F32>;

// words: of a key; none if nothing is dropped. See `Dropout` for the others.
inline Dropout dropout_of(const U32& words, int64_t numbers, int64_t threshold,
                          float factor) {
  return {words.typed_data(), static_cast<int64_t>(words.element_count()), numbers,
          threshold, factor};
}

inline Biases::Shape shape_of(const F32& biases) {
  if (!biases.element_count()) return {0, 0};
  return {biases.dimensions()[0], biases.dimensions()[1]};
}

}  // namespace earthformer
