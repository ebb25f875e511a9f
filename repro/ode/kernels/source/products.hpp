// Vectors, memory, and the matrix products that the kernels are made of.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#ifdef __AVX512F__
constexpr int VECTOR_BYTES = 64, COLUMN_VECTORS = 4;
#else
constexpr int VECTOR_BYTES = 32, COLUMN_VECTORS = 2;
#endif
#define UNROLL _Pragma("GCC unroll 8")  // else the sums of a tile are kept in memory
#define UNROLL_ALL _Pragma("GCC unroll 16")
constexpr int TILE_ROWS = 6;
constexpr int64_t DEPTH = 128;  // of a product's sums; longer ones are summed in parts, for less rounding

template <class T>
using Vec __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(T)), may_alias)) = T;

template <class T>
constexpr int LANES = VECTOR_BYTES / sizeof(T);

template <class T>
static int64_t padded(int64_t n) {
  return (n + LANES<T> - 1) / LANES<T> * LANES<T>;
}

// Numbers that whoever takes them writes first. A thread's memory goes round: the system would clear it every time.
// It begins with a cache line, so that vectors do not lie across two of them.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t n) {
    auto& waiting = pool();
    const auto fits = [n](const Memory& m) { return m.size >= n && m.size <= 2 * n + 1024; };
    const auto found = std::find_if(waiting.begin(), waiting.end(), fits);
    if (found == waiting.end()) {
      memory_ = {n, Numbers(static_cast<T*>(::operator new(n * sizeof(T), LINE)))};
    } else {
      memory_ = std::move(*found);
      waiting.erase(found);
    }
  }
  Buffer(Buffer&&) = default;
  Buffer& operator=(Buffer&&) = default;
  ~Buffer() {
    if (memory_.numbers && pool().size() < MOST) pool().push_back(std::move(memory_));
  }
  T* data() { return memory_.numbers.get(); }
  const T* data() const { return memory_.numbers.get(); }

 private:
  static constexpr std::align_val_t LINE{64};
  struct Free {
    void operator()(T* numbers) const { ::operator delete(numbers, LINE); }
  };
  using Numbers = std::unique_ptr<T[], Free>;
  struct Memory {
    int64_t size = 0;
    Numbers numbers;
  };
  static constexpr size_t MOST = 256;
  static std::vector<Memory>& pool() {
    thread_local std::vector<Memory> waiting;
    return waiting;
  }
  Memory memory_;
};

// ---- matrix products: C[i][j] (+)= sum_p A(i, p) B[p][j], with A(i, p) at a[i * ai + p * ap] ----

template <class T, int M, int N>
static void tile(const T* a, int64_t ai, int64_t ap, const T* b, int64_t ldb, T* c, int64_t ldc, int64_t depth, bool add) {
  Vec<T> sum[M][N] = {};
  for (int64_t p = 0; p < depth; ++p) {
    Vec<T> row[N];
    UNROLL
    for (int j = 0; j < N; ++j) row[j] = *(const Vec<T>*)(b + p * ldb + j * LANES<T>);
    UNROLL
    for (int i = 0; i < M; ++i) {
      const T value = a[i * ai + p * ap];
      UNROLL
      for (int j = 0; j < N; ++j) sum[i][j] += value * row[j];
    }
  }
  UNROLL
  for (int i = 0; i < M; ++i)
    UNROLL
    for (int j = 0; j < N; ++j) {
      Vec<T>& target = *(Vec<T>*)(c + i * ldc + j * LANES<T>);
      target = add ? target + sum[i][j] : sum[i][j];
    }
}

template <class T, int M, int N>
static void tile_rows(int64_t m, const T* a, int64_t ai, int64_t ap, const T* b, int64_t ldb, T* c, int64_t ldc,
                      int64_t depth, bool add) {
  if (m == M)
    tile<T, M, N>(a, ai, ap, b, ldb, c, ldc, depth, add);
  else if constexpr (M > 1)
    tile_rows<T, M - 1, N>(m, a, ai, ap, b, ldb, c, ldc, depth, add);
}

template <class T, int N>
static void panel(int64_t vectors, int64_t m, const T* a, int64_t ai, int64_t ap, const T* b, int64_t ldb, T* c,
                  int64_t ldc, int64_t depth, bool add) {
  if (vectors == N) {
    for (int64_t p = 0; p < depth; p += DEPTH)
      for (int64_t i = 0; i < m; i += TILE_ROWS)
        tile_rows<T, TILE_ROWS, N>(std::min<int64_t>(TILE_ROWS, m - i), a + i * ai + p * ap, ai, ap, b + p * ldb, ldb,
                                   c + i * ldc, ldc, std::min(DEPTH, depth - p), add || p > 0);
  } else if constexpr (N > 1) {
    panel<T, N - 1>(vectors, m, a, ai, ap, b, ldb, c, ldc, depth, add);
  }
}

// Columns of B and C are padded to whole vectors. ldb 0: B lies in panels, one after the other.
template <class T>
static void multiply(int64_t m, int64_t n, int64_t depth, const T* a, int64_t ai, int64_t ap, const T* b, int64_t ldb,
                     T* c, int64_t ldc, bool add) {
  for (int64_t j = 0; j < padded<T>(n); j += COLUMN_VECTORS * LANES<T>) {
    const int64_t vectors = std::min<int64_t>(COLUMN_VECTORS, (padded<T>(n) - j) / LANES<T>);
    const T* columns = ldb ? b + j : b + j * depth;
    panel<T, COLUMN_VECTORS>(vectors, m, a, ai, ap, columns, ldb ? ldb : vectors * LANES<T>, c + j, ldc, depth, add);
  }
}

// B[p][j] = at(p, j) in panels of contiguous columns: a matrix of many rows then needs few pages at a time.
template <class T, class At>
static void pack(int64_t n, int64_t depth, At at, T* b) {
  for (int64_t j = 0; j < padded<T>(n); j += COLUMN_VECTORS * LANES<T>) {
    const int64_t width = std::min<int64_t>(COLUMN_VECTORS * LANES<T>, padded<T>(n) - j);
    for (int64_t p = 0; p < depth; ++p)
      for (int64_t i = j; i < j + width; ++i) *b++ = i < n ? at(p, i) : T(0);
  }
}

// Columns of a product so few that dot products along the depth beat rows that are mostly padding.
constexpr int64_t FEW_COLUMNS = 3;

template <class T>
static inline T sum_of(const Vec<T>& x) {
  T lanes[LANES<T>];
  std::memcpy(lanes, &x, sizeof x);
  UNROLL
  for (int half = LANES<T> / 2; half > 0; half /= 2)
    UNROLL
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

// C[i][j] = sum_p A[i][p] B[j][p] for N columns j.
template <class T, int N>
static void dots(int64_t m, int64_t depth, const T* a, int64_t lda, const T* b, T* c, int64_t ldc) {
  const int64_t whole = depth / LANES<T> * LANES<T>;
  for (int64_t i = 0; i < m; ++i) {
    const T* row = a + i * lda;
    Vec<T> sum[N] = {};
    for (int64_t p = 0; p < whole; p += LANES<T>)
      UNROLL
      for (int j = 0; j < N; ++j) sum[j] += *(const Vec<T>*)(row + p) * *(const Vec<T>*)(b + j * depth + p);
    for (int j = 0; j < N; ++j) {
      T total = sum_of<T>(sum[j]);
      for (int64_t p = whole; p < depth; ++p) total += row[p] * b[j * depth + p];
      c[i * ldc + j] = total;
    }
    std::fill(c + i * ldc + N, c + i * ldc + padded<T>(N), T(0));
  }
}

// B[p][j] = at(p, j) as `multiply_rows` reads it: in panels, or few columns one after the other.
template <class T, class At>
static void pack_columns(int64_t n, int64_t depth, At at, T* b) {
  if (n > FEW_COLUMNS) return pack<T>(n, depth, at, b);
  for (int64_t j = 0; j < n; ++j)
    for (int64_t p = 0; p < depth; ++p) *b++ = at(p, j);
}

// C = A B, with rows of A and B as `pack_columns` has it.
template <class T>
static void multiply_rows(int64_t m, int64_t n, int64_t depth, const T* a, int64_t lda, const T* b, T* c, int64_t ldc) {
  static_assert(FEW_COLUMNS == 3);
  if (n == 1) dots<T, 1>(m, depth, a, lda, b, c, ldc);
  else if (n == 2) dots<T, 2>(m, depth, a, lda, b, c, ldc);
  else if (n == 3) dots<T, 3>(m, depth, a, lda, b, c, ldc);
  else multiply<T>(m, n, depth, a, lda, 1, b, 0, c, ldc, false);
}


// C += A' B for the rows of A [depth][lda] and B [depth][ldb], C [m][ldb]. Where rows are long, what a tile reads is
// brought together first: else it would need two pages for each of them.
template <class T>
static void add_product(int64_t m, int64_t n, int64_t depth, const T* a, int64_t lda, const T* b, int64_t ldb, T* c) {
  constexpr int64_t LONG = 4096 / sizeof(T);
  if (lda + ldb < LONG) return multiply<T>(m, n, depth, a, 1, lda, b, ldb, c, ldb, true);
  Buffer<T> left((m + TILE_ROWS) * depth), right(DEPTH * COLUMN_VECTORS * LANES<T>);
  for (int64_t p0 = 0; p0 < depth; p0 += DEPTH) {
    const int64_t many = std::min(DEPTH, depth - p0);
    for (int64_t i = 0; i < m; i += TILE_ROWS) {
      const int64_t wide = std::min<int64_t>(TILE_ROWS, m - i);
      T* to = left.data() + p0 * m + i * many;
      for (int64_t p = 0; p < many; ++p)
        for (int64_t k = 0; k < wide; ++k) to[p * wide + k] = a[(p0 + p) * lda + i + k];
    }
  }
  for (int64_t j = 0; j < padded<T>(n); j += COLUMN_VECTORS * LANES<T>) {
    const int64_t columns = std::min<int64_t>(COLUMN_VECTORS * LANES<T>, padded<T>(n) - j);
    for (int64_t p0 = 0; p0 < depth; p0 += DEPTH) {
      const int64_t many = std::min(DEPTH, depth - p0);
      for (int64_t p = 0; p < many; ++p) std::copy_n(b + (p0 + p) * ldb + j, columns, right.data() + p * columns);
      for (int64_t i = 0; i < m; i += TILE_ROWS) {
        const int64_t wide = std::min<int64_t>(TILE_ROWS, m - i);
        panel<T, COLUMN_VECTORS>(columns / LANES<T>, wide, left.data() + p0 * m + i * many, 1, wide, right.data(),
                                 columns, c + i * ldb + j, ldb, many, true);
      }
    }
  }
}

// ---- transposition ----

// The lanes `I` of two vectors one after the other.
template <class T, int... I>
static inline Vec<T> pick(const Vec<T>& x, const Vec<T>& y) {
#ifdef __clang__
  return __builtin_shufflevector(x, y, I...);
#else
  using Index = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  typedef Index Indices __attribute__((vector_size(VECTOR_BYTES)));
  return __builtin_shuffle(x, y, Indices{I...});
#endif
}

// Exchange the blocks off the diagonal, of H rows and lanes, of a square that is given by its rows.
template <class T, int H, int... LANE>
static inline void exchange(Vec<T>* rows, std::integer_sequence<int, LANE...>) {
  constexpr int L = LANES<T>;
  UNROLL_ALL
  for (int i = 0; i < L; ++i)
    if (!(i & H)) {
      const Vec<T> upper = rows[i], lower = rows[i + H];
      rows[i] = pick<T, ((LANE & H) ? L + LANE - H : LANE)...>(upper, lower);
      rows[i + H] = pick<T, ((LANE & H) ? L + LANE : LANE + H)...>(upper, lower);
    }
  if constexpr (H > 1) exchange<T, H / 2>(rows, std::integer_sequence<int, LANE...>{});
}

// to[j][i] = from[i][j] for i < rows, j < columns.
template <class T>
static void transpose(int64_t rows, int64_t columns, const T* from, int64_t ld_from, T* to, int64_t ld_to) {
  constexpr int64_t L = LANES<T>;
  const int64_t whole_rows = rows / L * L, whole_columns = columns / L * L;
  for (int64_t i = 0; i < whole_rows; i += L)
    for (int64_t j = 0; j < whole_columns; j += L) {
      Vec<T> square[L];
      UNROLL_ALL
      for (int64_t k = 0; k < L; ++k) square[k] = *(const Vec<T>*)(from + (i + k) * ld_from + j);
      exchange<T, L / 2>(square, std::make_integer_sequence<int, L>{});
      UNROLL_ALL
      for (int64_t k = 0; k < L; ++k) *(Vec<T>*)(to + (j + k) * ld_to + i) = square[k];
    }
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = i < whole_rows ? whole_columns : 0; j < columns; ++j) to[j * ld_to + i] = from[i * ld_from + j];
}

// Add the sum over lanes of each of n vectors.
template <class T>
static void add_sums(int64_t n, const Vec<T>* x, T* to) {
  constexpr int64_t L = LANES<T>;
  for (int64_t i = 0; i < n / L * L; i += L) {
    Vec<T> square[L], sum{};
    UNROLL_ALL
    for (int64_t k = 0; k < L; ++k) square[k] = x[i + k];
    exchange<T, L / 2>(square, std::make_integer_sequence<int, L>{});
    UNROLL_ALL
    for (int64_t k = 0; k < L; ++k) sum += square[k];
    *(Vec<T>*)(to + i) += sum;
  }
  for (int64_t i = n / L * L; i < n; ++i) to[i] += sum_of<T>(x[i]);
}
