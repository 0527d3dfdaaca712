// BullMQ's side of the benchmark: one job scheduler per trigger, one worker process, finished jobs removed
// as the seed does. Called as: node bullmq.js schedule|work URL-of-redis [places]; `schedule` reads
// {"name", "url", "pattern"} lines from standard input.
const http = require("node:http");
const readline = require("node:readline");
const { Queue, Worker } = require("bullmq");
const IORedis = require("ioredis");

const [verb, address, places] = process.argv.slice(2);
const connection = new IORedis(address, { maxRetriesPerRequest: null });
const options = {
  attempts: 3,
  backoff: { type: "exponential", delay: 1000 },
  removeOnComplete: { age: 86400, count: 100 },
  removeOnFail: { count: 1000 },
};

async function schedule() {
  const queue = new Queue("triggers", { connection });
  let batch = [];
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { name, url, pattern } = JSON.parse(line);
    const data = {
      workspaceId: "ws", url, method: "POST",
      headers: { Authorization: "Bearer YOUR_TOKEN", "Content-Type": "application/json" },
      payload: { event: "scheduled_task", data: {} },
    };
    batch.push(queue.upsertJobScheduler(name, { pattern, tz: "UTC" }, { name, data, opts: options }));
    if (batch.length === 200) {
      await Promise.all(batch);
      batch = [];
    }
  }
  await Promise.all(batch);
  await queue.close();
  connection.disconnect();
}

function work() {
  const agent = new http.Agent({ keepAlive: true, maxSockets: Infinity });
  const send = (job) =>
    new Promise((resolve, reject) => {
      const body = JSON.stringify(job.data.payload);
      const request = http.request(job.data.url, {
        method: job.data.method, agent, timeout: 30000,
        headers: { ...job.data.headers, "Content-Length": Buffer.byteLength(body) },
      }, (response) => {
        let text = "";
        response.on("data", (chunk) => (text += chunk));
        response.on("end", () => resolve({ status: response.statusCode, data: text }));
      });
      request.on("error", reject);
      request.end(body);
    });
  const worker = new Worker("triggers", send, { connection, concurrency: Number(places) });
  worker.on("error", () => {});
  process.on("SIGTERM", () => process.exit(0));
  console.log("ready");
}

verb === "schedule" ? schedule() : work();
