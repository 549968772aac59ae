// Use the page in Firefox as a person does:  firefox.cjs PROGRAM send ADDRESS FILE,  firefox.cjs PROGRAM receive LINK FOLDER
//
// It prints the link when it has sent one; at the end, `delivered` or what else came of it, and what Firefox complained of.

const { launch } = require("puppeteer-core");

const [program, verb, address, path] = process.argv.slice(2);

async function send(page) {
  const field = await page.waitForSelector("#files");
  await field.uploadFile(path);
  const link = await page.waitForSelector(".link", { visible: true });
  console.log(await link.evaluate((input) => input.value));
  const row = await page.waitForSelector('.row:is([data-state="delivered"], [data-state="failed"])', { timeout: 0 });
  console.log(await row.evaluate((element) => element.dataset.state));
}

async function receive(page) {
  const button = await page.waitForSelector("#download", { visible: true, timeout: 0 });
  await button.click();
  const file = await page.waitForSelector('#file:is([data-state="whole"], [data-state="over"])', { timeout: 0 });
  console.log(await file.evaluate((element) => element.dataset.state));
}

async function main() {
  const preferences = { "browser.download.folderList": 2, "browser.download.dir": path };
  const browser = await launch({ browser: "firefox", executablePath: program, extraPrefsFirefox: preferences });
  try {
    const page = await browser.newPage();
    page.on("console", (message) => console.log(`complaint: ${message.text()}`));
    page.on("pageerror", (error) => console.log(`complaint: ${error}`));
    await page.goto(address);
    await { send, receive }[verb](page);
  } finally {
    await browser.close();
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
