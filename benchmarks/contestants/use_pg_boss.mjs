// pg-boss: keeps a finished job's row, for a week, and no further history.

import { PgBoss } from "pg-boss";
import { speak, version } from "./speech.mjs";

const QUEUE = "nothing";

const SETTINGS = {
  // Fetches again at once while batches come back full; two loops, so that one's fetch falls into
  // the other's handlers; few large batches cost the server a third less than those of 1,000.
  drain: { batchSize: 5000, localConcurrency: 2, burstWhenBatchFull: true },
  // Its defaults: neither larger batches nor more loops made it quicker.
  pickup: { batchSize: 1 },
};

async function boss(connectionString) {
  // NOTIFY wakes a worker; without, it looks every half a second at the most often.
  const boss = new PgBoss({ connectionString, useListenNotify: true });
  boss.on("error", (error) => console.error(error));
  return await boss.start();
}

class Producer {
  constructor(boss) {
    this.boss = boss;
  }

  single(number) {
    return this.boss.send(QUEUE, { n: number });
  }

  bulk(numbers) {
    return this.boss.insert(QUEUE, numbers.map((n) => ({ data: { n } })));
  }

  close() {
    return this.boss.stop();
  }
}

await speak({
  unfinished: `select count(*) from pgboss.job where name = '${QUEUE}' and state < 'completed'`,

  async install(dsn) {
    const installed = await boss(dsn);
    await installed.createQueue(QUEUE, { notify: true });
    await installed.stop();
    return version("pg-boss");
  },

  async producer(dsn) {
    return new Producer(await boss(dsn));
  },

  async work(dsn, options, note) {
    const worker = await boss(dsn);
    await worker.work(QUEUE, SETTINGS[options.purpose], async (jobs) => {
      for (const job of jobs) note(job.data.n);
    });
    await options.stopped;
    await worker.stop();
  },
});
