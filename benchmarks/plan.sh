#!/bin/bash
# The planner's choice beside every forced algorithm, over numbers of ranks and transports; the tables go into
# docs/benchmarking.md. SPDX-License-Identifier: Apache-2.0
# Environment: BUILD, ROUNDS (5), STARTS (7), RANKS ("2 4 8"), TRANSPORTS ("shm tcp"), COLLECTIVES (allreduce), MAX (64M),
# DOC (docs/benchmarking.md).
set -u
cd "$(dirname "$0")/.." || exit 1
build=${BUILD:-build} doc=${DOC:-docs/benchmarking.md} work=${BUILD:-build}/plan
rounds=${ROUNDS:-5} starts=${STARTS:-7}

one() { # transport, ranks, collective, start
	TUTTI_TRANSPORTS=$1 TUTTI_CALIBRATION=$work/calibration timeout 600 "$build/bin/tutti-run" -n "$2" "$build/bin/plan_perf" -c "$3" -e "${MAX:-64M}" \
		-t 2500 -n "$rounds" > "$work/$1-$2-$3-$4" || echo "plan_perf over $1 with $2 ranks failed" >&2
}

# Medians over the starts, of the times and of the ratios; the names of choice and best are those of the medians.
merge() { # files of one setting
	awk -F'|' '
		function trim(s) { gsub(/^ +| +$/, "", s); return s }
		function median(list,   v, n, i, j, t) {
			n = split(list, v, " ")
			for (i = 2; i <= n; i++) for (j = i; j > 1 && v[j] + 0 < v[j - 1] + 0; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
			return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
		}
		# x: of the medians of one start, the median over the starts.
		function put(s, name_of, best,   i, n, v, w, list) {
			for (i = 8; i <= columns; i++) if (name[i] == name_of) break
			n = split(us[s, i], v, " "); split(us[s, best], w, " ")
			for (i = 1; i <= n; i++) list = list " " v[i] / w[i]
			printf " %s | %.2f |", name_of, median(list)
		}
		FNR == 1 && NR == 1 { title = $0 }
		/^\| size/ { for (i = 8; i < NF; i++) name[i] = trim($i); columns = NF - 1; next }
		/^\|---/ || !/^\|/ { next }
		{
			s = trim($2)
			if (!(s in plain)) order[++sizes] = s
			plain[s] = trim($3); chosen[s] = trim($5) # of the last start: it knows all records
			for (i = 8; i <= columns; i++) us[s, i] = us[s, i] " " (trim($i) == "-" ? 1e12 : $i + 0)
		}
		END {
			print title "\n"
			printf "| size | by formulas | x | calibrated | x | best |"
			for (i = 8; i <= columns; i++) printf " %s |", name[i]
			printf "\n|---|---|---|---|---|---|"
			for (i = 8; i <= columns; i++) printf "---|"
			print ""
			for (k = 1; k <= sizes; k++) {
				s = order[k]; best = 8
				for (i = 8; i <= columns; i++) if (median(us[s, i]) < median(us[s, best])) best = i
				printf "| %s |", s
				put(s, plain[s], best)
				put(s, chosen[s], best)
				printf " %s |", name[best]
				for (i = 8; i <= columns; i++) printf median(us[s, i]) < 1e12 ? " %.4g |" : " - |", median(us[s, i])
				print ""
			}
		}' "$@"
}

publish() {
	local begin='<!-- plan:begin -->' end='<!-- plan:end -->'
	cat "$work/table.md"
	grep -qF "$begin" "$doc" || { echo "$doc has no markers: not written" >&2; return 1; }
	awk -v begin="$begin" -v end="$end" -v file="$work/table.md" '
		index($0, end) { skip = 0 }
		!skip
		index($0, begin) { skip = 1; while ((getline line < file) > 0) print line }' "$doc" > "$work/doc" &&
		cat "$work/doc" > "$doc"
}

rm -rf "$work"
mkdir -p "$work" || exit 1
[ -x "$build/bin/plan_perf" ] || { echo "$build/bin/plan_perf: run make first" >&2; exit 1; }
# All settings once, then again: what drifts, drifts for all.
for start in $(seq "$starts"); do
	for transport in ${TRANSPORTS:-shm tcp}; do
		for ranks in ${RANKS:-2 4 8}; do
			for coll in ${COLLECTIVES:-allreduce}; do
				one "$transport" "$ranks" "$coll" "$start"
			done
		done
	done
done
{
	printf '\nMeasured %s, %s cores (%s); ' "$(date +%Y-%m-%d)" "$(nproc)" \
		"$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
	echo "medians of $starts starts of $rounds turns each."
	for transport in ${TRANSPORTS:-shm tcp}; do
		for ranks in ${RANKS:-2 4 8}; do
			for coll in ${COLLECTIVES:-allreduce}; do
				printf '\n%s: ' "$transport"
				merge "$work/$transport-$ranks-$coll"-*
			done
		done
	done
	echo
} > "$work/table.md"
publish
