"use strict";
// What the scripts share: `node SCRIPT.cjs PORT RESP`. One that ends with 0 has seen nothing wrong.
const [port, resp] = process.argv.slice(2).map(Number);

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const range = (count) => Array.from({ length: count }, (_, index) => index);

/** Waits for a condition, and names what never came. */
async function until(condition, what) {
  for (const end = Date.now() + 15000; !(await condition()); await sleep(10))
    if (Date.now() > end) throw new Error(`did not come: ${what}`);
}

/** No item of `expected` may be missing or be there twice. */
function eachOnce(found, expected) {
  const [a, b] = [found, expected].map((items) => JSON.stringify(items.map(String).sort()));
  if (a !== b) throw new Error(`lost or doubled: got ${a}, expected ${b}`);
}

function run(main) {
  main().then(
    () => process.exit(0),
    (error) => {
      console.error(error);
      process.exit(1);
    },
  );
}

module.exports = { port, resp, sleep, range, until, eachOnce, run };
