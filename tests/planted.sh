#!/usr/bin/env bash
# Plants bugs on purpose and shows that the tests find each of them: `tests/planted.sh`
# A suite that has never failed proves nothing. Builds once, with feature `planted-bugs`, in a target directory of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${ERGATE_PLANTED_TARGET:-target/planted}" RUST_BACKTRACE=0 ERGATE_CRASH_CYCLES=3
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# build PACKAGE TEST: builds one test binary and says where it is.
build() {
  local features=$1/planted-bugs
  # Without Kafka, whose client in C would be built here once more.
  [ "$1" != ergate ] || features+=,ergate/cli
  cargo test -p "$1" --no-default-features --features "$features" --test "$2" --no-run --locked --message-format=json 2>/dev/null |
    sed -n "s/.*\"name\":\"$2\".*\"executable\":\"\\([^\"]*\\)\".*/\\1/p" | tail -1
}

missed=0
# expect BUG PACKAGE BINARY TEST: the test must pass without the bug and fail with it.
expect() {
  local bug=$1 package=$2 binary=$3 test=$4 path
  path=$(build "$package" "$binary") && [ -x "$path" ] || { echo "$bug: $binary does not build"; missed=1; return; }
  if ! timeout 240 "$path" --exact "$test" >"$log" 2>&1; then
    echo "$bug: $binary::$test fails without it"; tail -20 "$log"; missed=1; return
  fi
  if grep -q '^test result: ok. 0 passed\|^SKIPPED' "$log"; then
    echo "$bug: $binary::$test did not run, so nothing is shown"; tail -5 "$log"; missed=1; return
  fi
  if ERGATE_PLANTED_BUG=$bug timeout 240 "$path" --exact "$test" >"$log" 2>&1; then
    echo "$bug: NOT FOUND by $binary::$test"; missed=1
  else
    echo "$bug: found by $binary::$test"
  fi
}

expect ack-before-sync ergate durability no_acknowledgement_comes_before_its_sync
expect skipped-fence ergate-events life a_stale_outcome_is_refused
expect skipped-fence ergate workers network::a_late_report_does_not_end_what_the_same_worker_is_doing_again
expect dropped-last-block ergate crash nothing_acknowledged_is_lost_or_done_twice_by_kills_on_sled
expect no-limit ergate-events properties hostile_lengths_ask_for_no_memory
exit "$missed"
