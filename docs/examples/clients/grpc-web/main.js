// faas-mesh over gRPC-Web, as a browser speaks it, with clients made from proto/:
//
//   npm install
//   buf generate ../../../../proto --template \
//     '{"version":"v2","plugins":[{"local":"./node_modules/.bin/protoc-gen-es","out":"gen",
//       "opt":["target=js","import_extension=js"],"include_imports":true}]}'
//   node main.js http://localhost:8080 greet
import { ConnectError, createClient } from '@connectrpc/connect';
import { createGrpcWebTransport } from '@connectrpc/connect-web';
import { FunctionService } from './gen/faas/v1/function_service_pb.js';
import { Invocation_Status } from './gen/faas/v1/invocation_pb.js';
import { InvocationService } from './gen/faas/v1/invocation_service_pb.js';
import { ErrorInfoSchema } from './gen/google/rpc/error_details_pb.js';

const [url, name] = process.argv.slice(2);
const transport = createGrpcWebTransport({ baseUrl: url, defaultTimeoutMs: 60_000 });
const functions = createClient(FunctionService, transport);
const invocations = createClient(InvocationService, transport);

const code = 'def handler(payload):\n    return {"hello": payload["name"]}\n';
const made = await functions.createFunction({
  name,
  runtime: 'python',
  source: { case: 'code', value: code },
});
console.log(JSON.stringify({ deployed: made.name, version: made.version }));

const payload = {
  kind: { case: 'structValue', value: { fields: { name: { kind: { case: 'stringValue', value: 'Ada' } } } } },
};
const record = await invocations.invoke({ functionId: name, payload, wait: { seconds: 30n } });
const { fields } = record.result.kind.value;
console.log(
  JSON.stringify({
    status: Invocation_Status[record.status],
    result: { hello: fields.hello.kind.value },
  }),
);

try {
  await invocations.invoke({ functionId: `${name}-gone` });
} catch (error) {
  const [info] = ConnectError.from(error).findDetails(ErrorInfoSchema);
  console.log(JSON.stringify({ refused: info.reason }));
}
