// What the harness and a contestant written in JavaScript say to each other: speech.py, which
// explains it, once more. Only what Node itself brings.
//
// A contestant is an object with
//   unfinished                 a query that counts the jobs which have not ended yet
//   install(dsn)               makes the schema; resolves to the version and the settings that matter
//   producer(dsn)              resolves to { single(number), bulk(numbers), close() }
//   work(dsn, options, note)   works until options.stopped resolves; every handler begins with
//                              note(number)

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const REPORT = 100; // milliseconds between reports of progress

/** Seconds of CLOCK_MONOTONIC: on one machine that is one clock for all processes. */
const now = () => Number(process.hrtime.bigint()) / 1e9;

const say = (words) => process.stdout.write(JSON.stringify(words) + "\n");

/** The version of an installed package, and of what runs it. */
export function version(name) {
  const file = new URL(`node_modules/${name}/package.json`, import.meta.url);
  return `${JSON.parse(readFileSync(file)).version}, Node ${process.versions.node}`;
}

/** Be the program of a contestant. */
export async function speak(contestant) {
  const [role, dsn] = process.argv.slice(2);
  if (role === "install") {
    say({ version: await contestant.install(dsn), unfinished: contestant.unfinished });
  } else if (role === "produce") {
    await produce(await contestant.producer(dsn));
  } else if (role === "work") {
    await work(contestant, dsn);
  } else {
    throw new Error(`${role} is not a role; there are install, produce and work`);
  }
}

async function produce(producer) {
  say({ ready: true });
  for await (const line of createInterface({ input: process.stdin })) {
    const { do: what, first, count, batch } = JSON.parse(line);
    const numbers = Array.from({ length: count }, (_, index) => first + index);
    const began = now();
    if (what === "bulk") {
      for (let index = 0; index < count; index += batch) {
        await producer.bulk(numbers.slice(index, index + batch));
      }
    } else {
      for (const number of numbers) await producer.single(number);
    }
    say({ began, ended: now() });
  }
  await producer.close();
}

async function work(contestant, dsn) {
  const numbers = [];
  const times = [];
  const note = (number) => {
    times.push(now());
    numbers.push(number);
  };
  const orders = createInterface({ input: process.stdin });
  const stopped = new Promise((resolve) => orders.once("close", resolve));
  const given = new Promise((resolve) => orders.once("line", resolve));
  say({ ready: true });
  const options = {
    processes: 1,
    purpose: "drain",
    index: 0, // which of the processes this is
    ...JSON.parse((await Promise.race([given, stopped])) ?? "{}"),
    stopped,
  };
  let said = 0;
  const report = setInterval(() => {
    if (numbers.length > said) {
      said = numbers.length;
      say({ handled: said, first: times[0] });
    }
  }, REPORT);
  stopped.then(() => clearInterval(report));
  await contestant.work(dsn, options, note);
  const starts = numbers.map((number, index) => [number, times[index]]);
  say({
    handled: numbers.length,
    first: times[0] ?? null,
    starts: options.purpose === "pickup" ? starts : [],
  });
}
