#!/usr/bin/env bash
# Compile the kernels and put them beside their sources, so that PYTHONPATH=src runs the checkout.
set -e
cd "$(dirname "$0")/.."
[ -d build ] || meson setup build >/dev/null
meson compile -C build
find build/src -name '*.so' -exec cp {} src/mixedmodels/solver/_kernels/ \;
