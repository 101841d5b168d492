#!/bin/bash
# tutti-run: what ranks see, exit statuses, grace, signals, and that no rank is left behind.
# SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
run=${BUILD:-build}/bin/tutti-run
. tests/harness/checks.sh

try 0 "$run" -n 3 true
# shellcheck disable=SC2016
try 0 "$run" -n 3 -x COLOUR=blue -l sh -c \
	'echo $TUTTI_RANK/$TUTTI_SIZE $TUTTI_LOCAL_RANK/$TUTTI_LOCAL_SIZE $TUTTI_ROOT $TUTTI_JOB $COLOUR'
for r in 0 1 2; do
	has "^\[$r\] $r/3 $r/3 127\.0\.0\.1:[0-9]+ [0-9a-f]{64} blue\$"
done
# Both streams, and a last line without an end.
try 0 "$run" -n 2 -l sh -c 'echo e >&2; printf end'
has '^\[1\] e$'
has '^\[0\] end$'
echo input | "$run" -n 2 -l cat > "$out" 2>&1
has '^\[0\] input$'
! grep -q '^\[1\]' "$out"
verdict "no input for rank 1" $?

# shellcheck disable=SC2016
try 7 "$run" -n 3 sh -c '[ $TUTTI_RANK = 1 ] && exit 7; exit 0'
has 'rank 1 \(pid [0-9]+\) ended with status 7'
# shellcheck disable=SC2016
try 139 "$run" -n 2 -g 0.2 sh -c '[ $TUTTI_RANK = 1 ] && kill -SEGV $$; exec sleep 60'
has 'rank 1 \(pid [0-9]+\) was killed by signal 11 \(Segmentation fault\)'
has 'SIGTERM'
# The first failure counts.
# shellcheck disable=SC2016
try 3 "$run" -n 2 sh -c '[ $TUTTI_RANK = 1 ] && exit 3; sleep 0.5; exit 4'
# shellcheck disable=SC2016
try 5 "$run" -n 2 -g 0.2 sh -c \
	'[ $TUTTI_RANK = 1 ] && exit 5; trap "" TERM; while :; do sleep 0.1; done'
has 'SIGKILL'
# The others have the time that they are given.
# shellcheck disable=SC2016
try 6 "$run" -n 2 -g 20 sh -c '[ $TUTTI_RANK = 1 ] && exit 6; sleep 1; echo late'
has '^late$'
try 127 "$run" -n 2 ./no/such/program
try 126 "$run" -n 2 /
try 2 "$run" -n 0 true
try 2 "$run" -n 2
try 0 "$run" --help
try 0 "$run" -n 1 echo -n -x --label
has '^-x --label$'

gone() { # a word in the command line that no process may have any more
	for _ in $(seq 50); do
		grep -qsz "^[${1:0:1}]${1:1}" /proc/[0-9]*/cmdline || return 0 # the brackets: not the grep itself
		sleep 0.1
	done
	return 1
}

for signal in TERM INT; do
	mark=$((100000 + RANDOM)).5
	set -m # without job control a shell starts background jobs with SIGINT ignored
	"$run" -n 2 sleep "$mark" > "$out" 2>&1 &
	set +m
	sleep 1
	kill -$signal $!
	wait $!
	status=$?
	[ $status -eq $((128 + $(kill -l $signal))) ]
	verdict "SIG$signal is passed on: status $status" $?
	gone "$mark"
	verdict "SIG$signal leaves nobody behind" $?
done
mark=$((100000 + RANDOM)).5
"$run" -n 2 sleep "$mark" > "$out" 2>&1 &
sleep 0.5
kill -KILL $!
wait $! 2> /dev/null
gone "$mark"
verdict "the ranks die with tutti-run" $?

sum_up
