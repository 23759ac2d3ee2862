// Planes of channels, as convolutions see them.

#pragma once

#include "arrays.h"

namespace earthformer {

// Some rows and columns of one plane.
struct Part {
  int64_t plane, top, left, height, width;
};

// Where the channels of folded planes lie in memory: those of a position belong to
// `down` times `across` positions there, its phases. The first `top` rows and `left`
// columns are not in memory, nor are those that come after its end.
struct Phases {
  int64_t down = 1, across = 1, top = 0, left = 0;
};

// A few floats, without the call that memcpy is.
inline void copy_floats(const float* from, int64_t count, float* to) {
  int64_t n = 0;
  for (; n + kLanes <= count; n += kLanes) store(to + n, load(from + n));
  for (; n < count; n++) to[n] = from[n];
}

// Planes in memory, folded to fewer positions with more channels.
class Planes {
 public:
  const int64_t count, height, width, channels;

  Planes(const F32& array, int64_t height, int64_t width, Phases phases)
      : count(array.dimensions()[0]),
        height(height),
        width(width),
        channels(phases.down * phases.across * array.dimensions()[3]),
        data_(array.typed_data()),
        rows_(array.dimensions()[1]),
        columns_(array.dimensions()[2]),
        own_channels_(array.dimensions()[3]),
        phases_(phases) {}
  explicit Planes(const F32& array)
      : Planes(array, array.dimensions()[1], array.dimensions()[2], Phases{}) {}

  bool folded() const { return channels != own_channels_; }

  // The channels of a position in memory; not for folded planes.
  float* at(int64_t plane, int64_t row, int64_t column) const {
    return data_ + ((plane * rows_ + row) * columns_ + column) * own_channels_;
  }

  // Calls use(place, n, count) for some channels of a position: from the n-th of them
  // on, `count` lie in memory in one piece, or nowhere, if the place is null.
  template <typename Use>
  void each_piece(int64_t plane, int64_t row, int64_t column, int64_t first,
                  int64_t count, Use use) const {
    if (!folded()) return use(at(plane, row, column) + first, 0, count);
    for (int64_t n = 0; n < count;) {
      const int64_t phase = (first + n) / own_channels_;
      const int64_t within = (first + n) % own_channels_;
      const int64_t pieces = std::min(own_channels_ - within, count - n);
      const int64_t own_row = row * phases_.down + phase / phases_.across - phases_.top;
      const int64_t own_column =
          column * phases_.across + phase % phases_.across - phases_.left;
      const bool there =
          own_row >= 0 && own_row < rows_ && own_column >= 0 && own_column < columns_;
      use(there ? at(plane, own_row, own_column) + within : nullptr, n, pieces);
      n += pieces;
    }
  }

  void read(int64_t plane, int64_t row, int64_t column, int64_t first, int64_t count,
            float* to) const {
    const auto copy = [&](const float* place, int64_t n, int64_t pieces) {
      if (place)
        copy_floats(place, pieces, to + n);
      else
        std::fill(to + n, to + n + pieces, 0.0f);
    };
    each_piece(plane, row, column, first, count, copy);
  }

  void write(int64_t plane, int64_t row, int64_t column, int64_t first, int64_t count,
             const float* from) const {
    const auto copy = [&](float* place, int64_t n, int64_t pieces) {
      if (place) copy_floats(from + n, pieces, place);
    };
    each_piece(plane, row, column, first, count, copy);
  }

 private:
  float* const data_;
  const int64_t rows_, columns_, own_channels_;
  const Phases phases_;
};

// The parts that planes are computed in, of about so many positions.
class Parts {
 public:
  Parts(const Planes& planes, int64_t positions)
      : planes_(planes),
        across_(divided(planes.width, positions)),
        width_(divided(planes.width, across_)),
        down_(divided(planes.height, std::max<int64_t>(1, positions / width_))),
        height_(divided(planes.height, down_)) {}

  int64_t count() const { return planes_.count * down_ * across_; }
  int64_t most_rows() const { return height_; }
  int64_t most_columns() const { return width_; }
  int64_t most_positions() const { return height_ * width_; }

  Part operator()(int64_t n) const {
    const int64_t left = n % across_ * width_, top = n / across_ % down_ * height_;
    return {n / across_ / down_, top, left,
            std::max<int64_t>(0, std::min(height_, planes_.height - top)),
            std::max<int64_t>(0, std::min(width_, planes_.width - left))};
  }

 private:
  static int64_t divided(int64_t n, int64_t by) { return (n + by - 1) / by; }

  const Planes& planes_;
  const int64_t across_, width_, down_, height_;
};

}  // namespace earthformer
