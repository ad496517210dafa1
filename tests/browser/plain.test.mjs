// Without JavaScript.

import assert from "node:assert/strict";
import { test } from "node:test";

import { SECTIONS, assertQuiet, browse, groupsOf, serve } from "./support.mjs";

const server = await serve("unfair");
const browser = await browse();

test("the page says everything without a script", async (t) => {
    const page = await browser.page(t, { javaScriptEnabled: false });
    await page.goto(server.url + "/?group_by=country");
    for (const id of SECTIONS) assert.ok(await page.locator(`#${id}`).isVisible(), id);
    assert.ok((await page.locator("#timeline svg[role=img]").count()) > 0);
    assert.equal((await groupsOf(page)).length, 5);
    assertQuiet(page, server);
});

test("the controls work without a script", async (t) => {
    const page = await browser.page(t, { javaScriptEnabled: false });
    await page.goto(server.url + "/?group_by=country");
    await page.locator("form#controls [name=group_by]").selectOption("age");
    await page.locator("form#controls").getByRole("button").first().click();
    await page.waitForURL((url) => url.searchParams.get("group_by") === "age");
    assert.ok((await groupsOf(page)).some(({ group }) => group === "25-34"));
});

test("the links to a person and to the models work without a script", async (t) => {
    const page = await browser.page(t, { javaScriptEnabled: false });
    await page.goto(server.url);
    await page.getByRole("link", { name: /models/i }).first().click();
    assert.match(await page.locator("main").innerText(), /pal-a/);
});
