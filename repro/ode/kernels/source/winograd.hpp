// 3x3 convolutions with a border of zeros as 25 products of small matrices: Winograd's F(3x3, 3x3), with the points
// 0, 1, -1, 2 and infinity. Three by three results take 25 multiplications for each pair of channels in place of 81.
//
// With the tiles d of 5x5 numbers, three apart, y = A'[(G w G') o (B'd B)]A (Lavin and Gray 2016, arXiv 1509.09308); what
// goes back is the adjoint of each of these maps. All that is below works on planes of one channel [height width], a
// vector of rows of the batch at each place, so that it is sums of vectors.
#pragma once

#include "products.hpp"

constexpr int TILE = 3, POINTS = TILE + 2, PRODUCTS = POINTS * POINTS;

template <class V>
static inline void into_points(const V* d, int64_t by, V* to) {  // B'd
  const V t = d[3 * by] - d[by], u = d[2 * by] - d[by];
  to[0] = 2 * (d[0] - d[2 * by]) + t;
  to[1] = d[by] + d[2 * by] - t;
  to[2] = 3 * u - t;
  to[3] = t;
  to[4] = (d[4 * by] - d[2 * by]) - 2 * t;
}

template <class V>
static inline void into_points_adjoint(const V* g, int64_t by, V* to) {  // B g
  const V t = g[by] - 2 * g[2 * by] - g[3 * by];
  to[0] = 2 * g[0];
  to[1] = t + g[by] - g[0] + 2 * g[4 * by];
  to[2] = g[by] + 3 * g[2 * by] - 2 * g[0] - g[4 * by];
  to[3] = g[0] - g[by] - g[2 * by] + g[3 * by] - 2 * g[4 * by];
  to[4] = g[4 * by];
}

template <class V>
static inline void from_points(const V* m, int64_t by, V* to) {  // A'm
  const V t = m[by] + m[2 * by];
  to[0] = m[0] + t + m[3 * by];
  to[1] = m[by] - m[2 * by] + 2 * m[3 * by];
  to[2] = t + 4 * m[3 * by] + m[4 * by];
}

template <class V>
static inline void from_points_adjoint(const V* g, int64_t by, V* to) {  // A g
  const V t = g[0] + g[2 * by];
  to[0] = g[0];
  to[1] = t + g[by];
  to[2] = t - g[by];
  to[3] = g[0] + 2 * g[by] + 4 * g[2 * by];
  to[4] = g[2 * by];
}

// Apply a map of N_IN to N_OUT numbers along both axes of a square; `ld`: how far apart its rows lie.
template <int N_IN, int N_OUT, auto map, class V>
static inline void on_both_axes(const V* from, int64_t ld, V (*to)[N_OUT]) {
  V half[N_IN][N_OUT];
  UNROLL
  for (int i = 0; i < N_IN; ++i) map(from + i * ld, 1, half[i]);
  UNROLL
  for (int j = 0; j < N_OUT; ++j) {
    V column[N_OUT];
    map(&half[0][j], N_OUT, column);
    UNROLL
    for (int i = 0; i < N_OUT; ++i) to[i][j] = column[i];
  }
}

// The tiles of a plane, which lies in a room that is filled up to whole tiles: with its border, or without.
template <class T>
class Tiles {
  using V = Vec<T>;

 public:
  Tiles(int64_t height, int64_t width)
      : height_(height),
        width_(width),
        down_((height + TILE - 1) / TILE),
        across_((width + TILE - 1) / TILE),
        ld_(TILE * across_ + 2),
        size_(ld_ * (TILE * down_ + 2) * LANES<T>),
        bordered_(size_),
        bare_(size_),
        sum_(size_) {
    for (Buffer<T>* room : {&bordered_, &bare_}) std::fill_n(room->data(), size_, T(0));
  }

  int64_t columns() const { return down_ * across_ * LANES<T>; }

  // B'd B of every tile of plane x; product p of tile i goes to `to[p * apart + i]`.
  void take(const T* x, T* to, int64_t apart) { to_points<POINTS, into_points<V>>(x, bordered_, 1, to, apart); }

  // The adjoint of `take`: the plane's cotangent g.
  void take_adjoint(const T* from, int64_t apart, T* g) {
    of_points<POINTS, into_points_adjoint<V>>(from, apart, 1, [](V x, int64_t) { return x; }, g);
  }

  // A'mA of every tile, and for each place its number of `more`, in plane y.
  void give(const T* from, int64_t apart, const T* more, T* y) {
    of_points<TILE, from_points<V>>(from, apart, 0, [more](V x, int64_t place) { return x + more[place]; }, y);
  }

  // The adjoint of `give`.
  void give_adjoint(const T* g, T* to, int64_t apart) { to_points<TILE, from_points_adjoint<V>>(g, bare_, 0, to, apart); }

 private:
  // Squares of N x N numbers of a plane, each by the map; around the plane the room is zero and stays so.
  template <int N, auto map>
  void to_points(const T* x, Buffer<T>& room, int64_t border, T* to, int64_t apart) {
    for (int64_t i = 0; i < height_; ++i)
      std::copy_n(x + i * width_ * LANES<T>, width_ * LANES<T>, room.data() + ((i + border) * ld_ + border) * LANES<T>);
    each([&](int64_t place, int64_t i) {
      V points[POINTS][POINTS];
      on_both_axes<N, POINTS, map>((const V*)room.data() + place, ld_, points);
      T* first = to + i * LANES<T>;
      UNROLL
      for (int a = 0; a < POINTS; ++a)
        UNROLL
        for (int b = 0; b < POINTS; ++b) *(V*)(first + (a * POINTS + b) * apart) = points[a][b];
    });
  }

  // The sum of such squares, each from its points by the map, in plane x by `last`. Squares of TILE don't overlap.
  template <int N, auto map, class Last>
  void of_points(const T* from, int64_t apart, int64_t border, Last last, T* x) {
    constexpr bool overlap = N > TILE;
    V* sum = (V*)sum_.data();
    if (overlap) std::fill_n(sum_.data(), size_, T(0));
    each([&](int64_t place, int64_t i) {
      V points[POINTS][POINTS], square[N][N];
      const T* first = from + i * LANES<T>;
      UNROLL
      for (int a = 0; a < POINTS; ++a)
        UNROLL
        for (int b = 0; b < POINTS; ++b) points[a][b] = *(const V*)(first + (a * POINTS + b) * apart);
      on_both_axes<POINTS, N, map>(&points[0][0], POINTS, square);
      UNROLL
      for (int a = 0; a < N; ++a)
        UNROLL
        for (int b = 0; b < N; ++b) {
          V& at = sum[place + a * ld_ + b];
          at = overlap ? at + square[a][b] : square[a][b];
        }
    });
    for (int64_t i = 0; i < height_; ++i)
      for (int64_t j = 0; j < width_; ++j)
        ((V*)x)[i * width_ + j] = last(sum[(i + border) * ld_ + border + j], i * width_ + j);
  }

  template <class Act>
  void each(Act act) {
    for (int64_t i = 0; i < down_; ++i)
      for (int64_t j = 0; j < across_; ++j) act(TILE * (i * ld_ + j), i * across_ + j);
  }

  const int64_t height_, width_, down_, across_, ld_, size_;
  Buffer<T> bordered_, bare_, sum_;
};
