// graphile-worker: deletes a job when it is done and keeps no history.

import pg from "pg";
import { speak, version } from "./speech.mjs";

process.env.NO_LOG_SUCCESS = "1"; // as in its own performance test; read when it is loaded
const { Logger, WorkerPreset, run, runMigrations } = await import("graphile-worker");

// Standard output is the harness's.
const logger = new Logger(() => (level, message) => {
  if (level === "error" || level === "warning") console.error(message);
});

const SETTINGS = {
  // Those of the record on its page about performance, but a local queue of 5,000 instead of 500:
  // each fetch walks the index entries of the jobs deleted before, so few large ones cost half.
  drain: {
    concurrentJobs: 24,
    maxPoolSize: 25,
    localQueue: { size: 5000 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
  },
  // No local queue, as the page advises where a job must start at once: it was slower by half.
  pickup: { concurrentJobs: 1 },
};

/** Adds jobs through SQL, prepared: `addJob` and `addJobs` call the same functions, unprepared. */
class Producer {
  constructor(client) {
    this.client = client;
  }

  single(number) {
    return this.client.query({
      name: "single",
      text: "select graphile_worker.add_job('nothing', $1)",
      values: [JSON.stringify({ n: number })],
    });
  }

  bulk(numbers) {
    const specs = numbers.map((n) => ({ identifier: "nothing", payload: { n } }));
    return this.client.query({
      name: "bulk",
      text: `select count(*) from graphile_worker.add_jobs(array(
               select json_populate_recordset(null::graphile_worker.job_spec, $1)))`,
      values: [JSON.stringify(specs)],
    });
  }

  close() {
    return this.client.end();
  }
}

await speak({
  unfinished: "select count(*) from graphile_worker._private_jobs",

  async install(connectionString) {
    await runMigrations({ connectionString, logger });
    return version("graphile-worker");
  },

  async producer(connectionString) {
    const client = new pg.Client({ connectionString });
    await client.connect();
    return new Producer(client);
  },

  async work(connectionString, options, note) {
    const runner = await run({
      preset: {
        extends: [WorkerPreset],
        worker: { connectionString, logger, ...SETTINGS[options.purpose] },
      },
      noHandleSignals: true,
      taskList: { nothing: ({ n }) => note(n) },
      parsedCronItems: [],
    });
    await options.stopped;
    await runner.stop();
  },
});
