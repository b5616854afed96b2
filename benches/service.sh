#!/usr/bin/env bash
# Measures the service over HTTP beside the disk it stands on: `benches/service.sh target/release/ergate`. Needs curl, wrk and python3.
set -euo pipefail
ergate=$(realpath "${1:?usage: benches/service.sh ERGATE}")
dir=$(mktemp -d); cd "$dir"
trap 'kill "$service" 2>/dev/null; wait "$service" 2>/dev/null; cd /; rm -rf "$dir"' EXIT
url=http://127.0.0.1:7499

# 200 types, so that a scrape has their figures, and one that starts a command for each task.
for number in $(seq -w 1 200); do printf '[task.type%s]\nexecutor = { process = ["true"] }\n' "$number"; done > ergate.toml
printf '[task.command]\nexecutor = { process = ["/bin/true"] }\n' >> ergate.toml
"$ergate" up --listen "${url#http://}" > out 2> said & service=$!
until curl -sf "$url/readyz" > /dev/null; do kill -0 "$service" || { cat said; exit 1; }; sleep 0.1; done

# figure NAME: the sum of a figure over its labels.
figure() { curl -s "$url/metrics" | awk -v name="$1" '$1 ~ "^" name "[{ ]" { sum += $NF } END { print sum + 0 }'; }
# ended COUNT: waits until so many tasks have ended.
ended() { until [ "$(figure ergate_completions_total)" -ge "$1" ]; do sleep 0.2; done; }
lines() { python3 -c "for n in range($2): print('{\"type\":\"$1\",\"payload\":%d}' % n)"; }
post() { curl -sf -o answers -w '%{time_total}' -H 'content-type: application/x-ndjson' -T "$1" -X POST "$url/v1/tasks"; }

echo "floor, fdatasync of 4 KiB: $(python3 - <<'P'
import os, time
file, took = os.open("floor", os.O_CREAT | os.O_WRONLY), []
for _ in range(400):
    began = time.perf_counter()
    os.write(file, b"x" * 4096)
    os.fdatasync(file)
    took.append(time.perf_counter() - began)
took.sort()
print("p50 %.2f ms, p99 %.2f ms" % (took[200] * 1e3, took[396] * 1e3))
P
)"

sleep 5
ticks() { awk '{ print $14 + $15 }' "/proc/$service/stat"; }
before=$(ticks); sleep 20
echo "idle: $(awk '/VmRSS/ { print $2 / 1024 }' "/proc/$service/status") MiB, $(($(ticks) - before)) of 2000 ticks"

cat > post.lua <<'L'
wrk.method, wrk.body, wrk.headers["content-type"] = "POST", '{"type":"noop","payload":1}', "application/json"
L
for _ in 1 2 3; do
  echo "single POSTs, 64 connections: $(wrk -t1 -c64 -d10s --latency -s post.lua "$url/v1/tasks" |
    awk '/50%|99%/ { sub("%", "", $1); printf "p%s %s, ", $1, $2 } /Requests\/sec/ { print $2 " a second" } /Non-2xx/ { print "REFUSED: " $0 }')"
done

lines noop 1000000 > million.ndjson
for _ in 1 2 3; do
  before=$(figure ergate_completions_total)
  took=$(post million.ndjson)
  echo "a batch of 1,000,000 lines: $took s"
  ended $((before + 1000000))
done

lines command 5000 > commands.ndjson
for _ in 1 2 3; do
  before=$(figure ergate_completions_total) began=$(date +%s.%N)
  post commands.ndjson > taken
  ended $((before + 5000))
  echo "5,000 times /bin/true: $(python3 -c "print('%.0f a second' % (5000 / ($(date +%s.%N) - $began)))")"
done

for _ in $(seq 100); do curl -s -o scrape -w '%{time_total}\n' "$url/metrics"; done | sort -n > scrapes
echo "scrape of 200 types, $(wc -c < scrape) bytes: $(awk '{ at[NR] = $1 * 1e3 } END { print "p50 " at[50] " ms, p99 " at[99] " ms" }' scrapes)"
