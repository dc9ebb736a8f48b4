// SPDX-License-Identifier: Apache-2.0
//
// The program hrnn-emit. Compiled once more for every emitter with cells of a user's own (cmake/hrnnAddCell.cmake), whose
// cells register themselves before it starts.
#include "hrnn/emit.h"

int main(int argc, char **argv) { return hrnn::emit_command(argc, argv); }
