// The product C (m, n) = A (m, k) B (k, n) with the tiling of engine/kernels/matmul/cuda.py, as a person writes it in
// CUDA C++: a yardstick for what Numba's compiler makes of the same kernel. Sizes are multiples of the tile.
constexpr int ROWS = 128, COLUMNS = 128, DEPTH = 8, PAD = 4;

extern "C" __global__ void __launch_bounds__(256, 2)
sgemm(const float *__restrict__ a, const float *__restrict__ b, float *__restrict__ c, int m, int n, int k)
{
    __shared__ __align__(16) float left[2][DEPTH][ROWS + PAD], right[2][DEPTH][COLUMNS + PAD];
    const int t = threadIdx.x, group = t / 32, lane = t % 32;
    const int ty = 4 * (group / 2 * 4 + lane / 8), tx = 4 * (group % 2 * 8 + lane % 8);
    const int row0 = blockIdx.y * ROWS, column0 = blockIdx.x * COLUMNS;
    const int arow = t / 2, acol = t % 2 * 4, brow = t / 32, bcol = t % 32 * 4;
    const float *pa = a + (size_t)(row0 + arow) * k + acol, *pb = b + (size_t)brow * n + column0 + bcol;
    float sums[8][8] = {};
    float4 va = *(const float4 *)pa, vb = *(const float4 *)pb;
    int side = 0;
    auto keep = [&](int s) {
        left[s][acol][arow] = va.x; left[s][acol + 1][arow] = va.y;
        left[s][acol + 2][arow] = va.z; left[s][acol + 3][arow] = va.w;
        *(float4 *)&right[s][brow][bcol] = vb;
    };
    keep(0);
    __syncthreads();
    for (int start = DEPTH; start <= k; start += DEPTH) {
        if (start < k) {
            va = *(const float4 *)(pa + start);
            vb = *(const float4 *)(pb + (size_t)start * n);
        }
        #pragma unroll
        for (int q = 0; q < DEPTH; ++q) {
            float fa[8], fb[8];
            *(float4 *)&fa[0] = *(const float4 *)&left[side][q][ty];
            *(float4 *)&fa[4] = *(const float4 *)&left[side][q][ty + 64];
            *(float4 *)&fb[0] = *(const float4 *)&right[side][q][tx];
            *(float4 *)&fb[4] = *(const float4 *)&right[side][q][tx + 64];
            #pragma unroll
            for (int i = 0; i < 8; ++i)
                #pragma unroll
                for (int j = 0; j < 8; ++j)
                    sums[i][j] += fa[i] * fb[j];
        }
        side ^= 1;
        if (start < k)
            keep(side);
        __syncthreads();
    }
    #pragma unroll
    for (int i = 0; i < 8; ++i)
        for (int strip = 0; strip < 2; ++strip)
            *(float4 *)&c[(size_t)(row0 + i / 4 * 64 + ty + i % 4) * n + column0 + strip * 64 + tx] =
                make_float4(sums[i][4 * strip], sums[i][4 * strip + 1], sums[i][4 * strip + 2], sums[i][4 * strip + 3]);
}
