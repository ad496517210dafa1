// Names that somebody chose to do harm with.

import assert from "node:assert/strict";
import { test } from "node:test";

import { assertQuiet, browse, overflow, serve } from "./support.mjs";
import { rowsOf } from "./csv.mjs";

const NAMES = [
    "<img src=x onerror=alert(1)>",
    "</svg><script>alert(2)</script>",
    "\u202eevil\u202c",
    "שלום עולם",
    "=cmd()",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "x".repeat(256),
    'quote " comma , semicolon ;',
    "&amp; & <b>",
    "not known",
];
const server = await serve("hostile");
const browser = await browse();

test("names of groups are text, whatever they say", async (t) => {
    const page = await browser.page(t, { width: 360 });
    await page.goto(server.url + "/?group_by=country");
    const shown = await page.locator("#groups table tbody th").allTextContents();
    for (const name of NAMES) {
        assert.ok(shown.some((text) => text.includes(name)), name.slice(0, 40));
    }
    assert.equal(await page.locator("img[src=x], #groups script, [onerror], [onclick]").count(), 0);
    assert.equal(await overflow(page), 0);
    assertQuiet(page, server);
});

test("a direction that a name gives does not leak into what stands beside it", async (t) => {
    const page = await browser.page(t);
    await page.goto(server.url + "/?group_by=country");
    const isolated = await page.locator("#groups table tbody th").evaluateAll((cells) =>
        cells.map((cell) => {
            const holder = cell.querySelector("bdi, [dir=auto]") ?? cell;
            return getComputedStyle(holder).unicodeBidi;
        }),
    );
    assert.ok(isolated.length >= NAMES.length);
    for (const way of isolated) assert.match(way, /isolate|plaintext/);
});

test("no cell of the CSV is a formula", async () => {
    const answer = await server.fetch("/accuracy?group_by=country&format=csv");
    assert.equal(answer.status, 200);
    const cells = rowsOf(await answer.text()).flat();
    for (const name of NAMES.filter((name) => /^[=+\-@]/.test(name))) {
        assert.ok(cells.includes(`'${name}`), name);
        assert.ok(!cells.includes(name), name);
    }
});

test("a name of ten thousand characters is refused by its attribute", async () => {
    const country = "x".repeat(10_000);
    const examples = [{ prompt: "A drink?", chosen: "tea", rejected: "coffee" }];
    const answer = await server.post("/users/long/examples", { attributes: { country }, examples });
    assert.equal(answer.status, 422);
    const { errors } = await answer.json();
    assert.deepEqual(errors.map((error) => error.pointer), ["/attributes/country"]);
});

for (const query of [
    "group_by=country'%3B%20DROP%20TABLE%20users%3B--",
    "group_by=%3Cscript%3Ealert(5)%3C%2Fscript%3E",
    "model=%22%3E%3Cscript%3Ealert(6)%3C%2Fscript%3E",
    "from=%22%20onfocus%3Dalert(7)%20autofocus%3D%22",
]) {
    test(`the page refuses ${query} and says so`, async (t) => {
        const page = await browser.page(t);
        const answer = await page.goto(`${server.url}/?${query}`);
        assert.ok([404, 422].includes(answer.status()), `${answer.status()}`);
        assert.notEqual(await page.getByRole("alert").innerText(), "");
        assertQuiet(page, server, { except: [`status of ${answer.status()}`] });
        assert.equal((await server.fetch("/users")).status, 200);
    });
}
