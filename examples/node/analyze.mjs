// A clip in, a verdict out, from Node: node analyze.mjs HOST:PORT FILE [SECONDS]
//
// Prints one JSON object: {"analysis": …, "events": […]} or {"error": {code, message, details}}.
// The contract is read from ../../protos as it stands; nothing here is generated or shared with the Python client.

import { createReadStream } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { randomUUID } from "node:crypto";

import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const CHUNK_BYTES = 128 * 1024;
const PROTOS = join(dirname(fileURLToPath(import.meta.url)), "..", "..", "protos");
const READING = { keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true };

// google.rpc.Status and the details that it carries: AIP-193.
const STATUS = loader.fromJSON(
  {
    nested: {
      google: {
        nested: {
          rpc: {
            nested: {
              Packed: { fields: { type_url: { type: "string", id: 1 }, value: { type: "bytes", id: 2 } } },
              Status: {
                fields: {
                  code: { type: "int32", id: 1 },
                  message: { type: "string", id: 2 },
                  details: { rule: "repeated", type: "Packed", id: 3 },
                },
              },
              ErrorInfo: { fields: { reason: { type: "string", id: 1 }, domain: { type: "string", id: 2 } } },
              FieldViolation: { fields: { field: { type: "string", id: 1 }, description: { type: "string", id: 2 } } },
              BadRequest: { fields: { field_violations: { rule: "repeated", type: "FieldViolation", id: 1 } } },
              Duration: { fields: { seconds: { type: "int64", id: 1 }, nanos: { type: "int32", id: 2 } } },
              RetryInfo: { fields: { retry_delay: { type: "Duration", id: 1 } } },
            },
          },
        },
      },
    },
  },
  READING,
);

function errorOf(error) {
  const packed = error.metadata?.get("grpc-status-details-bin")[0];
  const details = {};
  if (packed) {
    for (const each of STATUS["google.rpc.Status"].deserialize(packed).details) {
      const name = each.type_url.split("/").pop();
      if (name in STATUS) details[name.split(".").pop()] = STATUS[name].deserialize(each.value);
    }
  }
  return { code: grpc.status[error.code], message: error.details, details };
}

function analyze(client, file, seconds) {
  return new Promise((resolve, reject) => {
    const call = client.Analyze({ deadline: Date.now() + seconds * 1000 });
    const events = [];
    let analysis = null;
    call.on("data", (response) => {
      events.push(response.event);
      if (response.event === "analysis") analysis = response.analysis;
    });
    call.on("error", reject);
    call.on("end", () => resolve({ analysis, events }));
    call.write({ options: { request_id: randomUUID(), file_name: basename(file) } });
    const source = createReadStream(file, { highWaterMark: CHUNK_BYTES });
    source.on("data", (chunk) => {
      if (!call.write({ chunk })) {
        source.pause();
        call.once("drain", () => source.resume());
      }
    });
    source.on("end", () => call.end());
    source.on("error", reject);
  });
}

const [address, file, seconds = "60"] = process.argv.slice(2);
const definition = loader.loadSync("bonafide/v1/analysis.proto", {
  ...READING,
  includeDirs: [PROTOS, join(PROTOS, "third_party")],
});
const { AnalysisService } = grpc.loadPackageDefinition(definition).bonafide.v1;
const client = new AnalysisService(address, grpc.credentials.createInsecure());
try {
  console.log(JSON.stringify(await analyze(client, file, Number(seconds))));
} catch (error) {
  console.log(JSON.stringify({ error: errorOf(error) }));
  process.exitCode = 1;
} finally {
  client.close();
}
