// A program with Dapr's SDK for JavaScript: what it does is Dapr's own way of doing it, and what it sees is printed, a line for each thing.
import { DaprServer, HttpMethod } from '@dapr/dapr';

const [appPort, daprPort] = process.argv.slice(2);
const say = (what, value) => console.log(what + ' ' + JSON.stringify(value));
const quiet = { level: 'error' };
const server = new DaprServer({
  serverHost: '127.0.0.1', serverPort: appPort, logger: quiet,
  clientOptions: { daprHost: '127.0.0.1', daprPort, logger: quiet },
});
const arrived = [];
let wake = () => {};
await server.pubsub.subscribe('local', 'orders', async (data) => { arrived.push(data); wake(); });
const came = async (n) => { while (arrived.length < n) await new Promise((resolve) => { wake = resolve; }); };
await server.invoker.listen('hello', async ({ body }) => ({ heard: JSON.parse(body) }), { method: HttpMethod.POST });
await server.start();

const { client } = server;
for (;;) { // until the app is subscribed: what is published before is for nobody
  const { subscriptions } = await (await fetch(`http://127.0.0.1:${daprPort}/v1.0/metadata`)).json();
  if (subscriptions?.length > 0) break; // daprd leaves out an empty list
  await new Promise((resolve) => { setTimeout(resolve, 20); });
}
say('invoke', await client.invoker.invoke('app', 'hello', HttpMethod.POST, { name: 'Ada' }));
await client.state.save('redis', [{ key: 'a', value: { n: 1 } }, { key: 'b', value: 'text' }]);
say('get', await client.state.get('redis', 'a'));
say('bulk', (await client.state.getBulk('redis', ['a', 'b', 'c'])).map(({ key, data }) => ({ key, data })));
await client.state.transaction('redis', [
  { operation: 'upsert', request: { key: 'a', value: { n: 2 } } },
  { operation: 'delete', request: { key: 'b' } },
]);
say('after the transaction', [await client.state.get('redis', 'a'), await client.state.get('redis', 'b')]);
await client.state.delete('redis', 'a');
say('deleted', await client.state.get('redis', 'a'));
await client.pubsub.publish('local', 'orders', { id: 7 });
await came(1);
say('event', arrived[0]);
const bulk = await client.pubsub.publishBulk('local', 'orders', [{ id: 8 }, { id: 9 }]);
await came(3);
say('bulk events', [bulk.failedMessages, arrived.slice(1).map(({ id }) => id).sort()]);
say('secret', await client.secret.get('files', 'plain'));
say('metadata', (await client.metadata.get()).id);
if (process.argv[4] === 'facade') { // the build of daprd with stable components has neither a store that is queried nor locks
  await client.state.save('accounts', [{ key: 'p1', value: { city: 'Ulm' } }, { key: 'p2', value: { city: 'Bonn' } }]);
  const found = await client.state.query('accounts', { filter: { EQ: { city: 'Ulm' } }, sort: [{ key: 'city', order: 'ASC' }], page: { limit: 10 } });
  say('query', found.results.map(({ key, data }) => ({ key, data })));
  say('lock', [await client.lock.lock('redis', 'door', 'me', 60), await client.lock.lock('redis', 'door', 'you', 60),
    (await client.lock.unlock('redis', 'door', 'you')).status, (await client.lock.unlock('redis', 'door', 'me')).status]);
}
process.exit(0);
