// A worker for Ergate in one file: it asks an engine for work, runs it, and says how it ended.
//
//     import { Worker } from "./ergate-worker.mjs";
//     const worker = new Worker("http://127.0.0.1:7420", { pool: "models", slots: 8 });
//     worker.task("resize", async (payload, context) => ({ ok: true }));
//     await worker.run();
//
// It speaks version 1 of the worker protocol (docs/worker-protocol.md) and needs nothing but Node 18. Everything runs on one thread: a function that
// computes for long keeps the signs of life from being sent, so such work belongs into a worker_threads Worker or a child process.

import { randomBytes } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { hostname } from "node:os";

const PROTOCOL = 1;
// How long a question waits for work. An answer that does not come a while later is taken for lost.
const LEASE_WAIT_MS = 30_000;
const LEASE_GRACE_MS = 10_000;
// Waits between repetitions of a call.
const PAUSE_MIN_MS = 100;
const PAUSE_MAX_MS = 5_000;
// How long the calls that say goodbye are repeated.
const FAREWELL_MS = 5_000;
// How long functions have to notice that the time for draining is over.
const CANCEL_GRACE_MS = 1_000;
// What an engine takes: 2 MiB a request, 1 MiB a result, 64 KiB a checkpoint.
const BODY_BYTES_MAX = 1_900_000;
const RESULT_BYTES_MAX = 1 << 20;
const CHECKPOINT_BYTES_MAX = 64 << 10;
const MESSAGE_CHARS_MAX = 4096;
// How long a heartbeat waits for others, so that a function that reports its progress in a tight loop costs few calls.
const HEARTBEATS_GATHER_MS = 50;
// How many ids of attempts are remembered that were stopped before they came.
const STOPPED_EARLY_MAX = 4096;
// Shortest time over which it is measured what the worker uses.
const USAGE_MEASURE_MS = 1_000;
// In what Linux counts the time of processes, on every machine that Node runs on.
const TICKS_PER_S = 100;
// Halves of surrogate pairs are the only characters of that range that JSON.stringify escapes.
const HALF_PAIR = /(?<!\\)(?:\\\\)*\\ud[89a-f][0-9a-f]{2}/;

const log = (text) => process.stderr.write(`ergate-worker: ${text}\n`);

/** Ends an attempt as failed, with all that can be said of it. `retryAfter` is in milliseconds, or a span such as "10s". */
export class Failure extends Error {
  constructor(class_, message = "", { retryable, retryAfter } = {}) {
    super(String(message));
    this.name = "Failure";
    this.class = String(class_);
    this.retryable = retryable;
    this.retryAfterMs = typeof retryAfter === "string" ? milliseconds(retryAfter) : retryAfter;
  }
}

/** Ends an attempt that found `context.signal` aborted: it did not do its work, and that is as wanted. */
export class Stopped extends Error {}

/** A result of which something is missing: the task ends as PARTIAL. */
export class Partial {
  outcome = "PARTIAL";

  constructor(result = null) {
    this.result = result;
  }
}

/** There was nothing to do: the task ends as SKIPPED. */
export class Skipped extends Partial {
  outcome = "SKIPPED";
}

/** The engine answered that repeating the call will not help. */
export class Refused extends Error {
  constructor(method, path, status, problem) {
    super(`the engine refused ${method} ${path} with ${status} ${kind(problem)}: ${problem.detail ?? problem.title ?? "it says no more"}`);
    this.status = status;
    this.problem = problem;
  }
}

/** The engine does not know what the worker runs. */
class Unattached extends Error {}

/** The call is not wanted any more. */
class Ended extends Error {}

/**
 * What a function may know and say about the attempt that it runs: `attempt`, `task`, `number` (which start of the task, from 1), `fence`, `type`,
 * `deadline` (RFC 3339), `timeoutMs`, `heartbeatMs`, `checkpoint` (what the attempt before kept, else null) and `traceparent` are as the engine sent them.
 * `signal` is aborted when nobody wants the attempt any more, or the worker has to leave.
 */
export class Context {
  #hear;
  #received = performance.now();

  constructor(lease, signal, hear) {
    this.attempt = lease.attempt;
    this.task = lease.task;
    this.number = lease.number;
    this.fence = lease.fence;
    this.type = lease.type;
    this.deadline = lease.deadline ?? null;
    this.timeoutMs = lease.timeout_ms ?? null;
    this.heartbeatMs = lease.heartbeat_ms ?? null;
    this.checkpoint = lease.checkpoint_base64 === undefined ? (lease.checkpoint ?? null) : Buffer.from(lease.checkpoint_base64, "base64");
    this.traceparent = lease.traceparent ?? null;
    this.signal = signal;
    this.#hear = hear;
  }

  /** How long the attempt may still take, or null when it may take as long as it likes. */
  millisecondsLeft() {
    return this.timeoutMs === null ? null : this.#received + this.timeoutMs - performance.now();
  }

  /** Says that the attempt goes on. Needed only for tasks with `heartbeatMs`, at least that often. */
  heartbeat() {
    this.#hear({});
  }

  /** Says how far the attempt is; of several in a short time the newest is sent. A heartbeat as well. */
  progress(percent, stage, message) {
    if (percent != null && !(percent >= 0 && percent <= 100)) throw new RangeError(`${percent} percent is not between 0 and 100`);
    const text = (value) => (value == null ? undefined : wellFormed(String(value)));
    this.#hear({ progress: { percent: percent == null ? undefined : Math.trunc(percent), stage: text(stage), message: text(message) } });
  }

  /** Keeps a checkpoint (JSON or bytes, at most 64 KiB) for the attempt after this one, should there be one. A heartbeat as well. */
  keep(checkpoint) {
    const { key, value, size } = jsonOrBase64("checkpoint", checkpoint);
    if (size > CHECKPOINT_BYTES_MAX) throw new RangeError(`a checkpoint has at most ${CHECKPOINT_BYTES_MAX} bytes, and this one has ${size}`);
    // As it is now: the function may go on changing what it gave.
    this.#hear({ checkpoint: undefined, checkpoint_base64: undefined, [key]: JSON.parse(value) });
  }
}

/** One attempt that is the worker's: it runs, or ended and the engine has not yet said that it knows. */
class Running {
  abort = new AbortController();
  news = null; // what the next heartbeat says, as an object; null when there is nothing to say
  outcome = null; // the object to report, as JSON text
  isOnItsWay = false; // whether a report has the outcome
  isStopped = false; // whether the engine wants it stopped
  isHard = false; // and does not want its outcome

  constructor(lease) {
    this.lease = lease;
    this.id = lease.attempt;
  }
}

/**
 * A process that runs tasks for an engine. `lease` is how long the worker may be silent, as a span; `drain` how many milliseconds running attempts have
 * after SIGTERM; `token`, or the file that ERGATE_TOKEN_FILE names, is shown to the engine; `ca` is a file of certificates to trust instead of the usual.
 */
export class Worker {
  #tasks = new Map();
  #attempts = new Map();
  #stoppedEarly = new Set();
  #said = new Set(); // Running with news or an outcome; ids of attempts that do not run here and shall be stopped
  #seq = 1;
  #generation = 0; // counts registrations: what was asked in an older one does not count
  #registering = null;
  #astray = { heartbeats: [], outcomes: [] }; // to be reported again: their tasks move from one engine to another
  #fruitless = 0; // registrations since the engine last took another call
  #leaseMs = 5_000;
  #usage = new Usage();
  #waitMs = LEASE_WAIT_MS;
  #signals = 0;
  #isDraining = false;
  #isLeaving = false;
  #isAlone = false; // whether the engine did not answer when it was told that the worker drains
  #isLeasing = true;
  #hasGivenBack = false;
  #limit = Infinity;
  #failure = null;
  #question = null; // aborts the question for work that waits
  #wakeLease = () => {};
  #wakeReport = () => {};
  #wakeMain = () => {};

  constructor(url, { pool = "default", slots = 1, name, labels = {}, lease = "5s", drain = 30_000, token, ca } = {}) {
    this.id = randomBytes(16).toString("hex");
    this.slots = slots;
    this.url = new URL(url);
    this.drain = drain;
    const file = process.env.ERGATE_TOKEN_FILE;
    this.token = token ?? (file ? readFileSync(file, "utf8").trim() : null);
    this.path = `${this.url.pathname.replace(/\/$/, "")}/v1/workers/${this.id}`;
    this.facts = { protocol: PROTOCOL, pool, slots, lease, name: name ?? `${hostname()}/${process.pid}`, labels };
    const isTls = this.url.protocol === "https:";
    this.client = isTls ? https : http;
    // Node sets TCP_NODELAY by itself. Two connections are in use at most, but for large payloads.
    this.agent = new this.client.Agent({ keepAlive: true, ...(isTls && ca ? { ca: readFileSync(ca) } : {}) });
  }

  /** Makes the function run the tasks of this type: `async (payload, context)` returns the result, JSON or bytes. */
  task(name, run) {
    this.#tasks.set(name, run);
    return this;
  }

  /** Drains and ends `run`, as SIGTERM does. A second call does not wait for what runs. */
  stop() {
    this.#signals += 1;
    this.#limit = this.#signals > 1 ? 0 : performance.now() + this.drain;
    this.#wakeMain();
  }

  /** Works until SIGTERM or SIGINT, or until the engine drains the worker. Ends the process with 1 when the engine refuses it. */
  async run() {
    const onSignal = () => this.stop();
    for (const name of ["SIGTERM", "SIGINT"]) process.on(name, onSignal);
    this.facts.types = [...this.#tasks.keys()].sort();
    try {
      await this.#register(0, () => this.#signals === 0);
      const leasing = this.#leaseLoop().catch((error) => this.#fail(error, false)).finally(() => { this.#isLeasing = false; this.#wakeMain(); });
      const reporting = this.#reportLoop().catch((error) => this.#fail(error, true));
      await this.#serve();
      this.#isLeaving = true;
      this.#question?.abort();
      for (const wake of [this.#wakeLease, this.#wakeReport]) wake();
      await Promise.all([leasing, reporting, this.#sayGoodbye("DELETE", "", 2)]);
    } catch (error) {
      if (!(error instanceof Ended)) this.#fail(error, true);
    } finally {
      for (const name of ["SIGTERM", "SIGINT"]) process.off(name, onSignal);
      this.agent.destroy();
    }
    // A function that did not end in time may hold the process.
    if (this.#failure || this.#hasGivenBack) process.exit(this.#failure ? 1 : 0);
  }

  /** Without reports nothing that runs is of use; without new work the rest can end as it should. */
  #fail(error, isFinal) {
    if (error instanceof Ended) return;
    log(error instanceof Refused ? error.message : error.stack);
    this.#failure ??= error;
    this.#isDraining = true;
    this.#limit = isFinal ? 0 : Math.min(this.#limit, performance.now() + this.drain);
    this.#isLeaving ||= isFinal;
    this.#wakeMain();
  }

  /** Waits for a reason to end and until all has ended. */
  async #serve() {
    while (!this.#isDraining && this.#signals === 0) await this.#sleepMain(Infinity);
    this.#isDraining = true;
    this.#wakeLease();
    if (!this.#isLeaving && !(await this.#sayGoodbye("POST", "/drain", 1))) {
      // Nor will it answer the question for work. What it may have given goes to others after the lease, or with the DELETE.
      this.#isAlone = true;
      this.#question?.abort();
    }
    const isDone = () => this.#isLeaving || (this.#attempts.size === 0 && !this.#isLeasing);
    while (!isDone() && performance.now() < this.#limit) await this.#sleepMain(this.#limit);
    if (isDone()) return;
    for (const running of this.#attempts.values()) running.abort.abort(new Stopped("the worker leaves"));
    const grace = performance.now() + CANCEL_GRACE_MS;
    while (!isDone() && performance.now() < grace) await this.#sleepMain(grace);
    this.#hasGivenBack = true;
    for (const running of this.#attempts.values()) this.#end(running, { returned: true });
    const farewell = performance.now() + FAREWELL_MS;
    while (this.#attempts.size && !this.#isLeaving && performance.now() < farewell) await this.#sleepMain(farewell);
    if (this.#attempts.size) this.#fail(new Error(`${this.#attempts.size} outcomes could not be reported`), true);
  }

  async #sleepMain(until) {
    await sleep(until, (wake) => { this.#wakeMain = wake; });
  }

  /** Makes a call that is polite and not needed: without it the engine notices later. Whether it was answered. */
  async #sayGoodbye(method, path, signalsMax) {
    const until = performance.now() + FAREWELL_MS;
    try {
      await this.#call(method, path, "", { timeoutMs: 2_000, isWanted: () => performance.now() < until && this.#signals <= signalsMax });
    } catch (error) {
      if (error instanceof Refused) log(error.message);
      return !(error instanceof Ended);
    }
    return true;
  }

  // Registering.

  /** Tells the engine who this is and what runs, unless that happened since. */
  async #register(generation, isWanted) {
    while (this.#registering) await this.#registering;
    if (generation !== this.#generation) return;
    this.#generation += 1;
    this.#seq = 1;
    // A question of before has no answer that counts.
    this.#question?.abort();
    const greeting = this.#greet(isWanted);
    // Who waits for it to be over asks again what became of it.
    this.#registering = greeting.catch(() => {}).finally(() => { this.#registering = null; });
    await greeting;
  }

  async #greet(isWanted) {
    const running = [...this.#attempts.keys()];
    if (this.#fruitless) await this.#pause(Math.min(PAUSE_MIN_MS * 2 ** this.#fruitless, this.#pauseMax()), isWanted);
    this.#fruitless = Math.min(this.#fruitless + 1, 10);
    const answer = await this.#call("PUT", "", JSON.stringify({ ...this.facts, running }), { timeoutMs: 5_000, isWanted, registers: true });
    this.#leaseMs = milliseconds(answer.lease ?? "5s");
    this.#waitMs = Math.min(LEASE_WAIT_MS, milliseconds(answer.wait_max ?? "1m"));
    this.#usage.everyMs = answer.usage_every === undefined ? null : milliseconds(answer.usage_every);
    this.#obey(answer);
  }

  // Leasing.

  async #leaseLoop() {
    while (!this.#isAlone) {
      while (this.#registering) await this.#registering;
      // One that drains asks for no more, and until it has heard that nothing is on its way.
      const free = this.#isDraining ? 0 : this.slots - this.#attempts.size;
      if (free <= 0 && !this.#isDraining) {
        await sleep(Infinity, (wake) => { this.#wakeLease = wake; });
        continue;
      }
      const [generation, seq] = [this.#generation, this.#seq];
      const body = JSON.stringify({ seq, slots: free, wait: `${Math.floor(this.#waitMs)}ms` });
      const isWanted = () => generation === this.#generation && !this.#isLeaving;
      this.#question = new AbortController();
      try {
        const answer = await this.#call("POST", "/lease", body, { timeoutMs: this.#waitMs + LEASE_GRACE_MS, isWanted, signal: this.#question.signal });
        if (generation !== this.#generation) continue;
        this.#fruitless = 0;
        this.#seq = seq + 1;
        for (const lease of answer.attempts ?? []) this.#adopt(lease);
        this.#obey(answer);
        if (answer.drain) return;
      } catch (error) {
        if (error instanceof Unattached) await this.#register(generation, () => !this.#isLeaving && !this.#isAlone);
        else if (!(error instanceof Ended)) throw error;
        else if (this.#isLeaving) return;
      }
    }
  }

  /** Makes a leased attempt the worker's own and runs it. */
  #adopt(lease) {
    if (this.#attempts.has(lease.attempt) || this.#stoppedEarly.has(lease.attempt)) return;
    const running = new Running(lease);
    this.#attempts.set(running.id, running);
    this.#outcomeOf(running).then((outcome) => this.#end(running, outcome));
  }

  /** Does what an answer orders. */
  #obey(answer) {
    for (const { attempt, hard } of answer.stop ?? []) {
      const running = this.#attempts.get(attempt);
      if (running) {
        this.#stopRunning(running, hard);
        continue;
      }
      // It ended, or is on its way; in either case it will not run here.
      this.#stoppedEarly.add(attempt);
      if (this.#stoppedEarly.size > STOPPED_EARLY_MAX) this.#stoppedEarly.delete(this.#stoppedEarly.values().next().value);
      this.#said.add(attempt);
      this.#wakeReport();
    }
    if (answer.drain && !this.#isDraining) {
      this.#isDraining = true;
      this.#wakeMain();
      this.#wakeLease();
    }
  }

  #stopRunning(running, isHard) {
    running.isStopped = true;
    running.isHard ||= isHard ?? false;
    running.abort.abort(new Stopped("nobody wants the attempt any more"));
  }

  // Running.

  /** Runs the function of an attempt; what to report of it, as an object or, for a result, as JSON text. */
  async #outcomeOf(running) {
    const { lease, abort } = running;
    let result;
    try {
      const run = this.#tasks.get(lease.type);
      if (!run) return { returned: true };
      const context = new Context(lease, abort.signal, (news) => this.#hear(running, news));
      result = await run(await this.#payloadOf(running), context);
    } catch (error) {
      if (error instanceof Failure) return failure(error.class, error.message, error.retryable, error.retryAfterMs);
      // What is given the signal, such as fetch, throws its reason or an AbortError.
      if (abort.signal.aborted && (error instanceof Stopped || error?.name === "AbortError")) {
        // The engine wanted it ended, or else the worker has to leave and others shall do it.
        return running.isStopped ? { stopped: true } : { returned: true };
      }
      return error instanceof Error ? failure(error.name, error.message) : failure("Error", describe(error));
    }
    try {
      return success(lease.attempt, result);
    } catch (error) {
      return failure("result", `the result cannot be sent: ${error.message}`, false);
    }
  }

  async #payloadOf(running) {
    const { payload, payload_base64: encoded, payload_url: path } = running.lease;
    // Else the payload would be kept for as long as the attempt runs.
    running.lease = { ...running.lease, payload: undefined, payload_base64: undefined };
    if (encoded !== undefined) return Buffer.from(encoded, "base64");
    if (path === undefined) return payload ?? null;
    const { signal } = running.abort;
    let bytes;
    try {
      bytes = await this.#call("GET", path, null, { timeoutMs: 30_000, isWanted: () => !signal.aborted, signal, isRaw: true });
    } catch (error) {
      if (error instanceof Ended) throw new Stopped();
      throw new Failure("payload", `the payload could not be had from ${path}: ${error.message || "there is none"}`);
    }
    try {
      return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    } catch {
      return bytes;
    }
  }

  /** Notes what a running attempt says. */
  #hear(running, news) {
    if (running.outcome !== null) return;
    running.news = { ...running.news, ...news };
    this.#said.add(running);
    this.#wakeReport();
  }

  /** Notes how an attempt ended; only the first time counts. */
  #end(running, outcome) {
    if (running.outcome !== null) return;
    running.outcome = typeof outcome === "string" ? outcome : JSON.stringify({ attempt: running.id, ...outcome });
    this.#said.add(running);
    this.#wakeReport();
  }

  // Reporting.

  async #reportLoop() {
    let last = performance.now();
    while (!this.#isLeaving) {
      await this.#gather(Math.min(last + this.#leaseMs / 3, this.#usage.due()));
      if (this.#said.size || this.#attempts.size || performance.now() >= this.#usage.due()) {
        for (const { body, ended } of bodies(...this.#take(), this.#usage.tell())) await this.#report(body, ended);
      }
      last = performance.now();
    }
  }

  /** Waits until something was said, at the latest until that time. Outcomes do not wait; heartbeats a little. */
  async #gather(until) {
    const isOver = () => this.#isLeaving || [...this.#said].some((item) => typeof item === "string" || item.outcome !== null);
    let limit = until;
    while (performance.now() < limit && !isOver()) {
      if (this.#said.size) limit = Math.min(limit, performance.now() + HEARTBEATS_GATHER_MS);
      await sleep(limit, (wake) => { this.#wakeReport = wake; });
    }
    // What ends in the same turn of the event loop goes along.
    await new Promise(setImmediate);
  }

  /** What is to be sent: heartbeats and outcomes, each with its attempt and as JSON text. */
  #take() {
    const { heartbeats, outcomes } = this.#astray;
    this.#astray = { heartbeats: [], outcomes: [] };
    for (const item of this.#said) {
      if (typeof item === "string") {
        outcomes.push({ attempt: item, text: JSON.stringify({ attempt: item, stopped: true }) });
        continue;
      }
      if (item.news) heartbeats.push({ attempt: item.id, text: JSON.stringify({ attempt: item.id, ...item.news }) });
      item.news = null;
      if (item.outcome === null || item.isOnItsWay) continue;
      item.isOnItsWay = true;
      outcomes.push({ attempt: item.id, text: item.isHard ? JSON.stringify({ attempt: item.id, stopped: true }) : item.outcome });
    }
    this.#said.clear();
    return [heartbeats, outcomes];
  }

  /** Reports until the engine has answered, through restarts of it. */
  async #report(body, ended) {
    for (;;) {
      while (this.#registering) await this.#registering;
      const generation = this.#generation;
      // Silence longer than the lease costs all attempts, so an answer that is late is asked for again before.
      const timeoutMs = Math.min(Math.max(2_000, this.#leaseMs / 2), 30_000);
      try {
        const answer = await this.#call("POST", "/report", body, { timeoutMs, isWanted: () => !this.#isLeaving });
        this.#fruitless = 0;
        const elsewhere = new Set((answer.elsewhere ?? []).map(({ attempt }) => attempt));
        if (elsewhere.size) this.#keep(body, elsewhere);
        for (const attempt of ended) if (!elsewhere.has(attempt)) this.#attempts.delete(attempt);
        for (const { attempt } of answer.refused ?? []) {
          // Where it still runs, its heartbeat was refused: it is over for the engine.
          const running = this.#attempts.get(attempt);
          if (running) this.#stopRunning(running, true);
        }
        if (ended.length) {
          this.#wakeLease();
          if (this.#isDraining) this.#wakeMain();
        }
        this.#obey(answer);
        return;
      } catch (error) {
        if (!(error instanceof Unattached)) throw error;
        await this.#register(generation, () => !this.#isLeaving);
      }
    }
  }

  /** Keeps what no engine could record at this moment; it goes along with the next report, which is due within a third of the lease. */
  #keep(body, elsewhere) {
    const said = JSON.parse(body);
    for (const [name, kept] of Object.entries(this.#astray)) {
      for (const one of said[name] ?? []) if (elsewhere.has(one.attempt)) kept.push({ attempt: one.attempt, text: JSON.stringify(one) });
    }
  }

  // Calls.

  /**
   * Makes a call until it is answered: its answer. Everything in the protocol may be repeated as it is. Throws Refused when repeating will not help,
   * Unattached when the worker has to register, and Ended when nobody wants the call any more.
   */
  async #call(method, path, body, { timeoutMs, isWanted, signal, registers = false, isRaw = false }) {
    let pause = PAUSE_MIN_MS;
    const target = isRaw ? path : this.path + path;
    while (isWanted() && !signal?.aborted) {
      let answer;
      try {
        answer = await this.#exchange(method, target, body, timeoutMs, signal);
      } catch (error) {
        // A connection that was open for a while may have been closed by the engine in the meantime: that says nothing about the engine.
        if (error.wasOpen || signal?.aborted) continue;
        if (pause === PAUSE_MIN_MS) log(`${method} ${target} got no answer (${error.message || error.code}); it is repeated`);
        pause = await this.#pause(pause, isWanted);
        continue;
      }
      const { status, data } = answer;
      if (status === 200) return isRaw ? data : JSON.parse(data);
      const problem = problemOf(data);
      if (!registers && (status === 404 || kind(problem) === "unattached")) throw new Unattached();
      if (status < 500 && status !== 408 && status !== 429) {
        if (!isWanted()) break;
        throw new Refused(method, target, status, problem);
      }
      log(`${method} ${target} was answered with ${status} ${kind(problem)}; it is repeated`);
      pause = await this.#pause(pause, isWanted, problem.retry_after_ms);
    }
    throw new Ended();
  }

  /** Waits, a little more or less so that workers do not come all at once; the pause after this one. */
  async #pause(pause, isWanted, exactly) {
    const until = performance.now() + (exactly ?? pause * (0.8 + 0.4 * Math.random()));
    while (isWanted() && performance.now() < until) await sleep(Math.min(until, performance.now() + 100));
    return Math.min(pause * 2, this.#pauseMax());
  }

  #pauseMax() {
    return Math.min(PAUSE_MAX_MS, Math.max(this.#leaseMs / 3, PAUSE_MIN_MS));
  }

  /** A request and its answer. An error says that the answer is unknown. */
  #exchange(method, path, body, timeoutMs, signal) {
    return new Promise((resolve, reject) => {
      const headers = { "Content-Type": "application/json" };
      if (this.token) headers.Authorization = `Bearer ${this.token}`;
      if (body !== null) headers["Content-Length"] = Buffer.byteLength(body);
      const { hostname: host, port } = this.url;
      const request = this.client.request({ host: host.replace(/^\[|\]$/g, ""), port, method, path, headers, agent: this.agent, signal });
      const fail = (error) => {
        clearTimeout(timer);
        reject(Object.assign(error, { wasOpen: request.reusedSocket }));
      };
      const timer = setTimeout(() => request.destroy(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
      request.on("error", fail);
      request.on("response", (response) => {
        const chunks = [];
        response.on("data", (chunk) => chunks.push(chunk));
        response.on("error", fail);
        response.on("end", () => {
          clearTimeout(timer);
          resolve({ status: response.statusCode, data: Buffer.concat(chunks) });
        });
      });
      request.end(body ?? undefined);
    });
  }
}

/** Waits until that time, or until what is handed to `wakeable` is called. */
function sleep(until, wakeable = () => {}) {
  return new Promise((resolve) => {
    const left = until - performance.now();
    const timer = setTimeout(resolve, Math.max(0, Math.min(left, 0x7fffffff)));
    wakeable(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}

/** What this process and its descendants use of CPU and memory: from /proc; where that is not, this process alone. */
class Usage {
  everyMs = null; // how often the engine wants to hear it; null where it does not
  #at = performance.now();
  #cpuMs = family().cpuMs;

  /** When the engine is to hear it next. */
  due() {
    return this.everyMs === null ? Infinity : this.#at + this.everyMs;
  }

  /** What is used since it was told last; null where that is too short a time, or nobody wants to hear it. */
  tell() {
    const now = performance.now();
    const over = now - this.#at;
    if (this.everyMs === null || over < USAGE_MEASURE_MS) return null;
    const { cpuMs, memory } = family();
    const told = { cpu_cores: Math.max(0, cpuMs - this.#cpuMs) / over, memory_bytes: memory, over: `${Math.floor(over)}ms` };
    this.#at = now;
    this.#cpuMs = cpuMs;
    return told;
  }
}

/** Milliseconds of CPU since the beginning, that of ended children included, and bytes of memory. */
function family() {
  try {
    const all = [process.pid];
    let [ticks, kib] = [0, 0];
    for (const pid of all) {
      try {
        // The name of the program is in brackets and may have any letters.
        const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ").pop().split(" ");
        ticks += fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
        kib += Number(/^VmRSS:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1] ?? 0);
        for (const task of readdirSync(`/proc/${pid}/task`)) {
          all.push(...readFileSync(`/proc/${pid}/task/${task}/children`, "latin1").split(" ").filter(Boolean).map(Number));
        }
      } catch (error) {
        // One that has ended meanwhile has left its time to its parent.
        if (pid === process.pid) throw error;
      }
    }
    return { cpuMs: (ticks * 1_000) / TICKS_PER_S, memory: kib * 1_024 };
  } catch {
    const { user, system } = process.cpuUsage();
    return { cpuMs: (user + system) / 1_000, memory: process.memoryUsage().rss };
  }
}

/** Reports that an engine takes, and which attempts end with each. A heartbeat goes before the outcome of its attempt, in a report of its own. */
function* bodies(heartbeats, outcomes, usage = null) {
  let [parts, ended, spoke, size] = [{ heartbeats: [], outcomes: [] }, [], new Set(), 0];
  const body = () => {
    const fields = Object.entries(parts).filter(([, texts]) => texts.length).map(([name, texts]) => `"${name}":[${texts.join(",")}]`);
    if (usage) fields.push(`"usage":${JSON.stringify(usage)}`);
    usage = null;
    return `{${fields.join(",")}}`;
  };
  for (const [name, items] of Object.entries({ heartbeats, outcomes })) {
    for (const { attempt, text } of items) {
      const length = Buffer.byteLength(text);
      if (size && (size + length > BODY_BYTES_MAX || (name === "outcomes" && spoke.has(attempt)))) {
        yield { body: body(), ended };
        [parts, ended, spoke, size] = [{ heartbeats: [], outcomes: [] }, [], new Set(), 0];
      }
      parts[name].push(text);
      size += length + 1;
      if (name === "outcomes") ended.push(attempt);
      else spoke.add(attempt);
    }
  }
  yield { body: body(), ended };
}

/** The object that reports a result, as JSON text. */
function success(attempt, returned) {
  const isPartial = returned instanceof Partial;
  const { key, value, size } = jsonOrBase64("result", isPartial ? returned.result : returned);
  if (size > RESULT_BYTES_MAX) throw new RangeError(`a result has at most ${RESULT_BYTES_MAX} bytes, and this one has ${size}`);
  return `{"attempt":${JSON.stringify(attempt)},"${key}":${value}${isPartial ? `,"outcome":"${returned.outcome}"` : ""}}`;
}

function failure(class_, message, retryable, retryAfterMs) {
  const retryAfter = retryAfterMs == null ? undefined : `${Math.round(retryAfterMs)}ms`;
  return { failure: { class: wellFormed(class_), message: wellFormed(message.slice(0, MESSAGE_CHARS_MAX)), retryable, retry_after: retryAfter } };
}

/** The key under which a value is sent, the value as JSON text, and how many bytes it counts. */
function jsonOrBase64(key, value) {
  if (value instanceof Uint8Array) return { key: `${key}_base64`, value: `"${Buffer.from(value).toString("base64")}"`, size: value.length };
  const text = JSON.stringify(value ?? null);
  if (text === undefined) throw new TypeError(`a ${typeof value} is neither JSON nor bytes`);
  // An engine refuses a report with such a text as a whole, and the outcomes of others with it.
  if (HALF_PAIR.test(text)) throw new TypeError("it has half of a surrogate pair, which is no text");
  return { key, value: text, size: Buffer.byteLength(text) };
}

/** The text with a replacement character in place of every half of a surrogate pair. */
function wellFormed(text) {
  return Buffer.from(text).toString();
}

/** What was thrown that is no Error. */
function describe(thrown) {
  try {
    return String(thrown);
  } catch {
    return typeof thrown;
  }
}

function problemOf(data) {
  try {
    const problem = JSON.parse(data);
    if (problem && typeof problem === "object") return problem;
  } catch {
    // Not every proxy speaks JSON.
  }
  return { detail: data.toString().slice(0, 200) };
}

/** The last part of `urn:ergate:problem:KIND`. */
function kind(problem) {
  return String(problem.type ?? "").split(":").pop();
}

/** The milliseconds of a span such as "500ms", "30s", "5m" or "1h". */
function milliseconds(span) {
  const [, number, unit] = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(span) ?? [];
  if (!unit) throw new RangeError(`${JSON.stringify(span)} is not a span such as 30s`);
  return Number(number) * { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 }[unit];
}
