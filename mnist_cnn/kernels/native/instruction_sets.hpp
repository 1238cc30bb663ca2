// The instruction sets of this library, and whether this processor has them.
#pragma once

#include "instruction_set.hpp"

namespace native {

// The set of that name, or null.
const InstructionSet* instruction_set(const char* name);

// Whether its instructions run here.
bool runs(const InstructionSet& set);

// Whether a set's instructions can be executed: some systems claim what they do not let run.
bool executes(void (*probe)());

// Their names, separated by spaces, the fastest first.
const char* instruction_set_names();

}  // namespace native
