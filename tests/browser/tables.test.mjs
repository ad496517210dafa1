// The page, the CSV and the JSON say the same, and no chart is without its table.

import assert from "node:assert/strict";
import { test } from "node:test";

import { recordsOf } from "./csv.mjs";
import { SECTIONS, assertQuiet, browse, groupsOf, serve, tableOf } from "./support.mjs";

const server = await serve("unfair");
const browser = await browse();

test("the sections stand in their order, each with a heading", async (t) => {
    const page = await browser.page(t);
    await page.goto(server.url);
    const ids = await page.locator("main section[id], main > [id]").evaluateAll((all) => all.map(({ id }) => id));
    assert.deepEqual(ids.filter((id) => SECTIONS.includes(id)), SECTIONS);
    for (const id of SECTIONS) assert.ok((await page.locator(`#${id} :is(h1, h2, h3)`).count()) > 0, id);
    assertQuiet(page, server);
});

test("every chart has a name, and its table in the same section", async (t) => {
    const page = await browser.page(t);
    await page.goto(server.url + "/?group_by=country&cross=age");
    const charts = await page.locator("main section svg[role=img]").evaluateAll((all) =>
        all.map((chart) => ({
            section: chart.closest("section").id,
            named: Boolean(chart.getAttribute("aria-label") ?? chart.getAttribute("aria-labelledby")),
            cells: chart.closest("section").querySelectorAll("table tbody td").length,
        })),
    );
    const sections = charts.map(({ section }) => section);
    const drawn = ["groups", "shots", "calibration", "intersections", "timeline"];
    for (const id of drawn) assert.ok(sections.includes(id), id);
    for (const chart of charts) {
        assert.ok(chart.named, chart.section);
        assert.ok(chart.cells > 0, chart.section);
    }
});

for (const group_by of ["country", "age"]) {
    test(`table, CSV and JSON agree figure by figure, by ${group_by}`, async (t) => {
        const page = await browser.page(t);
        await page.goto(`${server.url}/?group_by=${group_by}`);
        const table = await tableOf(page, "#groups");
        const link = (name) => page.getByRole("link", { name, exact: true }).getAttribute("href");
        const json = await server.json(await link("JSON"));
        const csv = recordsOf(await (await server.fetch(await link("CSV"))).text());

        const shown = new Map(table.map((row) => [row.group, row]));
        const filed = new Map(csv.map((record) => [record.row === "overall" ? "overall" : record[group_by], record]));
        const named = [["overall", json.overall], ...json.groups.map((group) => [group.group[group_by], group])];
        assert.equal(shown.size, named.length);
        assert.equal(filed.size, named.length);
        for (const [name, figures] of named) {
            for (const [field, value] of Object.entries(flat(figures))) {
                assert.equal(shown.get(name)[field], value, `${field} of ${name} on the page`);
                const column = field.replace("_ci_", "_");
                const cell = filed.get(name)[column];
                assert.ok(cell !== "" && Number(cell) === Number(value), `${field} of ${name} in the CSV: ${cell}`);
            }
        }
    });
}

/** The figures of a group as a line has them: an interval is two numbers. */
function flat({ group, reliability, ...figures }) {
    const pairs = Object.entries(figures).flatMap(([name, value]) =>
        Array.isArray(value) ? [[`${name}_low`, value[0]], [`${name}_high`, value[1]]] : [[name, value]],
    );
    const known = pairs.filter(([, value]) => value !== null);
    return Object.fromEntries(known.map(([name, value]) => [name, String(value)]));
}

test("the four numbers are those of the JSON", async (t) => {
    const page = await browser.page(t);
    await page.goto(server.url + "/?group_by=country");
    const json = await server.json("/accuracy?group_by=country");
    const text = async (id) => (await page.locator(`#headline-${id}`).innerText()).replaceAll("\u2212", "-");
    const percent = (share) => `${(100 * share).toFixed(1)} %`;
    assert.ok((await text("accuracy")).includes(percent(json.overall.accuracy)));
    assert.ok((await text("worst")).includes(percent(json.worst_group.accuracy)));
    assert.ok((await text("gap")).includes((100 * json.gap.value).toFixed(1)));
    assert.ok((await text("ece")).includes(json.overall.ece.toFixed(3)));
});

test("the link to this page names everything that is shown, and shows it again", async (t) => {
    const page = await browser.page(t);
    await page.goto(server.url);
    const shown = await page.locator("#headline").innerText();
    await page.getByRole("link", { name: "Link to this page" }).click();
    await page.waitForURL((url) => url.search !== "");
    const { searchParams } = new URL(page.url());
    assert.match(searchParams.get("model"), /@/);
    assert.equal(searchParams.get("group_by"), "country");
    assert.equal(await page.locator("#headline").innerText(), shown);
});

test("a group in a row of the table has its own figures, whatever the order", async (t) => {
    const page = await browser.page(t);
    await page.goto(server.url + "/?group_by=country&sort=lower");
    const rows = await groupsOf(page);
    const bounds = rows.map((row) => Number(row.accuracy_ci_low));
    assert.deepEqual(bounds, [...bounds].sort((a, b) => a - b));
    assert.equal(rows[0].group, "IS");
});
