// One group, five hundred, and nobody; how much is sent and how long it takes.

import assert from "node:assert/strict";
import { test } from "node:test";

import { recordsOf } from "./csv.mjs";
import { assertQuiet, browse, groupsOf, overflow, serve } from "./support.mjs";

const MAX_BYTES = 100_000;
const MAX_MS = 10_000; // of a binary that may be built for debugging, beside other tests
const servers = {};
for (const story of ["unfair", "one", "many", "empty"]) servers[story] = await serve(story);
const browser = await browse();

for (const story of ["unfair", "many"]) {
    test(`no more than ${MAX_BYTES} bytes are sent for the page of "${story}"`, async (t) => {
        const page = await browser.page(t);
        await page.goto(servers[story].url, { waitUntil: "networkidle" });
        await Promise.all(page.seen.pending);
        t.diagnostic(`${page.seen.bytes} bytes in ${page.seen.requests.length} answers`);
        assert.ok(page.seen.bytes > 0 && page.seen.bytes <= MAX_BYTES, `${page.seen.bytes} bytes`);
    });
}

test("five hundred groups are shown page by page, each once", async (t) => {
    const page = await browser.page(t, { width: 360 });
    const started = performance.now();
    await page.goto(servers.many.url + "/?group_by=country&sort=name");
    t.diagnostic(`${Math.round(performance.now() - started)} ms`);
    assert.ok(performance.now() - started < MAX_MS);
    const seen = (await groupsOf(page)).map(({ group }) => group);
    const pages = page.getByRole("navigation", { name: "Pages of groups" }).getByRole("link");
    const count = await pages.count();
    assert.ok(count > 1);
    for (let number = 2; number <= count; number += 1) {
        await pages.nth(number - 1).click();
        await page.waitForURL((url) => url.searchParams.get("page") === String(number));
        assert.equal(await pages.nth(number - 1).getAttribute("aria-current"), "page");
        seen.push(...(await groupsOf(page)).map(({ group }) => group));
    }
    const expected = Array.from({ length: 500 }, (_, number) => `group ${String(number).padStart(3, "0")}`);
    assert.deepEqual(seen, expected);
    assert.equal(await overflow(page), 0);
    await page.goBack();
    assert.equal(new URL(page.url()).searchParams.get("page"), String(count - 1));
    assertQuiet(page, servers.many);
});

test("a page of groups that is not there is refused by its name", async (t) => {
    const page = await browser.page(t);
    const answer = await page.goto(servers.many.url + "/?group_by=country&page=4000");
    assert.ok([404, 422].includes(answer.status()));
    assert.match(await page.getByRole("alert").innerText(), /page/i);
});

test("five hundred groups are in the CSV", async () => {
    const answer = await servers.many.fetch("/accuracy?group_by=country&format=csv");
    const records = recordsOf(await answer.text());
    assert.equal(records.filter(({ country }) => country?.startsWith("group ")).length, 500);
});

test("one group has no gap, and the page says why", async (t) => {
    const page = await browser.page(t);
    await page.goto(servers.one.url + "/?group_by=country");
    assert.deepEqual((await groupsOf(page)).map(({ group }) => group), ["UK"]);
    const { gap, groups } = await servers.one.json("/accuracy?group_by=country");
    assert.equal(groups.length, 1);
    assert.equal(gap ?? null, null);
    assert.match(await page.locator("#headline-gap").innerText(), /–|group/);
    assertQuiet(page, servers.one);
});

test("where nobody has judged anything the page says how to begin", async (t) => {
    const page = await browser.page(t);
    const answer = await page.goto(servers.empty.url);
    assert.equal(answer.status(), 200);
    assert.match(await page.locator("main").innerText(), /\/users\/.*\/examples|example/);
    assert.equal(await page.locator("main svg[role=img]").count(), 0);
    assertQuiet(page, servers.empty);
});
