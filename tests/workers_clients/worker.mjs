// What test_clients.py runs as a child: worker.mjs ADDRESS OPTIONS, with options as JSON. Writes every attempt that it begins to the file RUNS.

import { appendFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

import { Failure, Partial, Skipped, Stopped, Worker } from "../../examples/workers/node/ergate-worker.mjs";

const { drain, ...options } = JSON.parse(process.argv[3]);
const worker = new Worker(process.argv[2], { ...options, ...(drain === undefined ? {} : { drain: drain * 1000 }) });

function task(name, run) {
  worker.task(name, async (payload, context) => {
    appendFileSync(process.env.RUNS, `${context.attempt}\n`);
    return run(payload, context);
  });
}

task("echo", (payload) => payload);

task("size", (payload) => [payload instanceof Uint8Array, payload.length]);

// Sleeps, whatever others want.
task("sleep", async (payload) => {
  await sleep(payload * 1000);
  return "slept";
});

// Waits to be cancelled, and then stops or tidies up.
task("wait", async (payload, context) => {
  await sleep(20_000, null, { signal: context.signal }).catch(() => {});
  if (payload === "stop") throw new Stopped();
  return "tidied";
});

task("beat", async (payload, context) => {
  for (let step = 0; step < payload; step += 1) {
    context.heartbeat();
    context.progress(10 * step, "beating", `${step}`);
    await sleep(100);
  }
  return "beaten";
});

task("resume", async (payload, context) => {
  if (context.checkpoint === null) {
    context.keep(payload === "bytes" ? Buffer.from([0xff, 0x00]) : { done: 3 });
    throw new Failure("halfway", "", { retryable: true });
  }
  return context.checkpoint;
});

class KeyError extends Error {
  name = "KeyError";
}

task("end", async (payload) => {
  if (payload === "raise") throw new KeyError("'nothing here'");
  if (payload === "fail") throw new Failure("rate-limited", "come later", { retryable: true, retryAfter: 10_000 });
  if (payload === "unsendable") return () => {};
  if (payload === "long") return "x".repeat(1 << 20);
  return payload === "partial" ? new Partial([1]) : new Skipped();
});

await worker.run();
