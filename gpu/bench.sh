#!/usr/bin/env bash
# Checks, tests and measures the GPU kernels on a machine with a device, in one call, and prints the table of figures last:
# `gpu/bench.sh [FOLDER]`, where FOLDER holds what gpu/build-for-bench.sh built (by default target/gpu-bench).
# Needs CUDA 13 (NVRTC, cuBLAS, compute-sanitizer) and a python3 with PyTorch and CuPy; neither cargo nor a network. What fails or cannot
# be run is said, and the rest goes on; the exit status is 1 when a check or test failed. Logs and figures go to $OUT, or a new folder.
# SECONDS_PER_CHECK limits every test run and every run under a checker (default 120).
set -uo pipefail
cd "$(dirname "$0")/.."
built=$(realpath "${1:-target/gpu-bench}")
out=${OUT:-$(mktemp -d)}
limit=${SECONDS_PER_CHECK:-120}
failed=0
began=$SECONDS

step() { printf '== %s (%d s)\n' "$1" "$((SECONDS - began))"; }

# run NAME COMMAND: runs it with a time limit, its words to a log, and says how it ended.
run() {
  local name=$1 code=0
  shift
  timeout "$limit" "$@" >"$out/$name.log" 2>&1 || code=$?
  if [ "$code" = 0 ]; then
    echo "ok      $name: $(grep -hE '^test result|ERROR SUMMARY|RACECHECK SUMMARY' "$out/$name.log" | tail -1)"
  elif [ "$code" = 124 ]; then
    echo "FAILED  $name: no end within $limit s; $out/$name.log"; failed=1
  else
    echo "FAILED  $name: exit status $code; the end of $out/$name.log:"; tail -n 15 "$out/$name.log"; failed=1
  fi
  grep -hoE 'note: (there is|the kernels|ERGATE_|[0-9]+ bytes|no ).*' "$out/$name.log" | sort -u
}

[ -d "$built" ] || { echo "there is no $built: run gpu/build-for-bench.sh where cargo is"; exit 1; }

# libnvrtc and libcublas of CUDA, or those that PyTorch brought.
libraries=$(ls -d /usr/local/cuda/lib64 /usr/local/cuda/targets/x86_64-linux/lib 2>/dev/null)
libraries+=" $(python3 -c 'import os, nvidia; print(" ".join(f"{r}/{d}/lib" for r in nvidia.__path__ for d in os.listdir(r) if os.path.isdir(f"{r}/{d}/lib")))' 2>/dev/null)"
for folder in $libraries; do LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder"; done
export LD_LIBRARY_PATH

step "the machine"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || { echo "there is no device"; failed=1; }

step "tests"
for test in "$built"/test-*; do run "$(basename "$test")" "$test" --nocapture; done

step "checkers"
if command -v compute-sanitizer >/dev/null; then
  # On the device only, and few random cases: every launch is slow there.
  export ERGATE_EMULATED=0 ERGATE_LARGE=0 PROPTEST_CASES=4
  for tool in memcheck racecheck initcheck; do
    run "$tool" compute-sanitizer --tool "$tool" --error-exitcode 9 "$built/test-kernels" --test-threads=1 --nocapture
  done
  unset ERGATE_EMULATED ERGATE_LARGE PROPTEST_CASES
else
  echo "FAILED  there is no compute-sanitizer"; failed=1
fi

step "figures"
"$built/figures" >"$out/ours.jsonl" 2>"$out/figures.log" || { echo "FAILED  figures:"; cat "$out/figures.log" "$out/ours.jsonl" | tail -n 3; failed=1; }
"$built/gpu_tasks" >>"$out/ours.jsonl" 2>"$out/tasks.log" || { echo "FAILED  gpu_tasks:"; tail -n 3 "$out/tasks.log"; failed=1; }
# Two processes, of which the second finds its kernels in the cache.
for run in first second; do
  ERGATE_STARTED_NS=$(date +%s%N) "$built/figures" --cold "$out/cache" >"$out/cold-$run.jsonl" 2>&1 || { echo "FAILED  the $run cold start"; failed=1; }
done
cat "$out/cold-second.jsonl" >>"$out/ours.jsonl"
CUPY_TF32=1 python3 gpu/bench.py measure "$out/theirs.jsonl" >"$out/theirs.log" 2>&1 || { echo "FAILED  bench.py:"; tail -n 3 "$out/theirs.log"; failed=1; }

step "done, logs in $out"
[ "$failed" = 0 ] || echo "SOMETHING FAILED, see above"
touch "$out/ours.jsonl" "$out/theirs.jsonl"
python3 gpu/bench.py table "$out/ours.jsonl" "$out/theirs.jsonl"
exit "$failed"
