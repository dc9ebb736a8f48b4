// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace hrnn {

// The whole of the program hrnn-emit (`hrnn-emit --help`), over all cells that are registered in the process. Prints what
// is wrong and returns the exit status.
int emit_command(int argc, char **argv);

}  // namespace hrnn
