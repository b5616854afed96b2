// A worker with three task types: node example.mjs [ADDRESS]

import { setTimeout as sleep } from "node:timers/promises";

import { Failure, Worker } from "./ergate-worker.mjs";

const worker = new Worker(process.argv[2] ?? "http://127.0.0.1:7420", { pool: "models", slots: 8 });

worker.task("resize", async (payload) => ({ image: payload.image, width: payload.width ?? 320 }));

// Counts to `payload`, and goes on where the attempt before ended.
worker.task("count", async (payload, context) => {
  for (let number = (context.checkpoint ?? 0) + 1; number <= payload; number += 1) {
    // Throws when the signal is aborted, which ends the attempt as stopped.
    await sleep(100, null, { signal: context.signal });
    context.keep(number);
    context.progress((100 * number) / payload, "counting", `${number} of ${payload}`);
  }
  return payload;
});

worker.task("fetch", async (payload) => {
  if (payload === "busy") throw new Failure("rate-limited", "the service wants a pause", { retryable: true, retryAfter: "10s" });
  await sleep(50);
  return `what is at ${payload}`;
});

await worker.run();
