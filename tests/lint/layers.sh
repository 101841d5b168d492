#!/bin/bash
# Who may include whom: a file sees its own floor and lower ones. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
bad=0

floor() { # file name without folder and ending
	case $1 in
	tutti | base | result | log | env) echo 0 ;;
	sock | hmac | mem | mem_* | cuda_* | dev_* | reduce | reduce_* | topo | topo_* | xml) echo 1 ;;
	boot | boot_* | sched | sched_* | algo_* | algos | transport) echo 2 ;;
	plan | plan_* | exec | exec_* | net | net_* | peer | peer_*) echo 3 ;;
	comm | comm_* | task | task_* | stream | stream_*) echo 4 ;;
	api | api_* | launch | group | group_*) echo 5 ;;
	*) echo none ;;
	esac
}

complain() {
	echo "$1 includes $2: $3"
	bad=1
}

includes() { # the quoted includes of a file, one a line, without folder and ending
	sed -n 's/^[ \t]*#[ \t]*include[ \t]*"\([^"]*\)\.h".*/\1/p' "$1" | sed 's/.*\///'
}

for f in src/*.[ch]; do
	name=$(basename "${f%.*}")
	mine=$(floor "$name")
	[ "$mine" = none ] && { echo "$f has no floor: see tests/lint/layers.sh"; bad=1; continue; }
	for i in $(includes "$f"); do
		theirs=$(floor "$i")
		if [ "$theirs" = none ]; then
			complain "$f" "$i.h" "a header of no floor (transports keep theirs to themselves)"
		elif [ "$theirs" -gt "$mine" ]; then
			complain "$f" "$i.h" "floor $theirs from floor $mine"
		fi
		case $name:$i in
		algo_*:base | algo_*:tutti | algo_*:sched | algo_*:algo*) ;;
		algo_*) complain "$f" "$i.h" "algorithms see base, sched and algo alone" ;;
		esac
	done
done

# A transport sees the contract, floors 0 and 1 without the topology, messages, and files of its own name.
for f in transports/*.[ch]; do
	name=$(basename "${f%.*}")
	own=${name%%_*}
	for i in $(includes "$f"); do
		case $i in
		transport | tutti | base | reduce | mem | mem_* | sock | hmac | msg | "$own" | "$own"_*) ;;
		*) complain "$f" "$i.h" "not for transports, or another transport's" ;;
		esac
	done
done

# Libraries that one file alone may know.
only() { # pattern of headers, pattern of files
	grep -lE "#[ \t]*include[ \t]*<($1)" -r src transports | grep -vE "$2" | while read -r f; do
		echo "$f includes <$1>: only $2 may"
	done | grep . && bad=1
}
only 'hwloc' '^src/topo_detect\.c$'
only 'infiniband/|rdma/' '^transports/verbs'
only 'cuda|nvml' 'nobody'
exit $bad
