// faas-mesh from Node over gRPC. The clients are made from proto/ when this starts.
// Run by: npm install && node main.js http://localhost:8080 greet
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');
const path = require('node:path');
const { promisify } = require('node:util');

const [url, name] = process.argv.slice(2);
const proto = process.env.PROTO ?? path.join(__dirname, '../../../../proto');
const { v1 } = grpc.loadPackageDefinition(
  loader.loadSync(
    ['faas/v1/function_service.proto', 'faas/v1/invocation_service.proto', 'google/rpc/error_details.proto'],
    { includeDirs: [proto, path.join(proto, 'third_party')], keepCase: true, enums: String, longs: Number },
  ),
).faas;

const where = [new URL(url).host, grpc.credentials.createInsecure()];
const functions = new v1.FunctionService(...where);
const invocations = new v1.InvocationService(...where);
const call = (client, method, request) =>
  promisify(client[method].bind(client))(request, { deadline: Date.now() + 60_000 });

// google.protobuf.Value: what has its own JSON in every proto3 library but this one.
const toValue = (v) =>
  typeof v === 'object'
    ? { structValue: { fields: Object.fromEntries(Object.entries(v).map(([k, i]) => [k, toValue(i)])) } }
    : { stringValue: v };
const fromValue = (v) => (v.structValue ? Object.fromEntries(Object.entries(v.structValue.fields).map(([k, i]) => [k, fromValue(i)])) : v.stringValue);

// The reason is in google.rpc.ErrorInfo, within the status that came as a trailer.
const reason = (error) => {
  const [status] = error.metadata.get('grpc-status-details-bin');
  return /[A-Z]+(_[A-Z]+)+/.exec(status.toString('latin1'))[0];
};

(async () => {
  const code = 'def handler(payload):\n    return {"hello": payload["name"]}\n';
  const made = await call(functions, 'CreateFunction', { name, runtime: 'python', code });
  console.log(JSON.stringify({ deployed: made.name, version: made.version }));

  const request = { function_id: name, payload: toValue({ name: 'Ada' }), wait: { seconds: 30 } };
  const record = await call(invocations, 'Invoke', request);
  console.log(JSON.stringify({ status: record.status, result: fromValue(record.result) }));

  try {
    await call(invocations, 'Invoke', { function_id: `${name}-gone` });
  } catch (error) {
    console.log(JSON.stringify({ refused: reason(error) }));
  }
})();
