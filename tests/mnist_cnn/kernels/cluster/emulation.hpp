// The names of mnist_cnn/kernels/cluster/device.cuh, for a CPU: threads are fibers, which run one at a
// time until they wait for each other.
//
// What a fiber has written is seen by all: on a GPU a shuffle or a product is no barrier for memory, so
// a lane that reads what another wrote needs a barrier that nothing here asks for.
//
// With EXACT, what is bfloat16 elsewhere is float32, so that tests can tell a wrong formula from a rounded number.

#pragma once

#include <algorithm>
#include <csetjmp>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <type_traits>
#include <vector>
#include <ucontext.h>

#define DEVICE inline
#define KERNEL(name, Arguments) void name(const Arguments arguments)

constexpr int WARPS = 16;
constexpr int THREADS = 32 * WARPS;
constexpr int LARGEST_CLUSTER = 16;

using int64 = long long;
using uint8 = unsigned char;

inline float rounded_to_bfloat16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (value == value) bits += 0x7fff + (bits >> 16 & 1);  // to the nearest, ties to even
    bits &= 0xffff0000u;
    std::memcpy(&value, &bits, 4);
    return value;
}

struct Bfloat16 {
    float value;
};
struct Bfloat16Pair {
    float first, second;
};

#ifdef EXACT
inline Bfloat16 to_bfloat16(float value) { return {value}; }
#else
inline Bfloat16 to_bfloat16(float value) { return {rounded_to_bfloat16(value)}; }
#endif
inline float to_float(Bfloat16 value) { return value.value; }
inline float low(Bfloat16Pair pair) { return pair.first; }
inline float high(Bfloat16Pair pair) { return pair.second; }
inline Bfloat16Pair join(Bfloat16 first, Bfloat16 second) { return {first.value, second.value}; }
inline Bfloat16Pair to_pair(float first, float second) { return join(to_bfloat16(first), to_bfloat16(second)); }

inline void expect(bool kept, const char* what) {
    if (kept) return;
    std::fprintf(stderr, "emulation: %s\n", what);
    std::abort();
}

// ---- Fibers ----

/// Threads that wait for each other: all of them, or one more round.
struct Meeting {
    int size = 0, arrived = 0;
    long round = 0;
};

struct Warp {
    Meeting meeting;
    float shuffled[32], shown[32];
    float sums[32][4], products[32][4];
    Bfloat16Pair left[32][4], right[32][2];
};

struct Block {
    int number, rank;
    Meeting meeting;
    Warp warps[WARPS];
    void* memory;
};

struct Fiber {
    jmp_buf place;
    ucontext_t start;
    Block* block;
    int thread;
    const Meeting* waits_for = nullptr;
    long round = 0;
    bool is_begun = false, is_done = false;
    char* stack;
};

inline std::vector<Block>* the_cluster;
inline Meeting cluster_meeting;
inline Fiber* current;
inline jmp_buf scheduler;
inline std::function<void()> kernel_body;
inline int blocks_in_cluster;

inline void run_fiber() {
    kernel_body();
    current->is_done = true;
    _longjmp(scheduler, 1);
}

/// Wait until all have come here; the last one runs `act` before any goes on.
template <class Act>
inline void meet(Meeting& meeting, const Act& act) {
    if (++meeting.arrived == meeting.size) {
        act();
        meeting.arrived = 0;
        meeting.round++;
        return;
    }
    current->waits_for = &meeting;
    current->round = meeting.round;
    if (_setjmp(current->place) == 0) _longjmp(scheduler, 1);
    current->waits_for = nullptr;
}

inline int thread() { return current->thread; }
inline int block() { return current->block->number; }
inline int block_in_cluster() { return current->block->rank; }
inline int cluster_size() { return blocks_in_cluster; }
inline void block_sync() {
    meet(current->block->meeting, [] {});
}
inline void cluster_sync() {
    meet(cluster_meeting, [] {});
}
inline Warp& own_warp() { return current->block->warps[current->thread / 32]; }

template <class Shared>
inline Shared& shared_memory() {
    return *static_cast<Shared*>(current->block->memory);
}

inline float read_from_block(const float* address, int rank) {
    const auto offset = reinterpret_cast<const char*>(address) - static_cast<char*>(current->block->memory);
    return *reinterpret_cast<const float*>(static_cast<char*>((*the_cluster)[rank].memory) + offset);
}

inline float shuffle_xor(float value, int mask) {
    Warp& warp = own_warp();
    const int lane = current->thread % 32;
    warp.shuffled[lane] = value;
    meet(warp.meeting, [&] { std::memcpy(warp.shown, warp.shuffled, sizeof warp.shown); });
    return warp.shown[lane ^ mask];
}

inline Bfloat16Pair load_pair(const Bfloat16* address) {
    expect(reinterpret_cast<uintptr_t>(address) % (2 * sizeof(Bfloat16)) == 0, "a pair at an odd index");
    return join(address[0], address[1]);
}

inline void store_pair(Bfloat16* address, Bfloat16Pair pair) {
    expect(reinterpret_cast<uintptr_t>(address) % (2 * sizeof(Bfloat16)) == 0, "a pair at an odd index");
    address[0] = {pair.first};
    address[1] = {pair.second};
}

inline void multiply_tiles(Warp& warp) {
    float left[16][16], right[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const int g = lane / 4, t = lane % 4;
        for (int k = 0; k < 4; k++) {
            const int row = g + k % 2 * 8, column = 2 * t + k / 2 * 8;
            left[row][column] = warp.left[lane][k].first;
            left[row][column + 1] = warp.left[lane][k].second;
        }
        for (int k = 0; k < 2; k++) {
            right[2 * t + 8 * k][g] = warp.right[lane][k].first;
            right[2 * t + 8 * k + 1][g] = warp.right[lane][k].second;
        }
    }
    float product[16][8] = {};
    for (int row = 0; row < 16; row++) {
        for (int k = 0; k < 16; k++) {
            for (int column = 0; column < 8; column++) product[row][column] += left[row][k] * right[k][column];
        }
    }
    for (int lane = 0; lane < 32; lane++) {
        const int g = lane / 4, t = lane % 4;
        for (int k = 0; k < 4; k++) {
            warp.products[lane][k] = warp.sums[lane][k] + product[g + k / 2 * 8][2 * t + k % 2];
        }
    }
}

inline void multiply_add(float (&sums)[4], const Bfloat16Pair (&left)[4], const Bfloat16Pair (&right)[2]) {
    Warp& warp = own_warp();
    const int lane = current->thread % 32;
    std::memcpy(warp.sums[lane], sums, sizeof sums);
    std::memcpy(warp.left[lane], left, sizeof left);
    std::memcpy(warp.right[lane], right, sizeof right);
    meet(warp.meeting, [&] { multiply_tiles(warp); });
    std::memcpy(sums, warp.products[lane], sizeof sums);
}

// ---- Launches ----

constexpr size_t STACK_BYTES = 64 << 10;

/// Run a kernel on `grid` blocks in clusters, one cluster after the other.
///
/// Shared memory is full of NaN at first, as it may be on a GPU. With `order` other than 0 the threads
/// run in an order of chance between their meetings: where one more meeting is needed, the result
/// depends on it.
inline void launch(int grid, int cluster, size_t shared_bytes, unsigned order, std::function<void()> body) {
    expect(grid % cluster == 0, "a grid of whole clusters");
    kernel_body = std::move(body);
    blocks_in_cluster = cluster;
    std::vector<std::unique_ptr<char[]>> memories, stacks;
    for (int i = 0; i < cluster; i++) memories.emplace_back(new char[shared_bytes]);
    for (int i = 0; i < cluster * THREADS; i++) stacks.emplace_back(new char[STACK_BYTES]);
    for (int first = 0; first < grid; first += cluster) {
        std::vector<Block> blocks(cluster);
        the_cluster = &blocks;
        cluster_meeting = {cluster * THREADS};
        std::vector<Fiber> fibers(static_cast<size_t>(cluster) * THREADS);
        for (int rank = 0; rank < cluster; rank++) {
            Block& block = blocks[rank];
            block.number = first + rank;
            block.rank = rank;
            block.meeting.size = THREADS;
            for (Warp& warp : block.warps) warp.meeting.size = 32;
            block.memory = memories[rank].get();
            std::memset(block.memory, 0xff, shared_bytes);
            for (int thread = 0; thread < THREADS; thread++) {
                Fiber& fiber = fibers[rank * THREADS + thread];
                fiber.block = &block;
                fiber.thread = thread;
                fiber.stack = stacks[rank * THREADS + thread].get();
            }
        }
        std::vector<int> turns(fibers.size());
        std::iota(turns.begin(), turns.end(), 0);
        std::mt19937 generator(order);
        for (size_t left = fibers.size(); left > 0;) {
            bool has_moved = false;
            if (order) std::shuffle(turns.begin(), turns.end(), generator);
            for (const int turn : turns) {
                Fiber& fiber = fibers[turn];
                if (fiber.is_done) continue;
                if (fiber.waits_for != nullptr && fiber.waits_for->round == fiber.round) continue;
                has_moved = true;
                current = &fiber;
                if (_setjmp(scheduler) == 0) {
                    if (fiber.is_begun) _longjmp(fiber.place, 1);
                    fiber.is_begun = true;
                    getcontext(&fiber.start);
                    fiber.start.uc_stack.ss_sp = fiber.stack;
                    fiber.start.uc_stack.ss_size = STACK_BYTES;
                    makecontext(&fiber.start, run_fiber, 0);
                    setcontext(&fiber.start);
                }
                if (current->is_done) left--;
            }
            expect(has_moved, "threads wait for others that have ended or wait elsewhere");
        }
    }
}
