"use strict";
// ioredis: pipelines by itself and by hand, transactions, Lua commands, blocking pops, streams, pub/sub, scan streams.
const assert = require("node:assert/strict");
const Redis = require("ioredis");
const { port, resp, range, until, eachOnce, run } = require("./common.cjs");

const clients = [];
let finished = false;

/** Nothing is tried again: a lost connection fails the script. */
function connect(options = {}) {
  const client = new Redis({ port, protocol: resp, retryStrategy: () => null, maxRetriesPerRequest: 0, ...options });
  const lost = (error) => finished || (console.error("lost a connection", error), process.exit(1));
  client.on("error", lost).on("close", lost);
  clients.push(client);
  return client;
}

async function pipelines(client) {
  for (const round of range(40)) {
    const pipeline = client.pipeline();
    for (const index of range(25)) pipeline.hset("hash", `f${index}`, round).incr("count").rpush("list", index);
    const replies = await pipeline.lpop("list", 25).exec();
    assert.deepEqual(replies.filter(([error]) => error), []);
    assert.deepEqual(replies.at(-1)[1], range(25).map(String));
  }
  assert.equal(await client.get("count"), "1000");
  const automatic = connect({ enableAutoPipelining: true, keyPrefix: "auto:", db: 2 });
  for (const round of range(10)) {
    await Promise.all(range(50).map((index) => automatic.set(`k${index}`, round, "EX", 500)));
    const values = await Promise.all(range(50).map((index) => automatic.get(`k${index}`)));
    assert.deepEqual(values, range(50).map(() => String(round)));
  }
  const large = Buffer.alloc(300_000, "\r\n$5\r\n");
  await client.set("buffer", large);
  assert.ok((await client.getBuffer("buffer")).equals(large));
}

async function transactions(client) {
  for (const number of range(40)) {
    const [[, before], [, length]] = await client.multi().get("multi").rpush("multi:log", number).set("multi", number).exec();
    assert.deepEqual([before, length], [number ? String(number - 1) : null, number + 1]);
  }
  await assert.rejects(client.multi().set("a").set("multi", "never").exec(), /EXECABORT/);
  const failed = await client.multi().set("text", "x").lpush("text", 1).get("text").exec();
  assert.match(failed[1][0].message, /WRONGTYPE/);
  assert.equal(failed[2][1], "x");
  // Optimistic locking, one connection for each who takes part.
  await client.set("balance", 0);
  await Promise.all(
    range(3).map(async () => {
      const own = connect();
      for (let done = 0; done < 8; ) {
        await own.watch("balance");
        const value = Number(await own.get("balance"));
        if ((await own.multi().set("balance", value + 1).exec()) !== null) done++;
      }
    }),
  );
  assert.equal(await client.get("balance"), "24");
}

async function scripts(client) {
  client.defineCommand("take", {
    numberOfKeys: 2,
    lua: "redis.call('RPUSH', KEYS[2], ARGV[1]) return {redis.call('INCR', KEYS[1]), ARGV[1]}",
  });
  for (const number of range(60)) assert.deepEqual(await client.take("taken", "taken:log", number), [number + 1, String(number)]);
}

async function blocking(client) {
  const taken = [];
  const consumers = range(3).map(async () => {
    const own = connect();
    for (let item; (item = (await own.blpop("nothing", "queue", 10))[1]) !== "end"; ) taken.push(item);
  });
  for (const number of range(100)) await client.rpush("queue", number);
  await until(async () => (await client.llen("queue")) === 0, "an empty queue");
  await client.rpush("queue", "end", "end", "end");
  await Promise.all(consumers);
  eachOnce(taken, range(100));
}

async function streams(client) {
  await client.xgroup("CREATE", "stream", "group", "$", "MKSTREAM");
  const seen = [];
  const consumers = range(2).map(async (number) => {
    const own = connect();
    for (;;) {
      const reply = await own.xreadgroup("GROUP", "group", `c${number}`, "COUNT", 3, "BLOCK", 800, "STREAMS", "stream", ">");
      if (!reply) return;
      for (const [id, [, value]] of reply[0][1]) {
        seen.push(value);
        assert.equal(await own.xack("stream", "group", id), 1);
      }
    }
  });
  for (const number of range(80)) await client.xadd("stream", "MAXLEN", "~", 1000, "*", "n", number);
  await Promise.all(consumers);
  eachOnce(seen, range(80));
  assert.equal((await client.xpending("stream", "group"))[0], 0);
}

async function pubsub(client) {
  const [subscriber, heard] = [connect(), []];
  subscriber.on("message", (_, message) => heard.push(Number(message)));
  subscriber.on("pmessage", (_, __, message) => heard.push(Number(message)));
  await subscriber.subscribe("news");
  await subscriber.psubscribe("news:*");
  for (const number of range(100)) assert.equal(await client.publish(number % 2 ? "news" : "news:x", number), 1);
  await until(() => heard.length >= 100, "every message");
  assert.deepEqual(heard, range(100));
}

async function scans(client) {
  const names = range(400).map((number) => `scan:${number}`);
  await client.mset(Object.fromEntries(names.map((name) => [name, "v"])));
  const found = new Set();
  for await (const page of client.scanStream({ match: "scan:*", count: 20 })) page.forEach((name) => found.add(name));
  assert.deepEqual([...found].sort(), [...names].sort());
}

run(async () => {
  const client = connect({ connectionName: "ioredis" });
  await Promise.all([pipelines, transactions, scripts, blocking, streams, pubsub, scans].map((part) => part(client)));
  assert.equal(await client.client("GETNAME"), "ioredis");
  finished = true;
  await Promise.all(clients.map((each) => each.quit()));
});
