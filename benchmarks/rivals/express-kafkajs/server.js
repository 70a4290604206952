// A rival: events over HTTP into Kafka with Express and kafkajs, as a Node team would write it.
//
// Environment: BROKERS (commas between them), TOPIC, PORT, API_KEY. It looks the key up by its SHA-256,
// checks the required fields, stores one JSON record an event, idempotently, and answers 202 once all
// in-sync replicas have it.
'use strict';

const { createHash, randomUUID } = require('node:crypto');
const express = require('express');
const { Kafka, Partitioners, logLevel } = require('kafkajs');

const { BROKERS, TOPIC, PORT, API_KEY } = process.env;
const BODY_MAX = '10mb';

const kafka = new Kafka({ clientId: 'rival', brokers: BROKERS.split(','), logLevel: logLevel.ERROR });
const producer = kafka.producer({
  idempotent: true,
  maxInFlightRequests: 5,
  createPartitioner: Partitioners.DefaultPartitioner,
});

const digest = (key) => createHash('sha256').update(key).digest('base64');
const tenants = new Map([[digest(API_KEY), { id: 'acme', project: 'shop' }]]);

function isValid(event) {
  return typeof event?.event_type === 'string' && event.event_type !== ''
    && typeof event.timestamp === 'string' && !Number.isNaN(Date.parse(event.timestamp))
    && typeof event.properties === 'object' && event.properties !== null && !Array.isArray(event.properties);
}

function messageOf(event, tenant, receivedAt) {
  const id = randomUUID();
  const value = { event_id: id, tenant_id: tenant.id, project_id: tenant.project, received_at: receivedAt, ...event };
  return { id, key: `${tenant.id}:${event.user_id || id}`, value: JSON.stringify(value) };
}

async function store(events, tenant) {
  const receivedAt = new Date().toISOString();
  const messages = events.map((event) => messageOf(event, tenant, receivedAt));
  await producer.send({ topic: TOPIC, acks: -1, messages });
  return messages;
}

const fail = (res, status, code) => res.status(status).json({ error: { code } });

function authenticate(req, res, next) {
  req.tenant = tenants.get(digest(req.get('X-CS-API-Key') ?? ''));
  if (req.tenant === undefined) fail(res, 401, 'API_KEY_INVALID');
  else next();
}

async function single(req, res) {
  if (!isValid(req.body)) return fail(res, 422, 'EVENT_INVALID');
  const [{ id }] = await store([req.body], req.tenant);
  return res.status(202).json({ status: 'accepted', event_id: id });
}

async function batch(req, res) {
  const events = req.body?.events;
  if (!Array.isArray(events) || !events.every(isValid)) return fail(res, 422, 'EVENT_INVALID');
  const messages = await store(events, req.tenant);
  return res.status(202).json({ status: 'accepted', accepted: messages.length, failed: 0 });
}

const app = express();
app.disable('x-powered-by');
app.disable('etag');
app.use(authenticate);
app.use(express.json({ limit: BODY_MAX }));
app.post('/v1/events', single);
app.post('/v1/events/batch', batch);
app.use((error, req, res, next) => {
  if (error.status) fail(res, error.status, 'INVALID_REQUEST');
  else fail(res, 503, 'NOT_STORED');
});

producer.connect().then(() => app.listen(Number(PORT), '127.0.0.1'));
