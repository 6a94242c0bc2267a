"use strict";
// BullMQ, a job queue that is almost all Lua: waiting, delayed, prioritised, failing and repeated jobs, flows, events.
const { FlowProducer, Queue, QueueEvents, Worker } = require("bullmq");
const { port, range, until, eachOnce, run } = require("./common.cjs");

const connection = { host: "127.0.0.1", port };
const total = 120;

function watched(thing) {
  thing.on("error", (error) => (console.error("an error", error), process.exit(1)));
  return thing;
}

run(async () => {
  const [done, completed, tried] = [[], [], new Set()];
  const queue = watched(new Queue("work", { connection }));
  const flows = watched(new FlowProducer({ connection }));
  const events = watched(new QueueEvents("work", { connection }));
  events.on("completed", ({ jobId }) => completed.push(jobId));
  await events.waitUntilReady();

  const handle = async (job) => {
    if (job.data.number % 10 === 0 && !tried.has(job.data.number)) {
      tried.add(job.data.number);
      throw new Error("the first try of every tenth fails");
    }
    await job.updateProgress(50);
    done.push(job.data.number);
    return { squared: job.data.number ** 2 };
  };
  const workers = range(2).map(() => watched(new Worker("work", handle, { connection, concurrency: 4 })));

  const options = (number) => ({
    attempts: 3,
    delay: number % 7 === 0 ? 100 : 0,
    priority: number % 5 === 0 ? 1 + (number % 3) : 0,
  });
  const half = range(total / 2);
  const jobs = [];
  for (const number of half) jobs.push(await queue.add("one", { number }, options(number)));
  jobs.push(
    ...(await queue.addBulk(half.map((index) => index + total / 2).map((number) => ({ name: "bulk", data: { number }, opts: options(number) })))),
  );
  const child = (number) => ({ name: "child", queueName: "work", data: { number } });
  await flows.add({ name: "parent", queueName: "work", data: { number: total + 3 }, children: [1, 2, 4].map((n) => child(total + n)) });

  const everything = [...range(total), ...[1, 2, 3, 4].map((number) => total + number)];
  await until(() => done.length >= everything.length, `all jobs, but only ${done.length}`);
  await until(() => completed.length >= everything.length, "an event for each job");
  await until(async () => (await queue.getJobCounts("completed")).completed === everything.length, "all jobs completed");
  eachOnce(done, everything);
  eachOnce(completed, [...new Set(completed)]);
  for (const job of jobs.slice(-5)) {
    const { returnvalue } = await queue.getJob(job.id);
    if (returnvalue.squared !== job.data.number ** 2) throw new Error(`job ${job.id} returned ${JSON.stringify(returnvalue)}`);
  }
  await Promise.all(workers.map((worker) => worker.close()));
  await Promise.all([events.close(), flows.close(), queue.close()]);
});
