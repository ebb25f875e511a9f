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
template <int N_IN, int N_OUT, class V, class Map>
static inline void on_both_axes(const V* from, int64_t ld, V (*to)[N_OUT], Map map) {
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

// The tiles of a plane. A plane with its border, filled up to whole tiles, is made in `room`, which is zero at first.
template <class T>
class Tiles {
 public:
  using V = Vec<T>;
  const int64_t height, width, down, across;

  Tiles(int64_t height, int64_t width)
      : height(height),
        width(width),
        down((height + TILE - 1) / TILE),
        across((width + TILE - 1) / TILE),
        ld_(TILE * across + 2),
        room_(ld_ * (TILE * down + 2) * LANES<T>) {
    clear();
  }

  int64_t count() const { return down * across; }
  int64_t columns() const { return count() * LANES<T>; }

  // B'd B of every tile of plane x; product p of tile i goes to `to[p * apart + i]`.
  void take(const T* x, T* to, int64_t apart) {
    copy_in(x, 1);
    each([&](int64_t place, int64_t i) {
      V points[POINTS][POINTS];
      on_both_axes<POINTS, POINTS>(room() + place, ld_, points, into_points<V>);
      scatter(points, to + i * LANES<T>, apart);
    });
  }

  // The adjoint of `take`: the plane's cotangent g.
  void take_adjoint(const T* from, int64_t apart, T* g) {
    clear();
    each([&](int64_t place, int64_t i) {
      V points[POINTS][POINTS], square[POINTS][POINTS];
      gather(from + i * LANES<T>, apart, points);
      on_both_axes<POINTS, POINTS>(&points[0][0], POINTS, square, into_points_adjoint<V>);
      UNROLL
      for (int a = 0; a < POINTS; ++a)
        UNROLL
        for (int b = 0; b < POINTS; ++b) room()[place + a * ld_ + b] += square[a][b];
    });
    copy_out(1, g, [](V x, int64_t) { return x; });
    clear();
  }

  // A'mA of every tile, and for each place its number of `more`, in plane y.
  void give(const T* from, int64_t apart, const T* more, T* y) {
    each([&](int64_t place, int64_t i) {
      V points[POINTS][POINTS], square[TILE][TILE];
      gather(from + i * LANES<T>, apart, points);
      on_both_axes<POINTS, TILE>(&points[0][0], POINTS, square, from_points<V>);
      UNROLL
      for (int a = 0; a < TILE; ++a)
        UNROLL
        for (int b = 0; b < TILE; ++b) room()[place + a * ld_ + b] = square[a][b];
    });
    copy_out(0, y, [more](V x, int64_t place) { return x + more[place]; });
    clear();
  }

  // The adjoint of `give`.
  void give_adjoint(const T* g, T* to, int64_t apart) {
    copy_in(g, 0);
    each([&](int64_t place, int64_t i) {
      V points[POINTS][POINTS];
      on_both_axes<TILE, POINTS>(room() + place, ld_, points, from_points_adjoint<V>);
      scatter(points, to + i * LANES<T>, apart);
    });
    clear();
  }

 private:
  static void scatter(const V (*points)[POINTS], T* to, int64_t apart) {
    UNROLL
    for (int a = 0; a < POINTS; ++a)
      UNROLL
      for (int b = 0; b < POINTS; ++b) *(V*)(to + (a * POINTS + b) * apart) = points[a][b];
  }
  static void gather(const T* from, int64_t apart, V (*points)[POINTS]) {
    UNROLL
    for (int a = 0; a < POINTS; ++a)
      UNROLL
      for (int b = 0; b < POINTS; ++b) points[a][b] = *(const V*)(from + (a * POINTS + b) * apart);
  }

  V* room() { return (V*)room_.data(); }
  void clear() { std::fill_n(room_.data(), ld_ * (TILE * down + 2) * LANES<T>, T(0)); }

  void copy_in(const T* x, int64_t border) {
    for (int64_t i = 0; i < height; ++i)
      std::copy_n(x + i * width * LANES<T>, width * LANES<T>, room_.data() + ((i + border) * ld_ + border) * LANES<T>);
  }

  template <class Map>
  void copy_out(int64_t border, T* x, Map map) {
    for (int64_t i = 0; i < height; ++i)
      for (int64_t j = 0; j < width; ++j)
        ((V*)x)[i * width + j] = map(room()[(i + border) * ld_ + border + j], i * width + j);
  }

  template <class Act>
  void each(Act act) {
    for (int64_t i = 0; i < down; ++i)
      for (int64_t j = 0; j < across; ++j) act(TILE * (i * ld_ + j), i * across + j);
  }

  const int64_t ld_;
  Buffer<T> room_;
};
