#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the runtime as one source file and one header: hrnn_runtime.cpp and hrnn/hrnn.h.

Headers of the runtime's own are inserted where they are first included; system headers stay where they are.
"""
import argparse
import pathlib
import re
import sys

INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"')
PUBLIC = "hrnn/hrnn.h"  # stays a header


def expand(path, folders, done, out):
    out.append(f"// ---- {path.as_posix()} " + "-" * max(4, 100 - len(path.as_posix())))
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("#pragma once") or line.startswith("// SPDX-License-Identifier"):
            continue
        match = INCLUDE.match(line)
        if not match:
            out.append(line)
            continue
        name = match.group(1)
        if name in done:
            continue
        done.add(name)
        if name == PUBLIC:
            out.append(line)
            continue
        found = next((folder / name for folder in [path.parent, *folders] if (folder / name).is_file()), None)
        if found is None:
            sys.exit(f"{path}:{number}: cannot find \"{name}\"")
        expand(found, folders, done, out)
    out.append("")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", required=True)
    parser.add_argument("--include", type=pathlib.Path, action="append", default=[], help="folder of headers")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder")
    parser.add_argument("sources", type=pathlib.Path, nargs="+")
    arguments = parser.parse_args()

    out = [
        "// SPDX-License-Identifier: Apache-2.0",
        "//",
        f"// The hrnn runtime {arguments.version} as one source file; hrnn/hrnn.h is its header. Compile it with any C++17",
        "// compiler: c++ -std=c++17 -O2 -fno-exceptions -fno-rtti -c hrnn_runtime.cpp",
        "// Made from runtime/ by cmake/amalgamate.py: change it there.",
        f'#define HRNN_VERSION_STRING "{arguments.version}"',
        "",
    ]
    done = set()
    for source in arguments.sources:
        expand(source, arguments.include, done, out)
    header = next(folder / PUBLIC for folder in arguments.include if (folder / PUBLIC).is_file())

    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "hrnn_runtime.cpp").write_text("\n".join(out))
    (arguments.output / "hrnn").mkdir(exist_ok=True)
    (arguments.output / PUBLIC).write_text(header.read_text())


if __name__ == "__main__":
    main()
