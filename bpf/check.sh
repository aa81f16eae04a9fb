#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Compiles the BPF programs with every warning an error. BCC itself compiles them at
# start-up, quietly and rewritten; this sees the code as it is written.
# Needs clang with the BPF target and the system's uapi headers (linux-libc-dev).
set -eu

here=$(cd "$(dirname "$0")" && pwd)

clang=""
for candidate in "${CLANG:-}" clang clang-19 clang-16 clang-15 clang-14; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1; then
        clang=$candidate
        break
    fi
done
if [ -z "$clang" ]; then
    echo "bpf/check.sh: no clang found (apt-get install clang, or set CLANG)" >&2
    exit 1
fi

# Any value will do for a syntax check: the real ones come from the running kernel's BTF.
offsets=$(sed -n 's/^#ifndef \(NSP_OFF_.*\)/-D\1=8/p' "$here/offsets.h")

# linux/types.h of the system includes asm/types.h, which Debian keeps per architecture.
# shellcheck disable=SC2086 # the offsets are words on purpose
exec "$clang" -target bpf -O2 -fsyntax-only -std=gnu11 \
    -Wall -Wextra -Werror -Wno-unknown-warning-option -Wno-pointer-to-int-cast -Wno-int-to-pointer-cast \
    -I "$here/check/include" -I "$here/check" -I "$here/include/include" -I "$here" \
    -isystem "/usr/include/$(uname -m)-linux-gnu" \
    $offsets -x c "$here/nsp.bpf.c"
