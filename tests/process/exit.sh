#!/bin/bash
# A process that returns from main with a live communicator leaves: what it sent arrives, a later call names it
# as one that left, and nobody takes it for dead. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
program=$(mktemp)
trap 'rm -f "$program"' EXIT
cat > "$program" << 'END'
import ctypes, os, sys, time
lib = ctypes.CDLL(sys.argv[1])
lib.tuttiGetLastError.restype = ctypes.c_char_p
comm = ctypes.c_void_p()
rank = int(os.environ["TUTTI_RANK"])
value = ctypes.c_int(42 if rank == 0 else 0)
def ok(r):
    if r:
        sys.exit("rank %d: %s" % (rank, lib.tuttiGetLastError(None).decode()))
ok(lib.tuttiCommInitFromEnv(ctypes.byref(comm), None))
if rank:
    time.sleep(0.3)
ok(lib.tuttiBroadcast(ctypes.byref(value), ctypes.byref(value), ctypes.c_size_t(1), 2, 0, comm, None))
if rank == 0:
    sys.exit(0)
if value.value != 42:
    sys.exit("rank %d got %d" % (rank, value.value))
time.sleep(0.3)
r = lib.tuttiBarrier(comm, None)
text = lib.tuttiGetLastError(comm).decode()
if r != 64 or "left after operation #1" not in text:
    sys.exit("rank %d: the call after the leave gave %d: %s" % (rank, r, text))
END
passed=0 failed=0
for transport in shm tcp; do
	if out=$(TUTTI_LOG=none TUTTI_TRANSPORTS=$transport timeout 60 "$build/bin/tutti-run" -n 2 \
		python3 "$program" "$build/lib/libtutti.so" 2>&1); then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAIL $transport: $out"
	fi
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
