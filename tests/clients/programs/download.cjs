// Download a URL with one Node.js library: `download.cjs LIBRARY URL FILE`. Exit with 0 only if the library sees no fault.

const fs = require("node:fs");
const { Readable } = require("node:stream");
const { pipeline } = require("node:stream/promises");

const libraries = {
  async fetch(url) {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`status ${response.status}`);
    return Readable.fromWeb(response.body);
  },
  http(url) {
    const client = require(url.startsWith("https:") ? "node:https" : "node:http");
    return new Promise((resolve, reject) => {
      const request = client.get(url, (response) => {
        if (response.statusCode === 200) resolve(response);
        else reject(new Error(`status ${response.statusCode}`));
      });
      request.on("error", reject);
    });
  },
  async undici(url) {
    const { body, statusCode } = await require("undici").request(url);
    if (statusCode !== 200) throw new Error(`status ${statusCode}`);
    // If the connection ends while undici 6 waits for its body to be read, it falls over an assertion of its own. So
    // nothing here is slow to read.
    return Readable.from([Buffer.from(await body.arrayBuffer())]);
  },
  async axios(url) {
    return (await require("axios").get(url, { responseType: "stream" })).data;
  },
};

async function main() {
  const [library, url, file] = process.argv.slice(2);
  await pipeline(await libraries[library](url), fs.createWriteStream(file));
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
