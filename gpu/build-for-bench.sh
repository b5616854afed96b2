#!/usr/bin/env bash
# Builds what gpu/bench.sh runs on a machine that has a device but no cargo: `gpu/build-for-bench.sh [FOLDER]`, by default target/gpu-bench.
# Carry the folder and gpu/ there. Release, stripped, below 60 MB.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-target/gpu-bench}
megabytes_max=60
export CARGO_PROFILE_RELEASE_STRIP=symbols CARGO_PROFILE_RELEASE_DEBUG=none CARGO_TERM_PROGRESS_WHEN=never

# executables FLAGS: name and path of every executable that cargo builds.
executables() {
  cargo "$@" --release --locked --message-format=json-render-diagnostics |
    sed -n 's/.*"name":"\([^"]*\)","src_path".*"executable":"\([^"]*\)".*/\1 \2/p'
}

rm -rf "$folder"
mkdir -p "$folder"
executables test -p ergate-gpu --no-run --lib --tests | while read -r name path; do cp "$path" "$folder/test-$name"; done
executables build -p ergate --example gpu_tasks | while read -r name path; do cp "$path" "$folder/$name"; done
executables build -p ergate-gpu --example figures | while read -r name path; do cp "$path" "$folder/$name"; done
ls -l "$folder"
megabytes=$(du -sm "$folder" | cut -f1)
[ "$megabytes" -lt "$megabytes_max" ] || { echo "$folder has $megabytes MB; at most $megabytes_max are carried"; exit 1; }
[ -x "$folder/figures" ] && [ -x "$folder/gpu_tasks" ] && [ -x "$folder/test-kernels" ] || { echo "something was not built"; exit 1; }
