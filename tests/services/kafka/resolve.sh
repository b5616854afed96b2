#!/usr/bin/env bash
# Fetches Apache Kafka for the tests into target/services/kafka, and does nothing where it is there already: `tests/services/kafka/resolve.sh`
set -euo pipefail
cd "$(dirname "$0")/../../.."
here=tests/services/kafka home=$PWD/target/services/kafka

for program in java mvn; do
  command -v "$program" >/dev/null || { echo "$program is missing; on Debian: apt-get install default-jre-headless maven" >&2; exit 1; }
done
mkdir -p "$home"
# Test binaries may run beside each other; the second waits for the first.
exec 9>"$home.lock"
flock 9
stamp=$( (cat "$here/pom.xml" "$here/resolve.sh"; java -version 2>&1) | cksum)
[ "$(cat "$home/stamp" 2>/dev/null)" = "$stamp $home" ] && exit 0

rm -rf "$home"
mkdir "$home"
mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$home/lib" >&2
printf '%s\n' "$home"/lib/*.jar | paste -sd: | tr -d '\n' >"$home/classpath"

# A broker spends most of its start on reading classes. An archive of them, taken from one run, halves it. Without it everything works, slower.
train() {
  local work=$home/train port=$((20000 + RANDOM % 10000)) broker
  local java=(java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xlog:disable -cp "$(<"$home/classpath")")
  mkdir "$work"
  cat >"$work/properties" <<END
process.roles=broker,controller
node.id=0
controller.quorum.voters=0@127.0.0.1:$((port + 1))
listeners=CLIENT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
inter.broker.listener.name=CLIENT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$work/data
END
  "${java[@]}" -XX:ArchiveClassesAtExit="$home/format.jsa" kafka.tools.StorageTool \
    format -t 4rCBPrHaTiuxpFmoNVrRpw -c "$work/properties" >"$work/log" 2>&1 || return 1
  "${java[@]}" -XX:ArchiveClassesAtExit="$home/broker.jsa" kafka.Kafka "$work/properties" >"$work/log" 2>&1 9>&- &
  broker=$!
  trap "kill -9 $broker" EXIT
  for ((tries = 0; tries < 600; tries++)); do
    grep -q "Kafka Server started" "$work/log" && break
    sleep 0.1
  done
  kill "$broker"
  # It ends by the signal, which is not 0.
  wait "$broker" || true
  trap - EXIT
  [ -s "$home/broker.jsa" ]
}
train || echo "note: no archive of Kafka's classes could be made; brokers start slower" >&2
rm -rf "$home/train"
echo "$stamp $home" >"$home/stamp"
