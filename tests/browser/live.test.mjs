// People who are posted while somebody looks.

import assert from "node:assert/strict";
import { test } from "node:test";

import { assertQuiet, browse, groupsOf, serve } from "./support.mjs";

const server = await serve("empty");
const browser = await browse();
const EXAMPLES = 4;
const PEOPLE = 12;

/** Somebody who prefers tea, or coffee. */
async function post(number) {
    const drinks = number % 2 ? ["coffee", "tea"] : ["tea", "coffee"];
    const examples = Array.from({ length: EXAMPLES }, (_, n) => ({
        prompt: "A drink?",
        chosen: `have some warm ${drinks[0]} in the morning ${n}`,
        rejected: `have some warm ${drinks[1]} in the morning ${n}`,
    }));
    const attributes = { country: number % 2 ? "DE" : "UK" };
    const answer = await server.post(`/users/live-${number}/examples`, { attributes, examples });
    assert.equal(answer.status, 201);
    return answer.json();
}

test("who is posted is counted at the next look, and no more once erased", async (t) => {
    const page = await browser.page(t);
    await page.goto(server.url);
    const answers = [];
    for (let number = 0; number < PEOPLE; number += 1) answers.push(await post(number));
    await page.reload();
    const rows = await groupsOf(page);
    assert.deepEqual(rows.map(({ group, users, n }) => [group, users, n]).sort(), [
        ["DE", "6", "24"],
        ["UK", "6", "24"],
    ]);
    const { model, overall } = await server.json("/accuracy?group_by=country");
    const made = answers.flatMap(({ predictions }) => predictions.filter((prediction) => prediction.model === model));
    const right = made.reduce((sum, { preference, correct }) => sum + (preference === 0.5 ? 0.5 : Number(correct)), 0);
    assert.equal(overall.n, PEOPLE * EXAMPLES);
    assert.ok(Math.abs(overall.accuracy - right / overall.n) < 1e-6);

    assert.equal((await server.fetch("/users/live-0", { method: "DELETE" })).status, 204);
    await page.reload();
    assert.deepEqual((await groupsOf(page)).map(({ group, n }) => [group, n]).sort(), [["DE", "24"], ["UK", "20"]]);
    assertQuiet(page, server);
});

test("the page of a person says what is believed of them and what to ask next", async (t) => {
    await post(21);
    const page = await browser.page(t);
    await page.goto(server.url + "/dashboard/users/live-21");
    const said = await page.locator("main").innerText();
    for (const word of [/live-21/, /country/, /uncertain/i, /right|accura/i, /ask next/i]) assert.match(said, word);
    const { attributes, examples } = await server.json("/users/live-21");
    assert.equal(examples, EXAMPLES);
    assert.ok(said.includes(attributes.country));
    assertQuiet(page, server);
});
