# SPDX-License-Identifier: Apache-2.0
"""Checks what static libraries expect from elsewhere.

leaf: nothing but memset and memcpy (kernels: no allocation, no threads, no mathematics library, no Halide runtime).
no-c++: nothing of C++'s library.
"""
import re
import subprocess
import sys

LEAF = {"memset", "memcpy"}
# Mangled names of namespace std and of operator new and delete, and the helpers of the C++ ABI.
CXX_LIBRARY = re.compile(r"_Z(N|NK|T[VISvi]N?)?S[a-z]|_ZN?K?St|_Zn[wa]|_Zd[la]|__cxa_|__gxx_|_Unwind_|_ZT[VIS]N10__cxxabiv1")


def symbols(archive):
    """(undefined, defined) symbols over all members."""
    undefined, defined = set(), set()
    listing = subprocess.run(["nm", "--format=posix", archive], check=True, capture_output=True, text=True).stdout
    for line in listing.splitlines():
        fields = line.split()
        if len(fields) < 2 or line.endswith(":"):
            continue
        (undefined if fields[1] in "Uw" else defined).add(fields[0])
    if not defined:
        sys.exit(f"{archive}: no symbols at all")
    return undefined, defined


def main():
    rule, *archives = sys.argv[1:]
    failed = False
    for archive in archives:
        undefined, defined = symbols(archive)
        needed = undefined - defined
        if rule == "leaf":
            wrong = needed - LEAF
        else:
            wrong = {symbol for symbol in needed if CXX_LIBRARY.match(symbol)}
        print(f"{archive}: {len(defined)} symbols, expects {', '.join(sorted(needed)) or 'nothing'}")
        if wrong:
            failed = True
            print(f"  must not expect: {', '.join(sorted(wrong))}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
