/* Class scores on a grid to a label and its confidence for each pixel, without scores at full size ever in memory.
 *
 * Compiled at run time by NVRTC as CUDA, and by a test with the C compiler, for which the kernel is a loop. Without
 * fused multiply-adds (--fmad=false, -ffp-contract=off) both give what the NumPy path gives, bit for bit.
 */

#ifdef __CUDACC__
#define PER_PIXEL static __device__ __forceinline__
#else
#define PER_PIXEL static inline
#endif

/* The highest of the classes' scores, interpolated between rows `top` and the next, columns `left` and the next.
 *
 * `scores` (classes, grid_rows, grid_columns); the weights are those of the next row and column. Of equal scores the
 * first wins, as argmax does. The confidence is the score, clipped to 0 .. 1.
 */
PER_PIXEL void best_class(const float *scores, int classes, int grid_rows, int grid_columns,
                          int top, float weight_below, int left, float weight_right,
                          unsigned char *label, float *confidence)
{
    const int below = top + 1 < grid_rows ? top + 1 : top;
    const int right = left + 1 < grid_columns ? left + 1 : left;
    const float *cell = scores;
    float best = 0.0f;
    int winner = 0;
    int index;

    for (index = 0; index < classes; index++) {
        const float top_left = cell[top * grid_columns + left];
        const float top_right = cell[top * grid_columns + right];
        const float at_left = top_left + (cell[below * grid_columns + left] - top_left) * weight_below;
        const float at_right = top_right + (cell[below * grid_columns + right] - top_right) * weight_below;
        const float score = at_left + (at_right - at_left) * weight_right;

        if (index == 0 || score > best) {
            best = score;
            winner = index;
        }
        cell += grid_rows * grid_columns;
    }
    *label = (unsigned char)winner;
    *confidence = best < 0.0f ? 0.0f : best > 1.0f ? 1.0f : best;
}

#ifdef __CUDACC__

/* One thread for each pixel of `labels` and `confidence`, both (rows, columns). `top` and `weight_below` have an entry
 * for each row, `left` and `weight_right` for each column. */
extern "C" __global__ void label_map(const float *scores, int classes, int grid_rows, int grid_columns,
                                     const int *top, const float *weight_below, int rows,
                                     const int *left, const float *weight_right, int columns,
                                     unsigned char *labels, float *confidence)
{
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    const int row = blockIdx.y * blockDim.y + threadIdx.y;

    if (row < rows && column < columns)
        best_class(scores, classes, grid_rows, grid_columns, top[row], weight_below[row], left[column],
                   weight_right[column], labels + row * columns + column, confidence + row * columns + column);
}

#else

void label_map(const float *scores, int classes, int grid_rows, int grid_columns,
               const int *top, const float *weight_below, int rows,
               const int *left, const float *weight_right, int columns,
               unsigned char *labels, float *confidence)
{
    int row, column;

    for (row = 0; row < rows; row++)
        for (column = 0; column < columns; column++)
            best_class(scores, classes, grid_rows, grid_columns, top[row], weight_below[row], left[column],
                       weight_right[column], labels + row * columns + column, confidence + row * columns + column);
}

#endif
