// Every control: it changes the URL, what is shown follows, and the back button undoes it.

import assert from "node:assert/strict";
import { test } from "node:test";

import { assertQuiet, browse, groupsOf, serve } from "./support.mjs";

const server = await serve("unfair");
const browser = await browse();

/** The form as somebody sees it who can use no mouse: every control by its label. */
const form = (page) => page.locator("form#controls");

/** Sets a control and waits for the page that follows. */
async function set(page, name, value) {
    const control = form(page).locator(`[name="${name}"]`);
    const isSelect = (await control.evaluate((element) => element.tagName)) === "SELECT";
    await (isSelect ? control.selectOption(value) : control.fill(value));
    const arrived = page.waitForURL((url) => url.searchParams.get(name) === value);
    await form(page).getByRole("button").first().click();
    await arrived;
}

const names = async (page) => (await groupsOf(page)).map(({ group }) => group);
const rows = (page, section) => page.locator(`${section} table tbody tr`).count();
const CONTROLS = {
    model: {
        value: "bt",
        follows: async (page) => assert.match(await page.locator("#context").innerText(), /bt@/),
    },
    group_by: {
        value: "age",
        follows: async (page) => assert.deepEqual((await names(page)).sort(), ["18-24", "25-34", "35-44", "45+"]),
    },
    cross: {
        value: "country",
        query: "?group_by=age",
        follows: async (page) => assert.ok((await rows(page, "#intersections")) > 4),
    },
    from: {
        value: "2026-02-01",
        follows: async (page) => assert.ok((await names(page)).length > 0),
    },
    to: {
        value: "2026-02-06",
        follows: async (page) => assert.ok((await names(page)).length > 0),
    },
    min_n: {
        value: "25",
        follows: async (page) => assert.deepEqual((await names(page)).sort(), ["DE", "FR", "UK"]),
    },
    step: { value: "week", follows: async (page) => assert.ok((await rows(page, "#timeline")) > 0) },
    sort: {
        value: "name",
        follows: async (page) => assert.deepEqual(await names(page), ["DE", "FR", "IS", "JP", "UK"]),
    },
};

for (const [name, { value, query = "?group_by=country", follows }] of Object.entries(CONTROLS)) {
    test(`the control ${name} is in the URL, and what is shown follows it`, async (t) => {
        const page = await browser.page(t);
        await page.goto(server.url + "/" + query);
        const before = { url: page.url(), figures: await page.locator("main").innerText() };
        await set(page, name, value);
        const changed = await page.locator("main").innerText();
        assert.notEqual(changed, before.figures);
        await follows(page);
        assert.equal(await form(page).locator(`[name="${name}"]`).inputValue(), value);

        const copy = await browser.page(t);
        await copy.goto(page.url());
        assert.equal(await copy.locator("main").innerText(), changed, "a link says the same to somebody else");

        await page.goBack();
        assert.equal(page.url(), before.url);
        assert.equal(await page.locator("main").innerText(), before.figures);
        assertQuiet(page, server);
    });
}

test("there is no control that is not tested", async (t) => {
    const page = await browser.page(t);
    await page.goto(server.url);
    const controls = form(page).locator("input:not([type=hidden]), select");
    const there = await controls.evaluateAll((all) => all.map(({ name }) => name));
    assert.deepEqual(there.sort(), Object.keys(CONTROLS).sort());
});

test("every control has a label and is reached by the keyboard", async (t) => {
    const page = await browser.page(t);
    await page.goto(server.url);
    const reached = new Set();
    for (let presses = 0; presses < 60 && reached.size < Object.keys(CONTROLS).length; presses += 1) {
        await page.keyboard.press("Tab");
        const name = await page.evaluate(() => document.activeElement.name ?? "");
        if (name) reached.add(name);
    }
    assert.deepEqual([...reached].sort(), Object.keys(CONTROLS).sort());
    for (const name of Object.keys(CONTROLS)) {
        const labels = await form(page).locator(`[name="${name}"]`).evaluate((control) => control.labels.length);
        assert.ok(labels > 0, name);
    }
});

test("what is wrong with a control is said beside it, and the rest keeps what was entered", async (t) => {
    const page = await browser.page(t);
    const answer = await page.goto(server.url + "/?group_by=country&from=2026-02-01&to=2026-01-01");
    assert.equal(answer.status(), 422);
    assert.match(await page.getByRole("alert").innerText(), /before/);
    assert.equal(await form(page).locator("[name=from]").inputValue(), "2026-02-01");
    assert.equal(await form(page).locator("[name=to]").inputValue(), "2026-01-01");
    assert.equal(await form(page).locator("[name=to]").getAttribute("aria-invalid"), "true");
});
