// Check objects against the schemas of the Gateway API and the Prometheus Operator:
//     node crds.mjs NODE_MODULES < OBJECTS.json
// Print one line for each that is wrong.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const modules = pathToFileURL(`${process.argv[2]}/@kubernetes-models/`);
const load = (path) => import(new URL(path, modules));
const { HTTPRoute } = await load("gateway-api/gateway.networking.k8s.io/v1/HTTPRoute.js");
const { ServiceMonitor } = await load("prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor.js");
const kinds = { HTTPRoute, ServiceMonitor };

for (const object of JSON.parse(readFileSync(0, "utf8"))) {
  const Kind = kinds[object.kind];
  if (Kind.apiVersion !== object.apiVersion) console.log(`${object.kind}: ${object.apiVersion}`);
  try {
    new Kind(object).validate();
  } catch (error) {
    console.log(`${object.kind}: ${error.message}`);
  }
}
