"use strict";
// node-redis: pipelines by itself, transactions, pools, scripts, blocking pops, streams, pub/sub, client-side caching.
const assert = require("node:assert/strict");
const { createClient, createClientPool, defineScript, WatchError } = require("redis");
const { port, resp, range, until, eachOnce, run } = require("./common.cjs");

const opened = [];
const socket = { port, host: "127.0.0.1", reconnectStrategy: false };

/** Nothing is tried again: a lost connection fails the script. */
async function connect(options = {}) {
  const client = createClient({ socket, RESP: resp, ...options });
  client.on("error", (error) => (console.error("lost a connection", error), process.exit(1)));
  opened.push(client);
  return client.connect();
}

async function pipelines(client) {
  for (const round of range(30)) {
    const replies = await Promise.all(range(40).flatMap((index) => [client.incr("count"), client.hSet("hash", `f${index}`, round)]));
    assert.deepEqual(replies.filter((_, index) => index % 2 === 0), range(40).map((index) => round * 40 + index + 1));
  }
  assert.equal(Object.keys(await client.hGetAll("hash")).length, 40);
  await client.zAdd("scores", [{ value: "a", score: 1.5 }, { value: "b", score: Infinity }]);
  assert.deepEqual(await client.zRangeWithScores("scores", 0, -1), [{ value: "a", score: 1.5 }, { value: "b", score: Infinity }]);
  await client.set("volatile", "v", { expiration: { type: "EX", value: 500 } });
}

async function transactions(client) {
  for (const number of range(40)) {
    const [value, length] = await client.multi().incr("multi").rPush("multi:log", String(number)).exec();
    assert.deepEqual([value, length], [number + 1, number + 1]);
  }
  await client.set("balance", "0");
  const pool = createClientPool({ socket, RESP: resp }, { minimum: 1, maximum: 4 });
  pool.on("error", (error) => (console.error("the pool lost a connection", error), process.exit(1)));
  await pool.connect();
  await Promise.all(
    range(4).map(async () => {
      for (let done = 0; done < 8; ) {
        try {
          await pool.execute(async (own) => {
            await own.watch("balance");
            const value = Number(await own.get("balance"));
            await own.multi().set("balance", String(value + 1)).exec();
          });
          done++;
        } catch (error) {
          if (!(error instanceof WatchError)) throw error;
        }
      }
    }),
  );
  assert.equal(await client.get("balance"), "32");
  await pool.close();
}

async function scripts() {
  const take = defineScript({
    SCRIPT: "redis.call('RPUSH', KEYS[2], ARGV[1]) return redis.call('INCR', KEYS[1])",
    NUMBER_OF_KEYS: 2,
    parseCommand(parser, number) {
      parser.pushKey("taken");
      parser.pushKey("taken:log");
      parser.push(String(number));
    },
    transformReply: (reply) => reply,
  });
  const client = await connect({ scripts: { take } });
  for (const number of range(60)) assert.equal(await client.take(number), number + 1);
}

async function blocking(client) {
  const taken = [];
  const consumers = range(3).map(async () => {
    const own = await connect();
    for (let item; (item = (await own.blPop(["nothing", "queue"], 10)).element) !== "end"; ) taken.push(item);
  });
  for (const number of range(100)) await client.rPush("queue", String(number));
  await until(async () => (await client.lLen("queue")) === 0, "an empty queue");
  await client.rPush("queue", ["end", "end", "end"]);
  await Promise.all(consumers);
  eachOnce(taken, range(100));
}

async function streams(client) {
  await client.xGroupCreate("stream", "group", "$", { MKSTREAM: true });
  const seen = [];
  const consumers = range(2).map(async (number) => {
    const own = await connect();
    for (;;) {
      const reply = await own.xReadGroup("group", `c${number}`, { key: "stream", id: ">" }, { COUNT: 3, BLOCK: 800 });
      if (!reply) return;
      const messages = Array.isArray(reply) ? reply[0].messages : Object.values(reply)[0];
      for (const { id, message } of messages) {
        seen.push(message.n);
        assert.equal(await own.xAck("stream", "group", id), 1);
      }
    }
  });
  for (const number of range(80)) await client.xAdd("stream", "*", { n: String(number) });
  await Promise.all(consumers);
  eachOnce(seen, range(80));
  assert.equal((await client.xPending("stream", "group")).pending, 0);
}

async function pubsub(client) {
  const [subscriber, heard] = [await connect(), []];
  await subscriber.subscribe("news", (message) => heard.push(Number(message)));
  await subscriber.pSubscribe("news:*", (message) => heard.push(Number(message)));
  for (const number of range(100)) assert.equal(await client.publish(number % 2 ? "news" : "news:x", String(number)), 1);
  await until(() => heard.length >= 100, "every message");
  assert.deepEqual(heard, range(100));
  await subscriber.unsubscribe();
}

async function scans(client) {
  const names = range(400).map((number) => `scan:${number}`);
  await client.mSet(Object.fromEntries(names.map((name) => [name, "v"])));
  const found = new Set();
  for await (const page of client.scanIterator({ MATCH: "scan:*", COUNT: 20 })) page.forEach((name) => found.add(name));
  assert.deepEqual([...found].sort(), [...names].sort());
}

/** A cache may be behind for a moment; it never goes back, and it ends at the truth. */
async function caching(client) {
  if (resp !== 3) return;
  const [cached, seen] = [await connect({ clientSideCache: { ttl: 0, maxEntries: 0 } }), []];
  for (const number of range(80)) {
    await client.set("version", String(number));
    for (const _ of range(4)) seen.push(Number(await cached.get("version")));
  }
  assert.deepEqual(seen, [...seen].sort((a, b) => a - b));
  await until(async () => (await cached.get("version")) === "79", "the last version");
}

run(async () => {
  const client = await connect({ name: "node-redis", pingInterval: 50 });
  await Promise.all([pipelines, transactions, scripts, blocking, streams, pubsub, scans, caching].map((part) => part(client)));
  assert.equal(await client.clientGetName(), "node-redis");
  await Promise.all(opened.map((each) => each.close()));
});
