#!/bin/bash
# tests/cuda/errors.c, with the fake driver to be found, not loaded; what tutti-info says of drivers.
# SPDX-License-Identifier: Apache-2.0
# shellcheck source=tests/harness/fake_cuda.sh
. "$(dirname "$0")/../harness/fake_cuda.sh"
info=$build/bin/tutti-info

run "all" cuda/errors
gives 0 "^cuda +on: the driver's CUDA 13.0, 2 devices \(the first: fake device 0\)" FAKE_CUDA_DEVICES=2 "$info"
gives 0 '^cuda +on: .*CUDA 11.8.*no kernels, as |built without kernels' \
	LD_LIBRARY_PATH="$build/tests/cuda/11" FAKE_CUDA_VERSION=11080 "$info"
gives 0 'no kernels.*build with CUDA_SM|built without kernels' FAKE_CUDA_NO_IMAGE=1 "$info"
gives 0 '^cuda +off: .* is the stub' FAKE_CUDA_STUB=1 "$info"
gives 0 '"cuda": \{"on": false, "words": "off: ' FAKE_CUDA_STUB=1 "$info" --json
sum_up
