// Words of charts lie beside each other, not upon each other, and are not cut off.

import assert from "node:assert/strict";
import { test } from "node:test";

import { WIDTHS, browse, serve } from "./support.mjs";

const servers = { unfair: await serve("unfair"), hostile: await serve("hostile") };
const browser = await browse();
const CROSSED = { unfair: "age", hostile: '"><i onclick=alert(3)>key' };

/** What is wrong with the words of each chart, in the page. */
function faults() {
    const found = [];
    const TOLERANCE = 1; // pixels: boxes of letters are larger than the letters
    for (const chart of document.querySelectorAll("svg[role=img]")) {
        const frame = (chart.closest(".scroll") ?? document.documentElement).getBoundingClientRect();
        const words = [...chart.querySelectorAll("text")].map((text) => ({
            says: text.firstChild.textContent,
            box: text.getBoundingClientRect(),
        }));
        for (const { says, box } of words) {
            if (box.left < frame.left - TOLERANCE) found.push(`${chart.id}: "${says}" is cut off on the left`);
            const clips = getComputedStyle(chart).overflow !== "visible" && chart.getBoundingClientRect();
            if (clips && (box.left < clips.left - TOLERANCE || box.right > clips.right + TOLERANCE)) {
                found.push(`"${says}" is cut off by its chart`);
            }
        }
        for (const [at, one] of words.entries()) {
            for (const other of words.slice(0, at)) {
                const across = Math.min(one.box.right, other.box.right) - Math.max(one.box.left, other.box.left);
                const down = Math.min(one.box.bottom, other.box.bottom) - Math.max(one.box.top, other.box.top);
                if (across > TOLERANCE && down > 4 * TOLERANCE) found.push(`"${other.says}" lies upon "${one.says}"`);
            }
        }
    }
    return found;
}

for (const story of Object.keys(servers)) {
    for (const width of Object.keys(WIDTHS).map(Number)) {
        test(`every word of a chart of "${story}" can be read at ${width} pixels`, async (t) => {
            const page = await browser.page(t, { width });
            const query = new URLSearchParams({ group_by: "country", cross: CROSSED[story] });
            await page.goto(`${servers[story].url}/?${query}`);
            assert.ok((await page.locator("svg[role=img] text").count()) > 40);
            assert.deepEqual(await page.evaluate(faults), []);
        });
    }
}
