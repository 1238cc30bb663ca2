// What the kernels need of a GPU: bfloat16, products of matrices, and barriers.
//
// tests/mnist_cnn/kernels/cluster/emulation.hpp has the same names for a CPU, so that tests run the
// kernels without a GPU. Source: PTX ISA 8.0, "Warp-level matrix instructions" and "barrier.cluster".

#pragma once

#define DEVICE __device__ __forceinline__
#define KERNEL(name, Arguments) \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) name(const Arguments arguments)

constexpr int WARPS = 16;
constexpr int THREADS = 32 * WARPS;
/// Most blocks of a cluster.
constexpr int LARGEST_CLUSTER = 16;

using int64 = long long;
using uint8 = unsigned char;

/// A number in bfloat16.
struct Bfloat16 {
    unsigned short bits;
};

/// Two numbers in bfloat16 that lie side by side; the first one in the low bits.
struct Bfloat16Pair {
    unsigned bits;
};

DEVICE int thread() { return threadIdx.x; }
DEVICE int block() { return blockIdx.x; }

/// Number of this block in its cluster.
DEVICE int block_in_cluster() {
    int rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

/// Number of blocks in a cluster.
DEVICE int cluster_size() {
    int size;
    asm("mov.u32 %0, %%cluster_nctaid.x;" : "=r"(size));
    return size;
}

/// The block's shared memory.
template <class Shared>
DEVICE Shared& shared_memory() {
    extern __shared__ __align__(16) unsigned char memory[];
    return *reinterpret_cast<Shared*>(memory);
}

DEVICE void block_sync() { __syncthreads(); }

/// Wait for all threads of all blocks of the cluster; what they wrote before can be read after it.
DEVICE void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release;" ::: "memory");
    asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}

/// The number at `address` in the shared memory of another block of the cluster.
DEVICE float read_from_block(const float* address, int rank) {
    unsigned here = static_cast<unsigned>(__cvta_generic_to_shared(address)), there;
    float value;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(rank));
    asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(value) : "r"(there) : "memory");
    return value;
}

/// The value of the lane whose number differs in the bits of `mask`.
DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(~0u, value, mask); }

DEVICE float to_float(Bfloat16 value) {
    return __uint_as_float(static_cast<unsigned>(value.bits) << 16);
}
DEVICE float low(Bfloat16Pair pair) { return __uint_as_float(pair.bits << 16); }
DEVICE float high(Bfloat16Pair pair) { return __uint_as_float(pair.bits & 0xffff0000u); }

DEVICE Bfloat16 to_bfloat16(float value) {
    Bfloat16 rounded;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded.bits) : "f"(value));
    return rounded;
}

DEVICE Bfloat16Pair to_pair(float first, float second) {
    Bfloat16Pair pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair.bits) : "f"(second), "f"(first));
    return pair;
}

DEVICE Bfloat16Pair join(Bfloat16 first, Bfloat16 second) {
    return {static_cast<unsigned>(first.bits) | static_cast<unsigned>(second.bits) << 16};
}

/// Read or write two numbers at an even index.
DEVICE Bfloat16Pair load_pair(const Bfloat16* address) {
    return *reinterpret_cast<const Bfloat16Pair*>(address);
}
DEVICE void store_pair(Bfloat16* address, Bfloat16Pair pair) {
    *reinterpret_cast<Bfloat16Pair*>(address) = pair;
}

/// Add to a tile (16, 8) the product of tiles (16, 16) and (16, 8), which the lanes of a warp share.
///
/// With g = lane / 4 and t = lane % 4 a lane has, of the sums: rows g and g + 8, columns 2t and
/// 2t + 1; of the left tile: the same rows, pairs t and t + 4 along its columns, rows first; of the
/// right tile: column g, pairs t and t + 4 along its rows.
DEVICE void multiply_add(float (&sums)[4], const Bfloat16Pair (&left)[4],
                         const Bfloat16Pair (&right)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(left[0].bits), "r"(left[1].bits), "r"(left[2].bits), "r"(left[3].bits),
          "r"(right[0].bits), "r"(right[1].bits));
}
