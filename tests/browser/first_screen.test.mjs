// A model that is good for most people and tosses a coin for a few: nobody has to scroll to see it.

import assert from "node:assert/strict";
import { test } from "node:test";

import { browse, serve } from "./support.mjs";

const server = await serve("unfair");
const browser = await browse();

for (const width of [1280, 360]) {
    test(`who is treated unfairly stands on the first screen at ${width} pixels`, async (t) => {
        const page = await browser.page(t, { width });
        await page.goto(server.url);
        const { worst_group: worst, overall } = await server.json("/accuracy?group_by=country");
        assert.equal(worst.group.country, "IS");
        assert.ok(overall.accuracy - worst.accuracy > 0.2, "the story is not unfair");
        const card = page.locator("#headline-worst");
        const words = await card.innerText();
        assert.match(words, /country.*IS/s);
        assert.ok(words.includes(`${(100 * worst.accuracy).toFixed(1)} %`), words);
        const box = await card.boundingBox();
        const { height } = page.viewportSize();
        assert.ok(box.y >= 0 && box.y + box.height <= height, `it ends at ${box.y + box.height} of ${height}`);
    });
}
