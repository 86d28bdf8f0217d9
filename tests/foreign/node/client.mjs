// Foreign programs: `node client.mjs BACKEND publish|consume|send|receive URL NAME [COUNT]`.
//
// `publish` sends a CloudEvent in binary mode, one in structured mode, and a plain message.
// `consume` prints "ready", then the next COUNT messages as the official SDK decodes them.
// `send` and `receive` are the programs of RabbitMQ's first tutorial, on the queue NAME.

import { once } from "node:events";
import amqplib from "amqplib";
import { CloudEvent, HTTP, Kafka as KafkaBinding } from "cloudevents";
import Redis from "ioredis";
import { Kafka, logLevel } from "kafkajs";
import * as nats from "nats";

const [backend, action, url, name, count = "1"] = process.argv.slice(2);
const wanted = Number(count);

const event = (id) =>
  new CloudEvent({
    id,
    source: "/node",
    type: "Order",
    datacontenttype: "application/json",
    subject: "ünï",
    tenant: "t 1",
    data: { number: 7 },
  });
const messages = () => [HTTP.binary(event("binary")), HTTP.structured(event("structured"))];
const print = (value) => process.stdout.write(JSON.stringify(value) + "\n");

// The SDK has no binding for these brokers: its HTTP one reads the same attributes as headers.
function read(headers, body, contentType) {
  const renamed = {};
  for (const [key, value] of Object.entries(headers)) {
    renamed[key.replace(/^cloudEvents[:_]/, "ce-").toLowerCase()] = String(value);
  }
  renamed["content-type"] ??= contentType ?? renamed["ce-datacontenttype"];
  delete renamed["ce-datacontenttype"];
  tell(HTTP.toEvent({ headers: renamed, body }));
}

function tell(found) {
  print({ ...found.toJSON(), valid: found.validate() });
}

const clients = {
  async kafka() {
    const kafka = new Kafka({ brokers: [new URL(url).host], logLevel: logLevel.NOTHING });
    if (action === "publish") {
      const producer = kafka.producer();
      await producer.connect();
      const sent = [KafkaBinding.binary(event("binary")), KafkaBinding.structured(event("structured"))];
      for (const { headers, key, value } of sent) {
        const body = Buffer.isBuffer(value) || typeof value === "string" ? value : JSON.stringify(value);
        // The SDK leaves undefined headers, which kafkajs refuses.
        const given = Object.fromEntries(Object.entries(headers).filter(([, text]) => text !== undefined));
        await producer.send({ topic: name, messages: [{ headers: given, key, value: body }] });
      }
      await producer.send({ topic: name, messages: [{ key: "k", value: "plain" }] });
      await producer.disconnect();
      return;
    }
    const consumer = kafka.consumer({ groupId: `node-${process.pid}` });
    await consumer.connect();
    await consumer.subscribe({ topic: name, fromBeginning: true });
    let seen = 0;
    await new Promise((resolve) =>
      consumer.run({
        eachMessage: async ({ message }) => {
          const headers = {};
          for (const [key, value] of Object.entries(message.headers)) headers[key] = String(value);
          const key = message.key?.toString();
          const value = message.value.toString();
          tell(KafkaBinding.toEvent({ headers, key, value, body: value }));
          if (++seen === wanted) resolve();
        },
      }),
    );
    await consumer.disconnect();
  },

  async rabbitmq() {
    const connection = await amqplib.connect(url);
    const channel = await connection.createConfirmChannel();
    if (action === "publish") {
      for (const { headers, body } of messages()) {
        const named = {};
        const { "content-type": contentType, ...others } = headers;
        for (const [key, value] of Object.entries(others)) named[key.replace(/^ce-/, "cloudEvents:")] = value;
        channel.publish(name, "anything", Buffer.from(body), { headers: named, contentType });
      }
      channel.publish(name, "anything", Buffer.from("plain"));
      await channel.waitForConfirms();
    } else if (action === "send") {
      await channel.assertQueue(name, { durable: true });
      channel.sendToQueue(name, Buffer.from("Hello World!"));
      await channel.waitForConfirms();
    } else {
      let queue = name;
      if (action === "consume") {
        ({ queue } = await channel.assertQueue("", { exclusive: true }));
        await channel.bindQueue(queue, name, "#");
      }
      print("ready");
      let seen = 0;
      await new Promise((resolve) =>
        channel.consume(queue, (message) => {
          channel.ack(message);
          if (action === "receive") print(message.content.toString());
          else read(message.properties.headers, message.content.toString(), message.properties.contentType);
          if (++seen === wanted) resolve();
        }),
      );
      await channel.close();
    }
    await connection.close();
  },

  async nats() {
    const connection = await nats.connect({ servers: new URL(url).host });
    if (action === "publish") {
      const jetstream = connection.jetstream();
      for (const { headers, body } of messages()) {
        const named = nats.headers();
        for (const [key, value] of Object.entries(headers)) named.set(key, encodeURI(value));
        await jetstream.publish(name, body, { headers: named });
      }
      await jetstream.publish(name, "plain");
    } else {
      const subscription = connection.subscribe(name, { max: wanted });
      await connection.flush();
      print("ready");
      for await (const message of subscription) {
        const headers = {};
        for (const [key, values] of message.headers) headers[key] = decodeURIComponent(values[0]);
        read(headers, message.string());
      }
    }
    await connection.close();
  },

  async redis() {
    const client = new Redis(url);
    if (action === "publish") {
      for (const { headers, body } of messages()) {
        await client.xadd(name, "*", ...Object.entries(headers).flat(), "data", body);
      }
      await client.xadd(name, "*", "a", "1", "b", "ü");
    } else {
      let last = "0";
      for (let seen = 0; seen < wanted; ) {
        const [[, entries]] = await client.xread("BLOCK", 0, "STREAMS", name, last);
        for (const [id, fields] of entries) {
          const found = {};
          for (let at = 0; at < fields.length; at += 2) found[fields[at]] = fields[at + 1];
          const { data, ...headers } = found;
          read(headers, data);
          last = id;
          seen += 1;
        }
      }
    }
    client.disconnect();
  },
};

await clients[backend]();
if (process.stdout.writableLength) await once(process.stdout, "drain");
process.exit(0);
