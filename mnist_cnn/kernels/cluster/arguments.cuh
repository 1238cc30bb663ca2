// What each kernel reads and writes; mnist_cnn/kernels/cluster/launch.py has the same fields.

#pragma once

/// What a training step reads and writes; shapes with N images of the batch in G groups.
struct StepArguments {
    const uint8* images;       // (all, 28, 28)
    const int64* labels;       // (all,)
    const int64* order;        // indices of the epoch's images
    const float* distortions;  // (images of the epoch, 10)
    const int64* position;     // images of the epoch already trained on
    int64* step;               // steps of the run; one is added
    const float* weights;      // (PARAMETERS,)
    float* losses;             // of the epoch's images
    float* gradients;          // (N, PARAMETERS)
    float* statistics;         // (G, STATISTICS)
    int count;                 // N
    float scale, offset;       // a pixel is value * scale - offset
    float smoothing;
};

/// What an evaluation of N images reads and writes.
struct EvaluationArguments {
    const uint8* images;
    const int64* labels;
    const float* weights;  // (PARAMETERS,)
    const float* running;  // (STATISTICS,)
    float* losses;         // (N,)
    float* correct;        // (N,), 1 or 0
    float scale, offset;
};

/// What an update reads and writes.
struct UpdateArguments {
    float* weights;              // (PARAMETERS,)
    float* velocities;           // (PARAMETERS,)
    float* average;              // (PARAMETERS,)
    float* running;              // (STATISTICS,)
    float* average_running;      // (STATISTICS,)
    const float* gradients;      // (N, PARAMETERS)
    const float* statistics;     // (G, STATISTICS)
    const float* rates;          // learning rate of each step
    const float* shares;         // weight of the network in the average after each step
    const int64* step;           // as the training step left it
    int64* position;             // N is added
    int count, groups;
    int averages;                // whether there is an average
    float momentum, decay;
};
