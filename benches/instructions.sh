#!/usr/bin/env bash
# Counts the instructions that a task costs on the core's paths and compares them with benches/instructions.txt:
# `benches/instructions.sh`, or `benches/instructions.sh --renew` to write them down anew.
# Time on a busy machine says little; the count is the same on every run.
set -euo pipefail
cd "$(dirname "$0")/.."
recorded=benches/instructions.txt
# As in events/benches/instructions.rs.
tasks=20000
percent=5

skip() { echo "SKIPPED: instructions are not counted: $1"; exit 0; }

arch=$(uname -m)
command -v valgrind >/dev/null || skip "valgrind is missing"
if [ "$arch" = x86_64 ] && ! grep -qw avx2 /proc/cpuinfo; then
  skip "without AVX2 BLAKE3 takes another path than the one that was counted"
fi
[ "${1-}" = --renew ] || grep -q "^$arch " "$recorded" || skip "no counts are recorded for $arch; renew them there"

bench=$(cargo build --release --locked -p ergate-events --bench instructions --message-format=json-render-diagnostics |
  sed -n 's/.*"name":"instructions".*"executable":"\([^"]*\)".*/\1/p' | tail -1)

# count PATH: instructions a task.
# valgrind shows every program the same processor, but the C library also goes by the size of caches and by `rep movsb`, of which
# valgrind counts every byte: so it is told to copy in the plain way.
count() {
  local report collected
  report=$(GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2_Usable,-AVX2,-ERMS \
    valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect='*measured*' "$bench" "$1" 2>&1) ||
    { echo "$report" >&2; return 1; }
  collected=$(sed -n 's/.*Collected : \([0-9]*\).*/\1/p' <<<"$report")
  [ "${collected:-0}" -gt 0 ] || { echo "callgrind saw nothing of $1; was its function renamed?" >&2; return 1; }
  echo $((collected / tasks))
}

renew() {
  local lines path now
  lines=$(grep -v "^$arch \|^# counted with" "$recorded"; echo "# counted with $(rustc --version) and $(valgrind --version)")
  for path in write fold audit; do
    now=$(count "$path")
    lines+=$'\n'"$arch $path $now"
  done
  echo "$lines" | tee "$recorded"
}

if [ "${1-}" = --renew ]; then renew; exit; fi

failed=0
for path in write fold audit; do
  was=$(awk -v arch="$arch" -v path="$path" '$1 == arch && $2 == path { print $3 }' "$recorded")
  now=$(count "$path")
  [ -n "$was" ] || { echo "$path: no count is recorded; renew $recorded"; failed=1; continue; }
  change=$(awk -v was="$was" -v now="$now" 'BEGIN { printf "%+.1f %%", 100 * (now - was) / was }')
  echo "$path: $now instructions a task, $was recorded ($change)"
  if [ $((now * 100)) -gt $((was * (100 + percent))) ]; then
    echo "$path: more than $percent % above; find what it is, or if it is worth its price: benches/instructions.sh --renew"
    failed=1
  elif [ $((now * 100)) -lt $((was * (100 - percent))) ]; then
    echo "$path: more than $percent % below; keep what was won: benches/instructions.sh --renew"
  fi
done
if [ $failed = 1 ]; then
  grep '^# counted with' "$recorded"; echo "this is       $(rustc --version) and $(valgrind --version)"
fi
exit $failed
