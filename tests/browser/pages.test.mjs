// Every page in every width and scheme: quiet, within its window, without a fault that axe finds, and pictured.

import assert from "node:assert/strict";
import { test } from "node:test";

import { SCHEMES, WIDTHS, assertQuiet, browse, openTables, overflow, picture, serve, violations } from "./support.mjs";

const full = await serve("unfair");
const empty = await serve("empty");
const hostile = await serve("hostile");
const browser = await browse();

const PAGES = [
    { name: "overview", server: full, path: "/" },
    { name: "intersections", server: full, path: "/?group_by=country&cross=age" },
    { name: "person", server: full, path: "/dashboard/users/is-1" },
    { name: "models", server: full, path: "/dashboard/models" },
    { name: "faulty", server: full, path: "/?from=2026-02-01&to=2026-01-01&min_n=many", status: 422 },
    { name: "nobody", server: full, path: "/dashboard/users/nobody", status: 404 },
    { name: "lost", server: full, path: "/dashboard/nowhere", status: 404 },
    { name: "empty", server: empty, path: "/" },
    { name: "hostile", server: hostile, path: "/" },
];

for (const { name, server, path, status = 200 } of PAGES) {
    for (const width of Object.keys(WIDTHS).map(Number)) {
        for (const scheme of SCHEMES) {
            test(`the page "${name}" is in order at ${width} pixels in ${scheme}`, async (t) => {
                const page = await browser.page(t, { width, scheme });
                const answer = await page.goto(server.url + path);
                assert.equal(answer.status(), status);
                await picture(page, name, width, scheme);
                assert.equal(await overflow(page), 0);
                await openTables(page);
                assert.equal(await overflow(page), 0, "with its tables open");
                assert.deepEqual(await violations(page), []);
                assertQuiet(page, server, { except: status === 200 ? [] : [`status of ${status}`] });
            });
        }
    }
}
